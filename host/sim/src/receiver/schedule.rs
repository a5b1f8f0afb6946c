//! `--status`: the status of each answer.

use std::str::FromStr;

use crate::generate::rng::Rng;

/// Answers in order, as text: steps separated by commas, each `CODE`, `CODExTIMES`, `CODE:FRACTION`
/// or `CODE:FRACTIONxTIMES`.
///
/// `500x3,200` answers three requests with 500 and all further ones with 200. `503:0.1` answers
/// every tenth request (at random, by seed) with 503 and the others with 200. A step without a
/// count never ends, so it can only be the last; after a last step with a count the answer is 200.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
struct Step {
    status: u16,
    /// The fraction of this step's requests, 0 to 1; the others are answered with 200.
    fraction: f64,
    times: Option<u64>,
}

/// Why a text is not a [`Schedule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("`{0}` is not an HTTP status, a number from 200 to 599")]
    Status(String),
    #[error("`{0}` is not a fraction of requests, a number from 0 to 1 such as `0.1`")]
    Fraction(String),
    #[error("`{0}` is not a number of requests, a whole number above 0")]
    Times(String),
    #[error("the steps after `{0}` would never be reached; add a count, such as `{0}x3`")]
    Endless(String),
}

impl Schedule {
    /// The same status for every request.
    pub fn always(status: u16) -> Schedule {
        Schedule {
            steps: vec![Step {
                status,
                fraction: 1.0,
                times: None,
            }],
        }
    }
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule::always(200)
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        let texts: Vec<&str> = text.split(',').map(str::trim).collect();
        let mut steps = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let step: Step = text.parse()?;
            if step.times.is_none() && at + 1 < texts.len() {
                return Err(ScheduleError::Endless((*text).to_owned()));
            }
            steps.push(step);
        }
        Ok(Schedule { steps })
    }
}

impl FromStr for Step {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Step, ScheduleError> {
        let (rest, times) = match text.split_once('x') {
            Some((rest, times)) => {
                let count = times.parse().ok().filter(|count| *count > 0);
                (
                    rest,
                    Some(count.ok_or_else(|| ScheduleError::Times(times.to_owned()))?),
                )
            }
            None => (text, None),
        };
        let (status, fraction) = match rest.split_once(':') {
            Some((status, fraction)) => {
                let part = fraction
                    .parse()
                    .ok()
                    .filter(|part| (0.0..=1.0).contains(part));
                (
                    status,
                    part.ok_or_else(|| ScheduleError::Fraction(fraction.to_owned()))?,
                )
            }
            None => (rest, 1.0),
        };
        let code = status.parse().ok().filter(|code| (200..600).contains(code));
        Ok(Step {
            status: code.ok_or_else(|| ScheduleError::Status(status.to_owned()))?,
            fraction,
            times,
        })
    }
}

/// The position in a schedule.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    schedule: Schedule,
    step: usize,
    used: u64,
    rng: Rng,
}

impl Answers {
    pub(super) fn new(schedule: Schedule, seed: u64) -> Answers {
        Answers {
            schedule,
            step: 0,
            used: 0,
            rng: Rng::new(seed, 0),
        }
    }

    /// The status of the next request.
    pub(super) fn next(&mut self) -> u16 {
        let Some(step) = self.schedule.steps.get(self.step) else {
            return 200;
        };
        self.used += 1;
        if step.times == Some(self.used) {
            self.step += 1;
            self.used = 0;
        }
        if step.fraction >= 1.0 || self.rng.chance(step.fraction) {
            step.status
        } else {
            200
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_answer_as_written() {
        for (text, expected) in [
            ("200", [200, 200, 200, 200, 200]),
            ("503", [503, 503, 503, 503, 503]),
            ("500x3,200", [500, 500, 500, 200, 200]),
            ("500x2, 429x1, 204", [500, 500, 429, 204, 204]),
            ("500x2", [500, 500, 200, 200, 200]),
            ("503:1", [503, 503, 503, 503, 503]),
            ("503:0", [200, 200, 200, 200, 200]),
            ("503:0x2,429", [200, 200, 429, 429, 429]),
        ] {
            let mut answers = Answers::new(
                text.parse()
                    .unwrap_or_else(|error| panic!("{text}: {error}")),
                1,
            );
            assert_eq!([(); 5].map(|()| answers.next()), expected, "{text}");
        }
    }

    #[test]
    fn a_fraction_is_met_and_repeats_with_its_seed() {
        let draw = |seed| {
            let mut answers = Answers::new("503:0.1".parse().expect("a schedule"), seed);
            (0..2000).map(|_| answers.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let refused = draw(7).iter().filter(|status| **status == 503).count();
        assert!((150..250).contains(&refused), "{refused} of 2000");
    }

    #[test]
    fn a_mistake_is_named() {
        for (text, expected) in [
            ("", "`` is not an HTTP status, a number from 200 to 599"),
            ("ok", "`ok` is not an HTTP status, a number from 200 to 599"),
            (
                "100",
                "`100` is not an HTTP status, a number from 200 to 599",
            ),
            (
                "600",
                "`600` is not an HTTP status, a number from 200 to 599",
            ),
            (
                "503:2",
                "`2` is not a fraction of requests, a number from 0 to 1 such as `0.1`",
            ),
            (
                "503:NaN",
                "`NaN` is not a fraction of requests, a number from 0 to 1 such as `0.1`",
            ),
            (
                "500x0",
                "`0` is not a number of requests, a whole number above 0",
            ),
            (
                "500xx",
                "`x` is not a number of requests, a whole number above 0",
            ),
            (
                "500,200",
                "the steps after `500` would never be reached; add a count, such as `500x3`",
            ),
        ] {
            assert_eq!(
                text.parse::<Schedule>().map_err(|error| error.to_string()),
                Err(expected.to_owned()),
                "{text}"
            );
        }
    }
}
