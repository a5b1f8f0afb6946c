//! What became of an entry that is not a dead letter, or not any more.

use lockgate_model::{Fate, LINE_MAX, escape};
use lockgate_store::{Change, EntryHistory, EntryState, HistoryStep, Inspector};

use super::address::Address;
use super::rfc3339;
use crate::failure::Failure;

/// The failure of a command that names a dead letter which does not exist.
pub(crate) fn not_a_letter(inspector: &Inspector, address: &Address) -> Failure {
    let histories = match inspector.history(&address.stream, address.seq) {
        Ok(histories) => histories,
        Err(error) => return Failure::failed(error),
    };
    let mut histories = histories.iter();
    let history = histories.find(|history| history.pipeline == address.pipeline);
    let Some(history) = history else {
        return not_there(address, "");
    };
    let Some(last) = history.steps.last() else {
        return match history.state {
            EntryState::WaitingAgain { .. } => waits_again(address, ""),
            EntryState::Folded { .. } => not_there(address, ": it is final"),
            _ => not_there(address, ""),
        };
    };
    let at = rfc3339(last.at);
    let became = match &last.change {
        Change::Retried => return waits_again(address, &format!(" since {at}")),
        Change::Outcome(Fate::Delivered) => format!("it was delivered at {at}"),
        Change::Outcome(Fate::Dropped(reason)) | Change::LetterDropped(reason) => {
            format!("it was dropped at {at} ({})", escape(reason, LINE_MAX))
        }
        Change::RemovedByRetention => format!("retention removed it at {at}"),
        Change::GivenUp => format!("it was given up at {at} (lag-limit)"),
        Change::LetterExpired => format!("it expired at {at}"),
        // The letter should be there.
        Change::Outcome(Fate::Dead(_)) => return not_there(address, ""),
    };
    let any_more = if was_dead(history) { " any more" } else { "" };
    not_there(address, &format!("{any_more}: {became}"))
}

fn waits_again(address: &Address, since: &str) -> Failure {
    Failure::failed(format!(
        "`{address}` is no longer a dead letter: it has been waiting to be sent again{since}."
    ))
    .hint("a running host sends it; if it fails again, it is a dead letter again")
}

fn not_there(address: &Address, more: &str) -> Failure {
    Failure::failed(format!("`{address}` is not a dead letter{more}."))
        .hint("`lockgate dlq list` shows those that exist")
}

fn was_dead(history: &EntryHistory) -> bool {
    let is_death = |step: &HistoryStep| matches!(step.change, Change::Outcome(Fate::Dead(_)));
    history.steps.iter().any(is_death)
}
