//! Run-length outcomes: (kind in the two lowest bits, reason above them; length) for each run.

use lockgate_model::{Outcome, OutcomeRun, Outcomes, Seq};

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

/// Ascending sequences: for each run of neighbours, its distance from the end of the run before and
/// its length.
pub fn encode_seqs(seqs: &[Seq]) -> Vec<u8> {
    let (mut out, mut end) = (Vec::new(), 0);
    for run in seqs.chunk_by(|left, right| left + 1 == *right) {
        varint(&mut out, run[0] - end);
        varint(&mut out, run.len() as u64);
        end = run[0] + run.len() as u64;
    }
    out
}

/// The inverse of [`encode_seqs`], of at most `max` sequences.
pub fn decode_seqs(bytes: &[u8], max: usize) -> Result<Vec<Seq>, CodecError> {
    let mut input = Input(bytes);
    let (mut seqs, mut end) = (Vec::new(), 0u64);
    while !input.0.is_empty() {
        let distance = input.varint()?;
        let len = input.varint()?;
        // Neighbours are one run, and 0 is never a sequence.
        if distance == 0 || len == 0 || len > max.saturating_sub(seqs.len()) as u64 {
            return Err(CodecError::Number);
        }
        let start = end.checked_add(distance).ok_or(CodecError::Number)?;
        end = start.checked_add(len).ok_or(CodecError::Number)?;
        seqs.extend(start..end);
    }
    Ok(seqs)
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

    proptest! {
        #[test]
        fn sequences_survive(seqs in prop::collection::btree_set(1u64..200, 1..60)) {
            let seqs: Vec<u64> = seqs.into_iter().collect();
            let bytes = encode_seqs(&seqs);
            prop_assert_eq!(decode_seqs(&bytes, 60), Ok(seqs));
        }
    }

    #[test]
    fn malformed_sequences_are_refused() {
        for bytes in [&[0u8, 1][..], &[1, 0], &[1], &[1, 1, 0, 1], &[1, 200, 1]] {
            assert!(decode_seqs(bytes, 100).is_err(), "{bytes:?}");
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
