//! Finds the events that a component cannot take, one call at a time.

use std::ops::Range;

use lockgate_model::contract::CallError;

use crate::limits::FAILED_IN_A_ROW_MAX;

/// A call to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) range: Range<usize>,
    /// Use an instance that has made no call: these events were tried before.
    pub(crate) fresh: bool,
}

/// The outcome of a part of the range.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece<R> {
    Result(R),
    /// A single event that the component cannot take, and why.
    Failed(String),
}

/// Calls for the whole range; if that fails, once more; then for halves, down to single events.
/// Ranges come in order, and each event is in one successful call or failed alone.
#[derive(Debug)]
pub(crate) struct Isolation<R> {
    frames: Vec<Frame>,
    pieces: Vec<(Range<usize>, Piece<R>)>,
    failed_in_a_row: usize,
    /// The last range that was searched had no failure.
    last_was_fine: bool,
    first: bool,
}

#[derive(Debug)]
enum Frame {
    Try(Range<usize>),
    /// The left half has been searched; this is the right one of a range known to fail.
    Right(Range<usize>),
    /// The part searched before belongs to a range known to fail.
    Failed,
}

impl<R> Isolation<R> {
    pub(crate) fn new(len: usize) -> Isolation<R> {
        Isolation {
            frames: vec![Frame::Try(0..len)],
            pieces: Vec::new(),
            failed_in_a_row: 0,
            last_was_fine: true,
            first: true,
        }
    }

    /// The call to make now, the same until it is answered; `None` if every event has its piece.
    pub(crate) fn current(&mut self) -> Option<Attempt> {
        loop {
            match self.frames.pop()? {
                Frame::Try(range) => {
                    self.frames.push(Frame::Try(range.clone()));
                    return Some(Attempt {
                        range,
                        fresh: !self.first,
                    });
                }
                // The fault is then in the right half: to call for all of it would teach nothing.
                Frame::Right(right) if self.last_was_fine && right.len() > 1 => self.halve(right),
                Frame::Right(right) => self.frames.push(Frame::Try(right)),
                Frame::Failed => self.last_was_fine = false,
            }
        }
    }

    /// The answer to the call that [`current`](Self::current) gave.
    ///
    /// # Errors
    /// The search is over: the component asked for a retry or a hold, the host failed, or too many
    /// events in a row failed.
    pub(crate) fn answer(&mut self, result: Result<R, CallError>) -> Result<(), CallError> {
        let Some(Frame::Try(range)) = self.frames.pop() else {
            return Ok(());
        };
        let was_first = std::mem::replace(&mut self.first, false);
        let error = match result {
            Ok(result) => {
                self.failed_in_a_row = 0;
                self.last_was_fine = true;
                self.pieces.push((range, Piece::Result(result)));
                return Ok(());
            }
            Err(error) if error.is_made_again() => {
                self.first = was_first;
                self.frames.push(Frame::Try(range));
                return Ok(());
            }
            Err(error) if !error.may_be_one_event() => return Err(error),
            Err(error) => error,
        };
        // A fresh instance may not have the fault. What the component declared it would repeat.
        if was_first && !matches!(error, CallError::Isolate(_)) {
            self.frames.push(Frame::Try(range));
            return Ok(());
        }
        if range.len() > 1 {
            self.halve(range);
            return Ok(());
        }
        self.failed_in_a_row += 1;
        self.last_was_fine = false;
        self.pieces.push((range, Piece::Failed(error.to_string())));
        if self.failed_in_a_row < FAILED_IN_A_ROW_MAX {
            return Ok(());
        }
        Err(CallError::Hold(format!(
            "{FAILED_IN_A_ROW_MAX} events in a row failed, the last one because {error}"
        )))
    }

    /// Parts of the range in order, without gaps.
    pub(crate) fn into_pieces(self) -> Vec<(Range<usize>, Piece<R>)> {
        self.pieces
    }

    fn halve(&mut self, range: Range<usize>) {
        let middle = range.start + range.len() / 2;
        self.frames.push(Frame::Failed);
        self.frames.push(Frame::Right(middle..range.end));
        self.frames.push(Frame::Try(range.start..middle));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lockgate_model::contract::{Holder, SharedMemory, Shortage};
    use proptest::prelude::*;

    use super::*;

    fn trap() -> CallError {
        CallError::Trap {
            message: "boom".into(),
        }
    }

    /// Runs a search over `len` events with this component; gives the indexes that failed, or the
    /// error that ended it, and the number of calls.
    fn run(
        len: usize,
        mut component: impl FnMut(&Attempt) -> Result<(), CallError>,
    ) -> (Result<BTreeSet<usize>, CallError>, usize) {
        let mut isolation = Isolation::new(len);
        let mut calls = 0;
        while let Some(attempt) = isolation.current() {
            assert_eq!(
                attempt.fresh,
                calls > 0,
                "only the first call may reuse an instance"
            );
            calls += 1;
            if let Err(error) = isolation.answer(component(&attempt)) {
                return (Err(error), calls);
            }
        }
        let (mut failed, mut end) = (BTreeSet::new(), 0);
        for (range, piece) in isolation.into_pieces() {
            assert_eq!(range.start, end, "pieces are in order and without gaps");
            end = range.end;
            if let Piece::Failed(_) = piece {
                assert_eq!(range.len(), 1, "only single events fail");
                failed.insert(range.start);
            }
        }
        assert_eq!(end, len);
        (Ok(failed), calls)
    }

    fn bad(bad: &BTreeSet<usize>) -> impl FnMut(&Attempt) -> Result<(), CallError> {
        move |attempt| {
            let fails = attempt.range.clone().any(|index| bad.contains(&index));
            if fails { Err(trap()) } else { Ok(()) }
        }
    }

    #[test]
    fn a_fault_that_a_fresh_instance_does_not_have_costs_one_call() {
        let mut first = true;
        let component = |_: &Attempt| {
            if std::mem::replace(&mut first, false) {
                Err(trap())
            } else {
                Ok(())
            }
        };
        assert_eq!(run(8, component), (Ok(BTreeSet::new()), 2));
    }

    #[test]
    fn one_bad_event_of_500_costs_few_calls() {
        for index in [0, 1, 249, 250, 499] {
            let set = BTreeSet::from([index]);
            let (failed, calls) = run(500, bad(&set));
            assert_eq!(failed, Ok(set));
            assert!(calls <= 20, "{calls} calls for event {index}");
        }
    }

    #[test]
    fn a_component_that_takes_nothing_is_held() {
        let (result, calls) = run(500, |_| Err(trap()));
        assert!(matches!(result, Err(CallError::Hold(_))), "{result:?}");
        assert!(calls < 60, "{calls}");
    }

    #[test]
    fn retry_hold_and_failures_of_the_host_end_the_search_at_once() {
        for error in [
            CallError::Retry {
                message: "later".into(),
                after: None,
            },
            CallError::Hold("no".into()),
            CallError::Host("full".into()),
        ] {
            assert_eq!(run(3, |_| Err(error.clone())), (Err(error.clone()), 1));
        }
    }

    #[test]
    fn a_call_that_finds_no_memory_is_made_again_as_it_was() {
        let shortage = Shortage {
            holder: Box::new(Holder {
                pipeline: "p".into(),
                stage: "stage 1 (x)".into(),
                bytes: 0,
            }),
            needs: 2,
            of: SharedMemory::All,
            taken: 9,
            limit: 10,
            kept: 0,
            is_slow: false,
            exempt: None,
        };
        let no_room = || Err(CallError::NoRoom(shortage.clone()));
        let mut isolation = Isolation::new(4);
        let first = isolation.current().unwrap();
        assert_eq!(isolation.answer(no_room()), Ok(()));
        assert_eq!(isolation.current().unwrap(), first, "not even the instance");
        isolation.answer(Err(trap())).unwrap();
        isolation.current().unwrap();
        isolation.answer(Err(trap())).unwrap();
        let half = isolation.current().unwrap();
        assert_eq!((half.range.clone(), half.fresh), (0..2, true));
        assert_eq!(isolation.answer(no_room()), Ok(()));
        assert_eq!(isolation.current().unwrap(), half);
        while isolation.current().is_some() {
            isolation.answer(Ok(())).unwrap();
        }
        let pieces: Vec<_> = isolation
            .into_pieces()
            .into_iter()
            .map(|(range, _)| range)
            .collect();
        assert_eq!(pieces, [0..2, 2..3, 3..4]);
    }

    #[test]
    fn a_fault_of_the_whole_that_no_part_has_fails_no_event() {
        let component = |attempt: &Attempt| {
            if attempt.range.len() > 30 {
                Err(CallError::Memory { limit: 1 })
            } else {
                Ok(())
            }
        };
        assert_eq!(run(100, component).0, Ok(BTreeSet::new()));
    }

    proptest! {
        #[test]
        fn exactly_the_bad_events_fail(
            len in 0..300usize,
            set in proptest::collection::btree_set(0..300usize, 0..FAILED_IN_A_ROW_MAX),
        ) {
            let expected: BTreeSet<usize> = set.iter().copied().filter(|&index| index < len).collect();
            let (failed, _) = run(len, bad(&set));
            prop_assert_eq!(failed, Ok(expected));
        }
    }
}
