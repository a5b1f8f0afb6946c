//! Registers pipelines on their streams, with their epochs and generations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockgate_ledger::check_streams;
use lockgate_model::{Generation, Millis};
use rusqlite::{OptionalExtension, params};

use super::{Epoch, Fault, Pipeline, Writer};
use crate::schema::digest;
use crate::{LedgerError, Progress, Registration, rows};

impl Writer {
    /// The pipeline is there afterwards, in its current epoch, reading exactly these streams. The
    /// inner error: refused.
    pub fn register(
        &mut self,
        generation: &Generation,
        streams: &[String],
        at: Millis,
    ) -> Result<Result<Registration, LedgerError>, Fault> {
        let name = &generation.pipeline;
        let feeds = match check_streams(name, streams) {
            Ok(feeds) => feeds,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.registered.insert(name.clone());
        // Whoever was asked for room before may be gone.
        self.asked.remove(name);
        let epoch = self
            .pipelines
            .get(name)
            .map_or(1, |pipeline| pipeline.epoch);
        let mut indexes = Vec::new();
        for (stream, feed) in streams.iter().zip(feeds) {
            let stream: Arc<str> = stream.as_str().into();
            let index = self.stream(&stream, feed)?;
            indexes.push(self.epoch(name, index, epoch, at)?);
        }
        for index in 0..self.epochs.len() {
            if self.epochs[index].row.pipeline == *name {
                self.activate(index, indexes.contains(&index));
            }
        }
        let streams: Vec<Progress> = indexes
            .iter()
            .map(|&index| self.epochs[index].row.progress.clone())
            .collect();
        let number = self.generation(generation, &streams, at)?;
        let sql = "INSERT INTO pipelines (name, epoch, generation) VALUES (?1, ?2, ?3) ON CONFLICT \
                   DO UPDATE SET generation = ?3";
        self.connection.execute(sql, params![name, epoch, number])?;
        let pipeline = self.pipelines.entry(name.clone()).or_insert(Pipeline {
            epoch,
            generation: number,
            dead_bytes: 0,
            brake: String::new(),
            dirty: false,
        });
        pipeline.generation = number;
        let (brake, dead_bytes) = (pipeline.brake.clone(), pipeline.dead_bytes);
        if self.not_begun.remove(&**name).is_some() {
            let sql = "DELETE FROM holders WHERE pipeline = ?1";
            self.connection.execute(sql, [name])?;
        }
        Ok(Ok(Registration {
            epoch,
            generation: number,
            last_description: rows::last_description(&self.connection, name)?,
            streams,
            state: rows::state(&self.connection, name)?,
            brake,
            dead_bytes,
        }))
    }

    /// Retention waits for these pipelines in these streams, also where they have not begun to
    /// read, and for no others.
    pub fn keep_only(&mut self, configured: &BTreeMap<String, Vec<String>>) -> Result<(), Fault> {
        for index in 0..self.epochs.len() {
            let epoch = &self.epochs[index];
            let stream = &self.streams[epoch.stream].row.name;
            // It may have been taken out of the configuration for a while.
            let streams = configured.get(&*epoch.row.pipeline);
            let is_read = streams.is_some_and(|read| read.iter().any(|name| **name == **stream));
            self.activate(index, is_read);
        }
        self.is_configured = true;
        let ahead = configured.iter().map(|(pipeline, streams)| {
            let key: Arc<str> = pipeline.as_str().into();
            let has_begun = |stream: &&String| {
                let key = (key.clone(), Arc::from(stream.as_str()));
                self.current.contains_key(&key)
            };
            let ahead = streams.iter().filter(|stream| !has_begun(stream));
            (pipeline.clone(), ahead.cloned().collect::<BTreeSet<_>>())
        });
        let ahead = ahead.filter(|(_, streams)| !streams.is_empty());
        self.not_begun = ahead.map(|(name, ahead)| (name, Some(ahead))).collect();
        self.connection.execute("DELETE FROM holders", [])?;
        for name in self.not_begun.keys() {
            let sql = "INSERT INTO holders (pipeline) VALUES (?1)";
            self.connection.execute(sql, [name])?;
        }
        Ok(())
    }

    pub(super) fn current_generation(&self, pipeline: &Arc<str>) -> u32 {
        self.pipelines
            .get(pipeline)
            .map_or(0, |pipeline| pipeline.generation)
    }

    fn activate(&mut self, index: usize, active: bool) {
        let epoch = &mut self.epochs[index];
        epoch.dirty |= epoch.row.active != active;
        epoch.row.active = active;
    }

    /// The pipeline's epoch of the stream; a new one begins at the oldest event kept.
    pub(super) fn epoch(
        &mut self,
        pipeline: &Arc<str>,
        stream: usize,
        epoch: u32,
        since: Millis,
    ) -> Result<usize, Fault> {
        let row = &self.streams[stream].row;
        if let Some(&index) = self.current.get(&(pipeline.clone(), row.name.clone())) {
            return Ok(index);
        }
        let (stream_id, begin, name) = (row.id, row.oldest, row.name.clone());
        self.connection.execute(
            "INSERT INTO epochs (pipeline, stream_id, epoch, since, begin_seq, watermark, done, \
             chain, active, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?5, '[]', zeroblob(32), 1, x'')",
            params![pipeline, stream_id, epoch, since, begin],
        )?;
        let id = self.connection.last_insert_rowid();
        // Events that were removed before are not part of this epoch, on any day.
        self.connection.execute(
            "INSERT INTO epoch_days (epoch_id, day, before) SELECT ?1, day, removed FROM \
             stream_days WHERE stream_id = ?2 AND removed > 0",
            params![id, stream_id],
        )?;
        let progress = Progress::new(&name, begin);
        let row = rows::Epoch {
            id,
            pipeline: pipeline.clone(),
            stream_id,
            epoch,
            since,
            progress,
            chain: [0; 32],
            active: true,
        };
        self.current
            .insert((pipeline.clone(), name), self.epochs.len());
        self.epochs.push(Epoch {
            row,
            stream,
            dirty: true,
        });
        Ok(self.epochs.len() - 1)
    }

    fn generation(
        &mut self,
        generation: &Generation,
        streams: &[Progress],
        since: Millis,
    ) -> Result<u32, Fault> {
        let (name, description) = (&generation.pipeline, &generation.description);
        let sql = "SELECT generation FROM generations WHERE pipeline = ?1 AND description = ?2";
        if let Some(number) = self
            .connection
            .query_row(sql, params![name, description], |row| row.get(0))
            .optional()?
        {
            return Ok(number);
        }
        let sql = "SELECT coalesce(max(generation), 0) + 1 FROM generations WHERE pipeline = ?1";
        let number: u32 = self.connection.query_row(sql, [name], |row| row.get(0))?;
        let watermarks: BTreeMap<&str, u64> = streams
            .iter()
            .map(|stream| (stream.stream.as_str(), stream.watermark))
            .collect();
        self.connection.execute(
            "INSERT INTO generations (pipeline, generation, description, since, watermarks) VALUES \
             (?1, ?2, ?3, ?4, ?5)",
            params![
                name,
                number,
                description,
                since,
                serde_json::json!(watermarks).to_string()
            ],
        )?;
        self.generations.insert(
            (name.clone(), number),
            digest([description.as_str().into()]),
        );
        Ok(number)
    }
}
