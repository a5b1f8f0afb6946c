//! Which dead letters a command is about.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use lockgate_model::Millis;
use lockgate_store::{Inspector, KeptLetter, LetterQuery};

use super::address::Address;
use crate::failure::Failure;
use crate::print;

/// Letters read at once. Each comes with its event, so a page is small.
const PAGE: usize = 64;

#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only those of this pipeline.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,

    /// Only those of this stream, such as `teleport/audit`.
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,

    /// Only those of this event type, such as `user.login`.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// Only those with this text in their cause or reason.
    #[arg(long, value_name = "TEXT")]
    cause: Option<String>,

    /// Only those that became dead letters at this time or later: RFC 3339, or a duration before
    /// now, such as `2h`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,

    /// Only those that became dead letters before this time: RFC 3339, or a duration before now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
}

impl Filter {
    pub(crate) fn is_empty(&self) -> bool {
        self.query(0) == LetterQuery::default()
    }

    /// The only pipeline whose letters can match.
    pub(crate) fn pipeline(&self) -> Option<&str> {
        self.pipeline.as_deref()
    }

    /// Whether letters of this pipeline can match.
    pub(crate) fn admits_pipeline(&self, name: &str) -> bool {
        self.pipeline().is_none_or(|only| only == name)
    }

    pub(crate) fn query(&self, now: Millis) -> LetterQuery {
        LetterQuery {
            pipeline: self.pipeline.clone(),
            stream: self.stream.clone(),
            cause: self.cause.clone(),
            event_type: self.event_type.clone(),
            since: self.since.map(|moment| moment.at(now)),
            until: self.until.map(|moment| moment.at(now)),
            before: None,
            limit: 0,
        }
    }
}

/// Findings besides the letters themselves.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// There are more than the limit.
    pub(crate) more: bool,
    /// Letters that are not what was written. Each was named.
    damaged: u64,
}

impl Found {
    /// The command did what it could, and fails all the same if letters are damaged.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        match self.damaged {
            0 => Ok(()),
            damaged => Err(Failure::failed(format!(
                "The store is damaged: {} left out.",
                match damaged {
                    1 => "1 dead letter was".to_owned(),
                    _ => format!("{damaged} dead letters were"),
                }
            ))
            .hint("`lockgate store verify` shows what else is damaged; restore a backup")),
        }
    }
}

/// Calls `each` for every letter that matches, newest first, at most `limit` of them. Names those
/// that are damaged, and goes on.
pub(crate) fn each(
    inspector: &Inspector,
    mut query: LetterQuery,
    limit: usize,
    mut each: impl FnMut(KeptLetter) -> Result<(), Failure>,
) -> Result<Found, Failure> {
    let (mut left, mut found) = (limit, Found::default());
    loop {
        query.limit = PAGE.min(left.saturating_add(1));
        let page = inspector
            .all_dead_letters(&query)
            .map_err(Failure::failed)?;
        let full = page.len() == query.limit;
        for kept in page {
            if left == 0 {
                found.more = true;
                return Ok(found);
            }
            left -= 1;
            match kept {
                Ok(kept) => {
                    query.before = Some(kept.id);
                    each(kept)?;
                }
                Err(damaged) => {
                    query.before = Some(damaged.id);
                    found.damaged += 1;
                    let address = Address {
                        pipeline: damaged.pipeline,
                        stream: damaged.stream,
                        seq: damaged.seq,
                    };
                    print::problem(&format!(
                        "The dead letter `{address}` is not what was written."
                    ));
                }
            }
        }
        if !full {
            return Ok(found);
        }
    }
}

/// A time on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    At(Millis),
    Ago(Duration),
}

impl Moment {
    fn at(self, now: Millis) -> Millis {
        match self {
            Moment::At(at) => at,
            Moment::Ago(ago) => {
                now.saturating_sub(Millis::try_from(ago.as_millis()).unwrap_or(Millis::MAX))
            }
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Moment::At(time.as_millisecond()));
    }
    lockgate_config::duration_argument(text)
        .map(Moment::Ago)
        .map_err(|_| {
            "a time is written as `2026-01-31T08:00:00Z`, or as a duration before now, such as `2h`"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::{Filter, Moment, moment};

    #[test]
    fn times_are_absolute_or_before_now() {
        for (text, at) in [
            ("2026-01-01T00:00:00Z", 1_767_225_600_000),
            ("2026-01-01T01:00:00+01:00", 1_767_225_600_000),
            ("1h30m", 10_000_000 - 5_400_000),
        ] {
            assert_eq!(
                moment(text).map(|moment| moment.at(10_000_000)),
                Ok(at),
                "{text}"
            );
        }
        for text in ["", "yesterday", "2026-01-01", "2"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_filter_matches_everything_only_if_it_asks_for_nothing() {
        assert!(Filter::default().is_empty());
        let since = Filter {
            since: Some(Moment::At(0)),
            ..Filter::default()
        };
        assert!(!since.is_empty());
    }
}
