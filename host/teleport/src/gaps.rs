//! Gaps on the books: parts of the log that Teleport does not return.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lockgate_model::{FeedKind, Gap, GapState, Millis};

use crate::source::Source;
use crate::time::time;
use crate::{Closed, Intake};

/// The gaps of a source that are open.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Mutex<BTreeMap<String, Gap>>);

impl Gaps {
    pub(crate) fn new(stored: &[Gap]) -> Gaps {
        let open = stored.iter().filter(|gap| gap.is_open());
        let open = open.map(|gap| (gap.key.clone(), gap.clone()));
        Gaps(Mutex::new(open.collect()))
    }

    pub(crate) fn of(&self, key: &str) -> Option<Gap> {
        self.open().get(key).cloned()
    }

    /// The open gaps whose keys begin so.
    pub(crate) fn beginning(&self, prefix: &str) -> Vec<Gap> {
        let open = self.open();
        let open = open.range(prefix.to_owned()..);
        let found = open.take_while(|(key, _)| key.starts_with(prefix));
        found.map(|(_, gap)| gap.clone()).collect()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Gap>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: Intake> Source<I> {
    /// Puts a gap on the books, or what has become of it. A new one is reported.
    pub(crate) async fn note_gap(&self, gap: Gap) -> Result<(), Closed> {
        let known = self.gaps.of(&gap.key);
        if known.as_ref() == Some(&gap) {
            return Ok(());
        }
        self.append_gap(gap.clone()).await?;
        let span = format!("from {} to {}", time(gap.from), time(gap.to));
        match gap.state {
            GapState::Open => {
                self.gaps.open().insert(gap.key.clone(), gap.clone());
                if known.is_none() {
                    self.status.report(format!(
                        "Teleport does not return {} {span}: {}. This is on the books as a gap; \
                         reading continues after it, and Lockgate keeps trying to read it",
                        gap.what, gap.error
                    ));
                }
            }
            GapState::Lost(_) => {
                self.gaps.open().remove(&gap.key);
                self.status.report(format!(
                    "Teleport does not return {} {span}: {}. Lockgate has stopped trying to read \
                     this; it is on the books as lost",
                    gap.what, gap.error
                ));
            }
            GapState::Read { at, events } => {
                self.gaps.open().remove(&gap.key);
                tracing::info!(
                    source = &*self.settings.source,
                    events,
                    open_s = (at - gap.since) / 1000,
                    "closed a gap: {} {span} could be read",
                    gap.what
                );
            }
        }
        self.show_gaps();
        Ok(())
    }

    /// Shows how many gaps are open.
    pub(crate) fn show_gaps(&self) {
        let open = self.gaps.open().len() as u64;
        self.status.update(|status| status.gaps_open = open);
    }

    /// The end of the open gap of the audit log that has this time, as polling found it.
    pub(crate) fn end_of_gap(&self, at: Millis) -> Option<Millis> {
        let gaps = self.gaps.beginning(super::read::POLL_GAP);
        let around = gaps.iter().filter(|gap| gap.contains(at));
        around.map(|gap| gap.to).max()
    }

    /// The start of the next open gap of the audit log after a time.
    pub(crate) fn next_gap(&self, after: Millis) -> Option<Millis> {
        let gaps = self.gaps.beginning(super::read::POLL_GAP);
        let later = gaps.iter().map(|gap| gap.from).filter(|&from| from > after);
        later.min()
    }

    /// A gap that begins now.
    pub(crate) fn gap(
        &self,
        key: String,
        feed: FeedKind,
        (from, to): (Millis, Millis),
        what: String,
        error: String,
    ) -> Gap {
        let known = self.gaps.of(&key);
        let now = self.now();
        Gap {
            key,
            feed,
            from,
            to,
            since: known.as_ref().map_or(now, |gap| gap.since),
            attempts: known.as_ref().map_or(0, |gap| gap.attempts) + 1,
            what,
            error,
            state: GapState::Open,
        }
    }
}
