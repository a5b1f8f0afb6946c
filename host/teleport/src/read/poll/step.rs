//! Finding the next time from which the server sends events, past one that it cannot send.

use lockgate_model::{Day, Millis};

use super::page::{Direction, Query, Refusal, fetch};
use crate::Intake;
use crate::source::Source;
use crate::time::of_proto;

/// The first millisecond after `from` from which the server answers again, if it refuses requests
/// that start at `from`.
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
        if answers(source, next, to).await {
            break next;
        }
        refused = next;
        stride *= 2;
    };
    while good - refused > 1 {
        let middle = refused + (good - refused) / 2;
        if answers(source, middle, to).await {
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

/// A time from which the server sends events, if it sends none from `silent` on.
async fn beyond<I: Intake>(source: &Source<I>, silent: Millis, to: Millis) -> Option<Millis> {
    let query = Query {
        direction: Direction::NewestFirst,
        ..one(silent, to)
    };
    if let Ok(Some(time)) = newest(source, &query).await
        && (silent + 1..=to).contains(&time)
        && sends(source, time, to).await
    {
        return Some(time);
    }
    // The newest event may be the one that cannot be sent. The next event is usually close. Several
    // days are searched only where there seem to be no events.
    let factor = if to - silent > Day::MILLIS { 8 } else { 2 };
    let mut stride = 1;
    loop {
        let next = silent.checked_add(stride).filter(|&next| next <= to)?;
        if sends(source, next, to).await {
            return Some(next);
        }
        stride *= factor;
    }
}

/// The time of the newest event. `None` if there is none, or it is too large to be sent.
pub(super) async fn newest<I: Intake>(
    source: &Source<I>,
    query: &Query,
) -> Result<Option<Millis>, Refusal> {
    let query = Query {
        limit: 1,
        direction: Direction::NewestFirst,
        ..query.clone()
    };
    let page = fetch(source, &query).await?;
    let times = page.items.iter().map(|event| of_proto(event.time.as_ref()));
    Ok(times.max())
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
        limit: 1,
        ..Query::default()
    }
}
