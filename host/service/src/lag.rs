//! How far a pipeline is behind Teleport.

use lockgate_ledger::LedgerError;
use lockgate_model::Millis;
use lockgate_store::{PipelineStatus, Reads};

use crate::status::{ConditionStatusKind, HostStatus, SourceStatus};

/// How far a pipeline is behind Teleport's newest event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lag {
    /// What is known of it, in seconds: the longest that an event has waited in the store, or that
    /// the pipeline is behind Teleport's newest event. `None`: nothing is known to wait.
    pub seconds: Option<f64>,
    /// The sources of which it is not known what waits at Teleport: the lag may be larger.
    pub unknown: Vec<String>,
    /// Since when that is not known of one of them. `None`: since the host ended, or nothing is
    /// unknown.
    pub unknown_since: Option<Millis>,
}

impl Lag {
    pub fn is_known(&self) -> bool {
        self.unknown.is_empty()
    }

    fn at_least(&mut self, millis: Millis) {
        let seconds = millis.max(0) as f64 / 1000.0;
        self.seconds = Some(self.seconds.map_or(seconds, |most| most.max(seconds)));
    }

    fn not_known(&mut self, source: &str, since: Option<Millis>) {
        if !self.unknown.iter().any(|other| other == source) {
            self.unknown.push(source.to_owned());
        }
        self.unknown_since = self.unknown_since.into_iter().chain(since).min();
    }
}

/// The lag of a pipeline over the streams that it is configured to read. `host`: `None` if none
/// runs. Blocks.
pub fn lag(
    reads: &Reads,
    pipeline: &PipelineStatus,
    host: Option<&HostStatus>,
    now: Millis,
) -> Result<Lag, LedgerError> {
    let mut lag = Lag::default();
    if let Some(since) = reads.redriven_since(&pipeline.name)? {
        lag.at_least(now - since);
    }
    for (progress, _) in pipeline.streams.iter().filter(|(_, is_read)| *is_read) {
        let stream = &progress.stream;
        let (name, feed) = stream.rsplit_once('/').unwrap_or((stream, ""));
        let source = host.and_then(|host| host.sources.get(name));
        if let Some((read_at, time)) = reads.times_at(stream, progress.watermark)? {
            lag.at_least(now - read_at);
            // Recordings hold events that are older than their session's end.
            if feed == "audit" {
                // A reader that has just started has not shown what the one before it has.
                let read = reads.latest_time(stream, now)?;
                let shown = source.and_then(|source| source.reader.newest);
                if let Some(newest) = shown.max(read) {
                    lag.at_least(newest - time);
                }
            }
        }
        match (host, source) {
            (None, _) => lag.not_known(name, None),
            (Some(_), Some(source)) => lag.add_source(name, feed, source),
            // It is not configured any more, so nothing more comes.
            (Some(_), None) => {}
        }
    }
    Ok(lag)
}

impl Lag {
    /// What has not been read yet.
    fn add_source(&mut self, name: &str, feed: &str, source: &SourceStatus) {
        if let Some(since) = source.unknown_since {
            self.not_known(name, Some(since));
        }
        if let Some(behind) = source.behind_seconds.filter(|&behind| behind > 0.0) {
            self.seconds = Some(self.seconds.map_or(behind, |most| most.max(behind)));
        }
        if feed == "sessions" {
            let mut conditions = source.conditions.iter();
            let failing = conditions.find(|condition| {
                let kind = condition.kind;
                kind == ConditionStatusKind::Recordings || kind == ConditionStatusKind::Retention
            });
            if let Some(condition) = failing {
                self.not_known(name, Some(condition.since));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lockgate_model::{Append, BlockBuilder, CursorUpdate, FeedKind, Generation, Head};
    use lockgate_store::{Ledger, Options, Retention, Store};

    use super::*;

    /// 2026-01-05.
    const DAY: Millis = 1_767_571_200_000;
    const SECOND: Millis = 1_000;
    const HOUR: Millis = 3_600_000;

    /// Two events an hour apart, which were read 27 s ago and of which none is delivered.
    #[tokio::test]
    async fn a_restart_does_not_make_the_lag_smaller() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Options {
            retention: Retention::default(),
            ..Options::new(directory.path())
        });
        let store = store.unwrap();
        let now = DAY + 2 * HOUR;
        let mut builder = BlockBuilder::new();
        for (key, time) in [("a", DAY), ("b", DAY + HOUR)] {
            let head = Head {
                key,
                event_type: "user.login",
                code: "",
                time,
                index: 0,
                session: "",
            };
            builder.push(head, "{}");
        }
        let append = Append {
            source: "teleport".into(),
            feed: FeedKind::Audit,
            read_at: now - 27 * SECOND,
            events: builder.take(),
            cursors: vec![CursorUpdate {
                key: "start".to_owned(),
                value: Some("1".to_owned()),
            }],
            gaps: Vec::new(),
            duplicates: 0,
        };
        store.append(append).await.unwrap();
        let generation = Generation {
            pipeline: "main".into(),
            description: "{}".to_owned(),
        };
        let streams = ["teleport/audit".to_owned()];
        store.register(generation, &streams, now).await.unwrap();
        let pipeline = store.reads().pipelines().unwrap().remove(0);
        let lag = lag(store.reads(), &pipeline, None, now).unwrap();
        assert_eq!(lag.seconds, Some(3_600.0));
        store.close().await.unwrap();
    }
}
