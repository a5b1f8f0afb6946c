//! Run-length outcomes: (kind in the two lowest bits, reason above them; length) for each run.

use lockgate_model::{Outcome, OutcomeRun, Outcomes};

use super::CodecError;
use super::bytes::{Input, varint};

pub fn encode_outcomes(outcomes: &Outcomes) -> Vec<u8> {
    let mut out = Vec::with_capacity(outcomes.runs.len() * 3);
    for run in outcomes.runs.iter().filter(|run| run.len > 0) {
        let kind = match run.outcome {
            Outcome::Delivered => 0,
            Outcome::Dropped(reason) => 1 | u64::from(reason) << 2,
            Outcome::Dead(reason) => 2 | u64::from(reason) << 2,
        };
        varint(&mut out, kind);
        varint(&mut out, run.len.into());
    }
    out
}

pub fn decode_outcomes(bytes: &[u8]) -> Result<Outcomes, CodecError> {
    let mut input = Input(bytes);
    let mut runs = Vec::new();
    while !input.0.is_empty() {
        let kind = input.varint()?;
        let reason = u16::try_from(kind >> 2).map_err(|_| CodecError::Number)?;
        let outcome = match kind & 3 {
            0 if reason == 0 => Outcome::Delivered,
            1 => Outcome::Dropped(reason),
            2 => Outcome::Dead(reason),
            _ => return Err(CodecError::Number),
        };
        let len = input.int()?;
        if len == 0 {
            return Err(CodecError::Number);
        }
        runs.push(OutcomeRun { outcome, len });
    }
    Ok(Outcomes { runs })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn outcomes_survive(runs in prop::collection::vec((0..3u8, any::<u16>(), 1..u32::MAX), 0..50)) {
            let runs: Vec<OutcomeRun> = runs.into_iter().map(|(kind, reason, len)| {
                let outcome = [Outcome::Delivered, Outcome::Dropped(reason), Outcome::Dead(reason)][kind as usize];
                OutcomeRun { outcome, len }
            }).collect();
            let outcomes = Outcomes { runs };
            prop_assert_eq!(decode_outcomes(&encode_outcomes(&outcomes)), Ok(outcomes));
        }
    }

    #[test]
    fn a_full_batch_of_one_outcome_takes_three_bytes() {
        let mut outcomes = Outcomes::default();
        (0..500).for_each(|_| outcomes.push(Outcome::Delivered));
        assert_eq!(encode_outcomes(&outcomes), [0, 0xf4, 0x03]);
    }

    #[test]
    fn unknown_kinds_and_empty_runs_are_refused() {
        for bytes in [&[3u8, 1][..], &[0, 0], &[4, 1], &[0], &[1 << 2 | 1]] {
            assert!(decode_outcomes(bytes).is_err(), "{bytes:?}");
        }
    }
}
