//! Rules that a commit keeps whatever the ledger holds: every ledger refuses one that does not.

use lockgate_model::{Commit, Entries, FeedKind, Outcome, Seq};

use crate::{LedgerError, limits};

/// A commit says each thing more than once (outcomes, days, letters); they have to agree, or the
/// books never balance. `dead` is ascending.
pub fn check_commit(commit: &Commit) -> Result<(), LedgerError> {
    entries(&commit.entries)
        .and_then(|()| outcomes(commit))
        .and_then(|()| sizes(commit))
        .map_err(LedgerError::Invalid)
}

/// Entries that an operator names: ascending, each once, at most
/// [`limits::LETTERS_PER_OPERATION`].
pub fn check_seqs(seqs: &[Seq]) -> Result<(), LedgerError> {
    ascending(seqs).map_err(LedgerError::Invalid)
}

/// The feed of each stream that a pipeline registers on. A stream is named once, and says its feed.
pub fn check_streams(pipeline: &str, streams: &[String]) -> Result<Vec<FeedKind>, LedgerError> {
    if streams.is_empty() {
        return Err(LedgerError::Invalid(format!(
            "the pipeline `{pipeline}` reads no stream"
        )));
    }
    let mut feeds = Vec::new();
    for (nth, name) in streams.iter().enumerate() {
        if streams[..nth].contains(name) {
            return Err(LedgerError::Invalid(format!(
                "the stream `{name}` is named twice"
            )));
        }
        let feed = name.rsplit_once('/').and_then(|(_, feed)| {
            let kinds = [FeedKind::Audit, FeedKind::Sessions];
            kinds.into_iter().find(|kind| kind.name() == feed)
        });
        feeds.push(feed.ok_or_else(|| {
            LedgerError::Invalid(format!(
                "`{name}` is not a stream: the name of one ends in `/audit` or `/sessions`"
            ))
        })?);
    }
    Ok(feeds)
}

fn entries(entries: &Entries) -> Result<(), String> {
    match entries {
        Entries::Range(range) if range.is_empty() => Err(format!("the range {range:?} is empty")),
        Entries::Range(range) if range.start == 0 || i64::try_from(range.end).is_err() => {
            Err(format!("there are no such entries as {range:?}"))
        }
        Entries::Range(_) => Ok(()),
        Entries::Redriven(seqs) => ascending(seqs),
    }
}

fn ascending(seqs: &[Seq]) -> Result<(), String> {
    let (Some(&first), Some(&last)) = (seqs.first(), seqs.last()) else {
        return Err("no entry is named".to_owned());
    };
    if seqs.len() > limits::LETTERS_PER_OPERATION {
        return Err(format!(
            "{} entries are more than {}",
            seqs.len(),
            limits::LETTERS_PER_OPERATION
        ));
    }
    if let Some(pair) = seqs.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(format!(
            "entries are not in ascending order: {}, then {}",
            pair[0], pair[1]
        ));
    }
    if first == 0 || i64::try_from(last).is_err() {
        return Err(format!("there are no such entries as {first} to {last}"));
    }
    Ok(())
}

fn outcomes(commit: &Commit) -> Result<(), String> {
    let (entries, outcomes) = (&commit.entries, &commit.outcomes);
    if outcomes.len() != entries.len() {
        return Err(format!(
            "{} outcomes for {} entries",
            outcomes.len(),
            entries.len()
        ));
    }
    let mut letters = commit.dead.iter().map(|letter| letter.seq);
    for (seq, outcome) in entries.iter().zip(outcomes.iter()) {
        if let Outcome::Dropped(reason) | Outcome::Dead(reason) = outcome
            && usize::from(reason) >= commit.reasons.len()
        {
            return Err(format!(
                "entry {seq} has reason {reason} of {}",
                commit.reasons.len()
            ));
        }
        if let Outcome::Dead(_) = outcome
            && letters.next() != Some(seq)
        {
            return Err(format!(
                "the dead entry {seq} has no dead letter, or the letters' order breaks there"
            ));
        }
    }
    if let Some(extra) = letters.next() {
        return Err(format!(
            "there is a dead letter for {extra}, which is not dead"
        ));
    }
    let days = commit.days.iter().fold((0, 0, 0), |sum, day| {
        (sum.0 + day.delivered, sum.1 + day.dropped, sum.2 + day.dead)
    });
    if days != outcomes.count() {
        return Err(format!(
            "by day {days:?}, by outcome {:?} (delivered, dropped, dead)",
            outcomes.count()
        ));
    }
    Ok(())
}

/// Nothing that a plugin decides grows without a limit.
fn sizes(commit: &Commit) -> Result<(), String> {
    let at_most = |what: &str, size: usize, max: usize| {
        if size <= max {
            Ok(())
        } else {
            Err(format!("{what}: {size} is more than {max}"))
        }
    };
    at_most("reasons", commit.reasons.len(), limits::REASONS)?;
    for reason in &commit.reasons {
        at_most("bytes of a reason", reason.len(), limits::REASON_BYTES)?;
    }
    for letter in &commit.dead {
        let size = letter.reason.len().max(letter.cause.len());
        at_most(
            "bytes of a dead letter's reason",
            size,
            limits::REASON_BYTES,
        )?;
    }
    for write in &commit.state {
        let value = write.value.as_ref().map_or(0, String::len);
        at_most(
            "bytes of a state key",
            write.key.len(),
            limits::STATE_KEY_BYTES,
        )?;
        at_most("bytes of a state value", value, limits::STATE_VALUE_BYTES)?;
    }
    at_most(
        "bytes of the brake",
        commit.brake.len(),
        limits::BRAKE_BYTES,
    )
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use lockgate_model::{Day, DayTally, DeadLetter, Outcomes, StateWrite};

    use super::*;

    /// Entries 3 to 5: delivered, dropped, dead.
    fn commit(change: impl FnOnce(&mut Commit)) -> Result<(), LedgerError> {
        let mut outcomes = Outcomes::default();
        for outcome in [Outcome::Delivered, Outcome::Dropped(0), Outcome::Dead(1)] {
            outcomes.push(outcome);
        }
        let mut commit = Commit {
            entries: Entries::Range(3..6),
            outcomes,
            reasons: vec!["a".into(), "b".into()],
            days: vec![DayTally {
                day: Day(0),
                delivered: 1,
                dropped: 1,
                dead: 1,
            }],
            dead: vec![DeadLetter {
                seq: 5,
                ..DeadLetter::default()
            }],
            ..Commit::default()
        };
        change(&mut commit);
        check_commit(&commit)
    }

    #[test]
    fn commits_whose_parts_disagree_are_refused() {
        let seqs = |range: RangeInclusive<u64>| Entries::Redriven(range.collect());
        type Change = Box<dyn FnOnce(&mut Commit)>;
        let changes: Vec<(&str, Change)> = vec![
            ("is empty", Box::new(|c| c.entries = Entries::Range(3..3))),
            ("no such", Box::new(|c| c.entries = Entries::Range(0..3))),
            ("outcomes", Box::new(|c| c.entries = Entries::Range(3..7))),
            (
                "no entry",
                Box::new(|c| c.entries = Entries::Redriven(vec![])),
            ),
            (
                "ascending order: 5, then 5",
                Box::new(|c| c.entries = Entries::Redriven(vec![3, 5, 5])),
            ),
            (
                "more than 4096",
                Box::new(move |c| c.entries = seqs(1..=4097)),
            ),
            ("reason 1 of 1", Box::new(|c| drop(c.reasons.pop()))),
            ("no dead letter", Box::new(|c| c.dead.clear())),
            ("not dead", Box::new(|c| c.dead.push(DeadLetter::default()))),
            ("by day", Box::new(|c| c.days[0].dead = 0)),
            ("257", Box::new(|c| c.reasons = vec![String::new(); 257])),
            ("1025", Box::new(|c| c.reasons[0] = "x".repeat(1025))),
            ("1025", Box::new(|c| c.dead[0].reason = "x".repeat(1025))),
            ("state key", Box::new(|c| c.state = vec![state(1025, 0)])),
            (
                "state value",
                Box::new(|c| c.state = vec![state(1, 65_537)]),
            ),
            ("brake", Box::new(|c| c.brake = "x".repeat(65_537))),
        ];
        for (expected, change) in changes {
            let refused = commit(change).expect_err(expected).to_string();
            assert!(refused.contains(expected), "{expected}: {refused}");
        }
        assert_eq!(commit(|_| {}), Ok(()));
        assert_eq!(commit(|c| c.state = vec![state(1024, 65_536)]), Ok(()));
        assert_eq!(
            commit(|c| c.entries = Entries::Redriven(vec![1, 2, 5])),
            Ok(())
        );
    }

    fn state(key: usize, value: usize) -> StateWrite {
        StateWrite {
            owner: "counter".into(),
            key: "k".repeat(key),
            value: Some("v".repeat(value)),
        }
    }
}
