//! Messages about retention and the write-ahead log: one when something begins, one when it ends.

use super::Group;
use crate::store::PinnedLog;

impl Group {
    /// Once for each pipeline and stream, when retention has removed all that was due, until the
    /// pipeline runs again.
    pub(super) fn report_unfinished(&mut self) {
        if self.writer.anything_due() {
            return;
        }
        for (key, removed) in std::mem::take(&mut self.writer.unfinished) {
            let (pipeline, stream) = &key;
            if !self.warned_unfinished.contains(&key) {
                tracing::warn!(
                    %pipeline, %stream, events = removed.events,
                    "retention removed events that this pipeline had not finished, because no \
                     pipeline of this name is configured to read the stream any more. They count \
                     as dropped, and `lockgate status` says how many there are. More will be \
                     removed until such a pipeline is configured again; a larger `{}` in `retain` \
                     of `[store]` keeps them for longer",
                    removed.key
                );
                self.warned_unfinished.insert(key);
            }
        }
        for (key, events) in std::mem::take(&mut self.writer.given_up) {
            let (pipeline, stream) = &key;
            if !self.warned_unfinished.contains(&key) {
                tracing::warn!(
                    %pipeline, %stream, events,
                    "retention removed events that this pipeline had not finished, because it has \
                     reached its `lag-limit`. They count as dropped, with the reason `lag-limit`, \
                     and `lockgate status` says how many there are. More will be given up until \
                     the pipeline has caught up"
                );
                self.warned_unfinished.insert(key);
            }
        }
    }

    /// Once when a reader begins to keep the log from being folded into the file, and once when
    /// that ends.
    pub(super) fn report_log(&mut self) {
        let (bytes, is_folded) = self.writer.log();
        let is_pinned = bytes >= self.log_limit && !is_folded;
        let since = self.shared.pinned_log().map(|pinned| pinned.since);
        match (since, is_pinned) {
            (None, true) => tracing::warn!(
                bytes,
                "a process has been reading from the store for so long that its log `store.db-wal` \
                 cannot be folded into `store.db`, and grows: end long queries of other programs \
                 on `store.db`, or let them read a copy"
            ),
            (Some(_), false) => {
                tracing::info!("the log of the store was folded into its file again");
            }
            _ => {}
        }
        if is_pinned || since.is_some() {
            let since = since.unwrap_or_else(|| self.writer.now());
            self.shared
                .set_pinned_log(is_pinned.then_some(PinnedLog { bytes, since }));
        }
    }

    pub(super) fn report_full(&mut self) {
        for (stream, line) in &self.waiting {
            // Room that a pipeline past its lag limit makes is there within half a minute.
            let full = !line.is_empty() && !self.writer.is_being_given_up(stream);
            let before = self.warned.insert(stream.clone(), full).unwrap_or(false);
            if full == before {
                continue;
            }
            self.shared.set_full(stream, full);
            if full && self.writer.is_kept_damaged(stream) {
                tracing::error!(
                    %stream,
                    "the stream is at its retention limit, and its oldest block is damaged, so that \
                     retention cannot remove it: reading waits. Stop the host and run `lockgate \
                     store repair`, or raise `bytes` in `retain` of `[store]`"
                );
            } else if full {
                tracing::warn!(
                    %stream, pipelines = %self.writer.holders_of(stream).join(", "),
                    "the stream is at its retention limit, and these pipelines have not finished \
                     its oldest events: reading waits. Repair them, or raise `bytes` in `retain` \
                     of `[store]`"
                );
            } else {
                tracing::info!(%stream, "there is room in the stream again: reading goes on");
            }
        }
    }
}
