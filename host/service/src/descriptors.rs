//! File descriptors: how many the receivers of a configuration may have, and what the operator is
//! told if those are fewer than it allows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lockgate_config::{Config, Pipeline};
use lockgate_egress::{ConnectionBudget, DESCRIPTORS_HINT, Wanted};
use lockgate_model::Millis;

use crate::clock::now;
use crate::limits::{DESCRIPTORS_OF_HOST, DESCRIPTORS_OF_PIPELINE, DESCRIPTORS_OF_SOURCE};
use crate::status::{Board, ConditionStatus, ConditionStatusKind};

/// What a configuration may need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    receivers: Vec<Wanted>,
    /// For the store, Teleport, components and the admin listener.
    reserve: usize,
}

impl Need {
    pub(crate) fn of(config: &Config) -> Need {
        let (sources, pipelines) = (config.sources.len(), config.pipelines.len());
        Need {
            receivers: config.pipelines.iter().map(wanted).collect(),
            reserve: DESCRIPTORS_OF_HOST
                + sources * DESCRIPTORS_OF_SOURCE
                + pipelines * DESCRIPTORS_OF_PIPELINE,
        }
    }

    fn total(&self) -> usize {
        let receivers = self.receivers.iter().map(|wanted| wanted.descriptors());
        receivers.fold(self.reserve, usize::saturating_add)
    }

    /// Divides what the limit leaves among the receivers. What the operator is to know, if it is
    /// less than they may need.
    pub(crate) fn divide(&self, limit: Option<u64>, budget: &ConnectionBudget) -> Option<String> {
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        let connections = limit.saturating_sub(self.reserve).max(1);
        let each = budget.divide(connections, &self.receivers);
        let total = self.total();
        (total > limit).then(|| {
            let pipelines = match self.receivers.len() {
                1 => "1 pipeline".to_owned(),
                count => format!("{count} pipelines"),
            };
            format!(
                "no more than {limit} files may be open (`ulimit -n`), and {pipelines} may need \
                 {total}: each has at most {each} of the {connections} connections to receivers at \
                 once, and waits if they are in use. To allow more, {DESCRIPTORS_HINT}",
            )
        })
    }
}

fn wanted(pipeline: &Pipeline) -> Wanted {
    Wanted {
        // A file is open once, whatever the number of requests.
        connections: match pipeline.sink.files {
            Some(_) => 1,
            None => pipeline.sink.rate.in_flight,
        },
        hosts: 1 + usize::from(pipeline.sink.session_url.is_some()),
    }
}

/// Requests of a pipeline that wait for file descriptors, which others have: a condition for each
/// endpoint. Clones are one.
#[derive(Clone)]
pub(crate) struct DescriptorWaits {
    board: Board,
    pipeline: Arc<str>,
    /// How many there are, by endpoint.
    waiting: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// One of these requests, until it is dropped.
pub(crate) struct DescriptorWait {
    waits: DescriptorWaits,
    endpoint: &'static str,
}

impl DescriptorWaits {
    pub(crate) fn new(board: Board, pipeline: Arc<str>) -> DescriptorWaits {
        DescriptorWaits {
            board,
            pipeline,
            waiting: Arc::default(),
        }
    }

    /// A request has waited since then.
    pub(crate) fn begin(&self, endpoint: &'static str, since: Millis) -> DescriptorWait {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.entry(endpoint).or_default();
        *count += 1;
        if *count == 1 {
            let message = format!(
                "requests wait for file descriptors, which connections to other receivers have; \
                 {DESCRIPTORS_HINT}"
            );
            tracing::warn!(
                pipeline = %self.pipeline, kind = ConditionStatusKind::Descriptors.name(),
                subject = endpoint, "held: {message}"
            );
            let status = ConditionStatus {
                kind: ConditionStatusKind::Descriptors,
                subject: endpoint.to_owned(),
                message,
                since,
                next_attempt: None,
                asked_by: None,
                not_ready_from: Some(since),
                stops: false,
            };
            self.board.pipeline(&self.pipeline, |pipeline| {
                pipeline.conditions.push(status);
            });
        }
        DescriptorWait {
            waits: self.clone(),
            endpoint,
        }
    }

    fn end(&self, endpoint: &'static str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = waiting.get_mut(endpoint) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        waiting.remove(endpoint);
        let kind = ConditionStatusKind::Descriptors;
        let mut lasted_s = 0;
        self.board.pipeline(&self.pipeline, |pipeline| {
            pipeline.conditions.retain(|condition| {
                let is_it = condition.kind == kind && condition.subject == endpoint;
                if is_it {
                    lasted_s = (now() - condition.since) / 1000;
                }
                !is_it
            });
        });
        tracing::info!(
            pipeline = %self.pipeline, kind = kind.name(), subject = endpoint, lasted_s,
            "no longer held"
        );
    }
}

impl Drop for DescriptorWait {
    fn drop(&mut self) {
        self.waits.end(self.endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(pipelines: usize) -> Need {
        let wanted = Wanted {
            connections: 8,
            hosts: 1,
        };
        Need {
            receivers: vec![wanted; pipelines],
            reserve: 200,
        }
    }

    #[test]
    fn the_operator_is_told_with_numbers_that_the_limit_is_low() {
        let budget = ConnectionBudget::default();
        assert_eq!(need(100).divide(Some(1000), &budget), None);
        assert_eq!(need(1000).divide(None, &budget), None);
        assert_eq!(
            need(200).divide(Some(1000), &budget).as_deref(),
            Some(
                "no more than 1000 files may be open (`ulimit -n`), and 200 pipelines may need \
                 1800: each has at most 4 of the 800 connections to receivers at once, and waits \
                 if they are in use. To allow more, raise the limit, with `LimitNOFILE=` in the \
                 unit of systemd or with `ulimit -n`, or lower `in-flight` of the sinks"
            )
        );
        let few = need(3).divide(Some(64), &budget).unwrap_or_default();
        assert!(few.contains("at most 1 of the 1 connections"), "{few}");
    }

    #[test]
    fn a_pipeline_whose_requests_wait_for_descriptors_has_one_condition() {
        let board = Board::new(0);
        let waits = DescriptorWaits::new(board.clone(), "siem".into());
        let conditions = || board.snapshot(1000).pipelines["siem"].conditions.clone();
        let first = waits.begin("url", 1);
        let second = waits.begin("url", 2);
        let shown = conditions();
        let [condition] = &shown[..] else {
            panic!("{shown:?}");
        };
        let (kind, since) = (condition.kind, condition.since);
        assert_eq!((kind, since), (ConditionStatusKind::Descriptors, 1));
        drop(first);
        assert_eq!(conditions().len(), 1);
        drop(second);
        assert!(conditions().is_empty());
    }
}
