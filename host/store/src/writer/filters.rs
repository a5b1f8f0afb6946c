//! Filters of blocks that an earlier release wrote: made a few at a time, while nothing is written.

use rusqlite::params;

use super::{Fault, Writer};
use crate::error::ReadError;
use crate::{blocks, filter, limits};

impl Writer {
    /// Makes the filters of a few blocks, the newest first. True if more are to be made.
    ///
    /// A block that is damaged gets none, so whoever searches reads it and says so.
    pub fn make_filters(&mut self) -> Result<bool, Fault> {
        let Some(stream) = self
            .streams
            .iter_mut()
            .find(|stream| stream.filtered_from > stream.row.oldest)
        else {
            return Ok(false);
        };
        let end = stream.filtered_from;
        let found = blocks::newest_before(&self.connection, &stream.row, end, limits::FILTER_STEP);
        let found = match found {
            Err(ReadError::Damaged(what)) => {
                let name = &stream.row.name;
                tracing::warn!(stream = %name, "blocks before {end} get no filters: {what}");
                Vec::new()
            }
            found => found?,
        };
        stream.filtered_from = found
            .last()
            .map_or(stream.row.oldest, |block| block.first_seq);
        let filters: Vec<_> = found
            .iter()
            .filter_map(|block| Some((block.first_seq, block.heads(&stream.row).ok()?)))
            .map(|(first_seq, heads)| (first_seq, filter::of_heads(&heads)))
            .collect();
        let stream_id = stream.row.id;
        self.begin()?;
        for (first_seq, filter) in filters {
            self.insert_filter(stream_id, first_seq, &filter)?;
        }
        self.finish()?;
        Ok(true)
    }

    pub(super) fn insert_filter(
        &self,
        stream_id: i64,
        first_seq: u64,
        filter: &[u8],
    ) -> Result<(), Fault> {
        let sql = "INSERT OR REPLACE INTO block_filters (stream_id, first_seq, filter, checksum) \
                   VALUES (?1, ?2, ?3, ?4)";
        let checksum = filter::checksum(stream_id, first_seq, filter);
        self.connection
            .prepare_cached(sql)?
            .execute(params![stream_id, first_seq, filter, checksum])?;
        Ok(())
    }
}
