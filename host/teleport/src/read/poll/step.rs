//! Past what the server cannot or does not send.

use lockgate_model::Millis;

use super::page::{Direction, Query, ask};
use crate::Intake;
use crate::connect::of_proto;
use crate::context::Context;

/// The first millisecond after `from` from which the server answers again, where it refuses to
/// answer from `from` on.
///
/// `None`: nowhere before `to`. That is no proof that the fault lies in the log.
pub(super) async fn past_refusal<I: Intake>(
    context: &Context<I>,
    from: Millis,
    to: Millis,
) -> Option<Millis> {
    let mut refused = from;
    let mut stride = 1;
    let mut good = loop {
        let next = from.checked_add(stride).filter(|&next| next < to)?;
        if answers(context, next, to).await {
            break next;
        }
        refused = next;
        stride *= 2;
    };
    while good - refused > 1 {
        let middle = refused + (good - refused) / 2;
        if answers(context, middle, to).await {
            good = middle;
        } else {
            refused = middle;
        }
    }
    Some(good)
}

/// The first millisecond after `from` from which the server sends events again, where it sends an
/// empty page although there may be more. `None`: there are none, or none that can be found.
pub(super) async fn past_silence<I: Intake>(
    context: &Context<I>,
    from: Millis,
    to: Millis,
) -> Option<Millis> {
    let mut silent = from + 1;
    if silent > to {
        return None;
    }
    if sends(context, silent, to).await {
        return Some(silent);
    }
    let mut found = beyond(context, silent, to).await?;
    while found - silent > 1 {
        let middle = silent + (found - silent) / 2;
        if sends(context, middle, to).await {
            found = middle;
        } else {
            silent = middle;
        }
    }
    Some(found)
}

/// Some time from which the server sends events, where it sends none from `silent` on.
async fn beyond<I: Intake>(context: &Context<I>, silent: Millis, to: Millis) -> Option<Millis> {
    let newest = Query {
        direction: Direction::NewestFirst,
        ..one(silent, to)
    };
    if let Ok(page) = ask(context, &newest).await
        && let Some(time) = page
            .items
            .iter()
            .map(|event| of_proto(event.time.as_ref()))
            .max()
        && (silent + 1..=to).contains(&time)
        && sends(context, time, to).await
    {
        return Some(time);
    }
    // The newest may be what cannot be sent. What comes after something is near it, as a rule.
    let mut stride = 1;
    loop {
        let next = silent.checked_add(stride).filter(|&next| next <= to)?;
        if sends(context, next, to).await {
            return Some(next);
        }
        stride *= 2;
    }
}

/// True where the server answers at all.
pub(super) async fn answers<I: Intake>(context: &Context<I>, from: Millis, to: Millis) -> bool {
    ask(context, &one(from, to)).await.is_ok()
}

async fn sends<I: Intake>(context: &Context<I>, from: Millis, to: Millis) -> bool {
    ask(context, &one(from, to))
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
