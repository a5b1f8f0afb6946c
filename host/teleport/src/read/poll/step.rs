//! Past what the server cannot or does not send.

use lockgate_model::Millis;

use super::page::{Query, ask};
use crate::Intake;
use crate::context::Context;

/// Beyond this many ms before the end of a window nothing is looked for: the next window repeats that much.
const NEAR: Millis = 1000;

/// The first millisecond after `from` from which the server answers again, where it refuses to answer from `from` on.
///
/// `None`: nowhere before `to`. That is no proof that the fault lies in the log.
pub(super) async fn past_refusal<I: Intake>(context: &Context<I>, from: Millis, to: Millis) -> Option<Millis> {
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

/// The first millisecond after `from` from which the server sends events again, where it sends an empty page although there may be
/// more. `None`: there are none, or none that can be found.
pub(super) async fn past_silence<I: Intake>(context: &Context<I>, from: Millis, to: Millis) -> Option<Millis> {
    if sends(context, from + 1, to).await {
        return Some(from + 1);
    }
    let mut silent = from + 1;
    // Half of what is left, each time: the end of the window is reached in a few steps.
    let mut found = loop {
        let next = silent + (to - silent) / 2;
        if to - next < NEAR || next <= silent {
            return None;
        }
        if sends(context, next, to).await {
            break next;
        }
        silent = next;
    };
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

/// True where the server answers at all.
pub(super) async fn answers<I: Intake>(context: &Context<I>, from: Millis, to: Millis) -> bool {
    ask(context, &one(from, to)).await.is_ok()
}

async fn sends<I: Intake>(context: &Context<I>, from: Millis, to: Millis) -> bool {
    ask(context, &one(from, to)).await.is_ok_and(|page| !page.items.is_empty())
}

fn one(from: Millis, to: Millis) -> Query {
    Query { from, to, limit: 1, key: String::new() }
}
