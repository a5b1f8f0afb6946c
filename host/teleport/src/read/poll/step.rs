//! Finding the next time from which the server sends events, past one that it cannot send.

use lockgate_model::{Day, Millis};

use super::page::{Direction, Query, Refusal, fetch};
use crate::Intake;
use crate::source::Source;
use crate::time::of_proto;

/// The end of the longest window from `from` for which the server answers, if it refuses the whole
/// window to `to`. `None` if it refuses `from` itself.
pub(super) async fn readable<I: Intake>(
    source: &Source<I>,
    from: Millis,
    to: Millis,
    page: i32,
) -> Option<Millis> {
    let answers = async |to: Millis| {
        let query = Query {
            page_size: page,
            ..one(from, to)
        };
        fetch(source, &query).await.is_ok()
    };
    if from >= to || !answers(from).await {
        return None;
    }
    let (mut good, mut refused) = (from, to);
    while refused - good > 1 {
        let middle = good + (refused - good) / 2;
        if answers(middle).await {
            good = middle;
        } else {
            refused = middle;
        }
    }
    Some(good)
}

/// The first millisecond after `from` for which the server answers again, if it refuses `from`.
///
/// `None` if there is none before `to`. That does not prove that the log is at fault.
pub(super) async fn past_refusal<I: Intake>(
    source: &Source<I>,
    from: Millis,
    to: Millis,
) -> Option<Millis> {
    let mut refused = from;
    let mut stride = 1;
    let mut good = loop {
        let next = from.checked_add(stride).filter(|&next| next < to)?;
        if answers(source, next, next).await {
            break next;
        }
        refused = next;
        stride *= 2;
    };
    while good - refused > 1 {
        let middle = refused + (good - refused) / 2;
        if answers(source, middle, middle).await {
            good = middle;
        } else {
            refused = middle;
        }
    }
    Some(good)
}

/// The first millisecond after `from` from which the server sends events again, if it sends an
/// empty page although there may be more. `None` if there are no more events, or none can be found.
pub(super) async fn past_silence<I: Intake>(
    source: &Source<I>,
    from: Millis,
    to: Millis,
) -> Option<Millis> {
    let mut silent = from + 1;
    if silent > to {
        return None;
    }
    if sends(source, silent, to).await {
        return Some(silent);
    }
    let mut found = beyond(source, silent, to).await?;
    while found - silent > 1 {
        let middle = silent + (found - silent) / 2;
        if sends(source, middle, to).await {
            found = middle;
        } else {
            silent = middle;
        }
    }
    Some(found)
}

/// Whether the server shows no event, from neither end of the window and from neither side of its
/// middle. It was asked for the first one before. An event that is too large to be sent hides those
/// behind it.
pub(super) async fn seems_empty<I: Intake>(source: &Source<I>, from: Millis, to: Millis) -> bool {
    let middle = from + (to - from) / 2;
    matches!(newest(source, &one(from, to)).await, Ok(None))
        && matches!(newest(source, &one(from, middle)).await, Ok(None))
        && matches!(fetch(source, &one(middle, to)).await, Ok(page) if page.items.is_empty())
}

/// A time from which the server sends events, if it sends none from `silent` on.
async fn beyond<I: Intake>(source: &Source<I>, silent: Millis, to: Millis) -> Option<Millis> {
    // The next event is usually close. From the near side first: of several events that cannot be
    // sent, the newest event may be behind the last. Several days are searched in long strides.
    let factor = if to - silent > Day::MILLIS { 8 } else { 2 };
    let mut stride = 1;
    while let Some(next) = silent.checked_add(stride).filter(|&next| next <= to) {
        if sends(source, next, to).await {
            return Some(next);
        }
        stride *= factor;
    }
    let query = Query {
        direction: Direction::NewestFirst,
        ..one(silent, to)
    };
    let newest = newest(source, &query).await.ok().flatten()?;
    let is_behind = (silent + 1..=to).contains(&newest) && sends(source, newest, to).await;
    is_behind.then_some(newest)
}

/// The time of the newest event. `None` if there is none, or it is too large to be sent.
pub(super) async fn newest<I: Intake>(
    source: &Source<I>,
    query: &Query,
) -> Result<Option<Millis>, Refusal> {
    let query = Query {
        page_size: 1,
        direction: Direction::NewestFirst,
        ..query.clone()
    };
    let page = fetch(source, &query).await?;
    let times = page.items.iter().map(|event| of_proto(event.time.as_ref()));
    Ok(times.max())
}

/// The time of the newest event, also if the server refuses a part of the log: then of what is
/// after that part or, if nothing is, before it.
pub(super) async fn newest_readable<I: Intake>(
    source: &Source<I>,
    mut query: Query,
) -> Option<Millis> {
    /// Milliseconds. It need not be found exactly if the server refuses.
    const NEAR: Millis = 1_000;
    if let Ok(newest) = newest(source, &query).await {
        return newest;
    }
    let (from, to) = (query.from, query.to);
    let (mut refused, mut quiet) = (from, to);
    while quiet - refused > NEAR {
        let middle = refused + (quiet - refused) / 2;
        query.from = middle;
        match newest(source, &query).await {
            Ok(Some(newest)) => return Some(newest),
            Ok(None) => quiet = middle,
            Err(_) => refused = middle,
        }
    }
    query.from = from;
    let (mut answered, mut refused, mut found) = (from, to, None);
    while refused - answered > NEAR {
        query.to = answered + (refused - answered) / 2;
        match newest(source, &query).await {
            Ok(newest) => {
                found = newest.or(found);
                answered = query.to;
            }
            Err(_) => refused = query.to,
        }
    }
    found
}

/// Whether the server answers at all.
pub(super) async fn answers<I: Intake>(source: &Source<I>, from: Millis, to: Millis) -> bool {
    fetch(source, &one(from, to)).await.is_ok()
}

async fn sends<I: Intake>(source: &Source<I>, from: Millis, to: Millis) -> bool {
    fetch(source, &one(from, to))
        .await
        .is_ok_and(|page| !page.items.is_empty())
}

fn one(from: Millis, to: Millis) -> Query {
    Query {
        from,
        to,
        page_size: 1,
        ..Query::default()
    }
}
