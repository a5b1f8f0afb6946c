CREATE TABLE streams (
  -- One row per stream: a source and one of its feeds. Its events are numbered from 1; no number is ever used twice.
  id INTEGER PRIMARY KEY, -- Referred to by other tables.
  name TEXT NOT NULL UNIQUE, -- `source/feed`, such as `teleport/audit`.
  feed TEXT NOT NULL, -- `audit` or `sessions`.
  next_seq INTEGER NOT NULL, -- The sequence that the next event gets.
  oldest_seq INTEGER NOT NULL, -- The oldest event kept; equal to `next_seq` if none is.
  bytes INTEGER NOT NULL, -- Sum of `blocks.bytes` of the blocks kept.
  duplicates INTEGER NOT NULL, -- Events that the reader left out because it had read them before.
  checksum BLOB NOT NULL -- First 16 bytes of the SHA-256 over the other columns, see below.
) STRICT;

CREATE TABLE blocks (
  -- One row per block: consecutive events of one stream, read together.
  id INTEGER PRIMARY KEY, -- In the order of appending, over all streams.
  stream_id INTEGER NOT NULL, -- `streams.id`.
  first_seq INTEGER NOT NULL, -- Sequence of its first event.
  count INTEGER NOT NULL, -- Number of its events.
  read_at INTEGER NOT NULL, -- When they were read from the source. Milliseconds since 1970, UTC.
  min_time INTEGER NOT NULL, -- Earliest event time. Milliseconds since 1970, UTC.
  max_time INTEGER NOT NULL, -- Latest event time.
  codec INTEGER NOT NULL, -- Version of the form of `heads` and `payload`: 1.
  bytes INTEGER NOT NULL, -- Length of `heads` and `payload` together.
  checksum BLOB NOT NULL, -- SHA-256 over the stream's name and every column of this row but `id`, `stream_id` and `bytes`.
  heads BLOB NOT NULL, -- Types, codes, sessions, times, indexes, keys, payload lengths: zstd after a length, see `codec.rs`.
  payload BLOB NOT NULL, -- The events' JSON texts in zstd frames of 128 events, each after its length.
  UNIQUE (stream_id, first_seq)
) STRICT;

CREATE INDEX IF NOT EXISTS blocks_by_time ON blocks (stream_id, max_time, min_time, first_seq);

CREATE TABLE block_filters (
  -- One row per block: which ids of events and sessions it may hold. Blocks that an earlier release wrote get theirs while the host has nothing else to write.
  stream_id INTEGER NOT NULL, -- `streams.id`.
  first_seq INTEGER NOT NULL, -- `blocks.first_seq`.
  filter BLOB NOT NULL, -- A Bloom filter with 16 bits for each id: see `filter.rs`.
  checksum BLOB NOT NULL, -- First 16 bytes of the SHA-256 over the other columns.
  PRIMARY KEY (stream_id, first_seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE stream_days (
  -- Events of a stream by the UTC day of the event's time.
  stream_id INTEGER NOT NULL, -- `streams.id`.
  day INTEGER NOT NULL, -- Days since 1970: `date(day * 86400, 'unixepoch')`.
  appended INTEGER NOT NULL, -- Events ever appended.
  removed INTEGER NOT NULL, -- Of these, events that retention removed.
  PRIMARY KEY (stream_id, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursors (
  -- How far a source was read. Moves in the transaction that holds the events it passes.
  source TEXT NOT NULL, -- Name of the source, such as `teleport`.
  key TEXT NOT NULL, -- The source's own name for the cursor.
  value TEXT NOT NULL, -- The source's own.
  checksum BLOB NOT NULL, -- First 16 bytes of the SHA-256 over the other columns.
  PRIMARY KEY (source, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE gaps (
  -- Parts of a source's log that could not be read. Changes in the transaction that moves the source's cursors past them.
  source TEXT NOT NULL, -- Name of the source, such as `teleport`.
  key TEXT NOT NULL, -- The source's own name for the gap.
  feed TEXT NOT NULL, -- `audit` or `sessions`.
  from_time INTEGER NOT NULL, -- Milliseconds since 1970: events of this time and later ones may be missing, ...
  to_time INTEGER NOT NULL, -- ... up to this time, inclusive.
  since INTEGER NOT NULL, -- When the first attempt failed.
  attempts INTEGER NOT NULL, -- Attempts so far.
  what TEXT NOT NULL, -- What cannot be read, such as "the events".
  error TEXT NOT NULL, -- The reason at the last attempt.
  state TEXT NOT NULL, -- `open`: it is tried again. `lost`: it cannot be read any more. `read`: it was read later.
  ended_at INTEGER, -- When it was lost or read. NULL while it is open.
  events INTEGER NOT NULL, -- Events that were found in it when it was read.
  checksum BLOB NOT NULL, -- First 16 bytes of the SHA-256 over the other columns; NULL counts as 0.
  PRIMARY KEY (source, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE pipelines (
  -- One row per pipeline that ever ran.
  name TEXT PRIMARY KEY, -- As in the configuration.
  epoch INTEGER NOT NULL, -- Its current pass over its streams.
  generation INTEGER NOT NULL, -- Its current configuration.
  dead_bytes INTEGER NOT NULL DEFAULT 0, -- Sum of the lengths of `dead_letters.payload` over its passes.
  brake TEXT NOT NULL DEFAULT '' -- What it must remember of its dead letters, as its latest commit left it. Its own.
) STRICT, WITHOUT ROWID;

CREATE TABLE holders (
  -- One row per configured pipeline that has not begun to read all of its streams. Retention waits for it, in every stream until a start says in which.
  pipeline TEXT PRIMARY KEY -- Its name.
) STRICT, WITHOUT ROWID;

CREATE TABLE generations (
  -- One row per configuration of a pipeline. Earlier outcomes keep the generation they were made with.
  pipeline TEXT NOT NULL, -- `pipelines.name`.
  generation INTEGER NOT NULL, -- From 1.
  description TEXT NOT NULL, -- Digests of its components and their configuration: JSON.
  since INTEGER NOT NULL, -- When it was first seen. Milliseconds since 1970, UTC.
  watermarks TEXT NOT NULL, -- The pipeline's watermark in each stream at that time: a JSON object.
  PRIMARY KEY (pipeline, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE epochs (
  -- One row per pass of a pipeline over a stream: what is final and what waits.
  id INTEGER PRIMARY KEY, -- Referred to by other tables.
  pipeline TEXT NOT NULL, -- `pipelines.name`.
  stream_id INTEGER NOT NULL, -- `streams.id`.
  epoch INTEGER NOT NULL, -- Number of the pass, from 1.
  since INTEGER NOT NULL, -- When it began. Milliseconds since 1970, UTC.
  begin_seq INTEGER NOT NULL, -- The first sequence it counts.
  watermark INTEGER NOT NULL, -- Every entry from `begin_seq` to below it has its outcome.
  done TEXT NOT NULL, -- Finished entries above the watermark: JSON, `[[first, end], …]`, the end excluded.
  chain BLOB NOT NULL, -- `hash` of the last commit or operation on dead letters; 32 zero bytes before the first.
  active INTEGER NOT NULL, -- 1 if the pipeline is configured to read the stream: retention waits for it.
  checksum BLOB NOT NULL, -- First 16 bytes of the SHA-256 over the other columns.
  UNIQUE (pipeline, stream_id, epoch)
) STRICT;

CREATE TABLE epoch_days (
  -- What a pass does not count: events that retention had removed before it began, by UTC day of the event's time.
  epoch_id INTEGER NOT NULL, -- `epochs.id`.
  day INTEGER NOT NULL, -- Days since 1970.
  before INTEGER NOT NULL, -- Number of such events.
  PRIMARY KEY (epoch_id, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE commits (
  -- One row per run of entries that became final together: a batch, or a part of one that was held up. Some time after their events are gone, the oldest are folded into `tallies`, see `anchors`.
  id INTEGER PRIMARY KEY, -- In the order of commits, over all pipelines.
  epoch_id INTEGER NOT NULL, -- `epochs.id`.
  generation INTEGER NOT NULL, -- `generations.generation` of the pipeline.
  first_seq INTEGER NOT NULL, -- The first sequence of the run.
  end_seq INTEGER NOT NULL, -- The first sequence after it.
  outcomes BLOB NOT NULL, -- An outcome for each entry, run-length encoded: varint kind (0 delivered, 1 dropped, 2 dead) + 4 x reason, varint length.
  reasons TEXT NOT NULL, -- What the reasons' numbers mean: JSON, a list of texts.
  days TEXT NOT NULL, -- The outcomes by UTC day of the event's time: JSON, `[[day, delivered, dropped, dead], …]`.
  at INTEGER NOT NULL, -- When it became final. Milliseconds since 1970, UTC.
  batch TEXT NOT NULL, -- The batch's id and its requests as they ended: JSON.
  blocks BLOB NOT NULL, -- For each block that the batch has events of: first sequence (8 bytes, big-endian) and its checksum (32 bytes).
  dead BLOB NOT NULL, -- `dead_letters.checksum` of its dead letters, in the order of their sequences.
  state BLOB NOT NULL, -- SHA-256 over its changes of state; empty if it has none.
  hash BLOB NOT NULL, -- SHA-256 over the hash before it in the same pipeline and stream, and this row: see `chain.rs`.
  UNIQUE (epoch_id, first_seq)
) STRICT;

CREATE TABLE tallies (
  -- Outcomes of a pass, counted by UTC day of the event's time and by reason. The counts grow with each commit; those of commits that are gone stand only here.
  epoch_id INTEGER NOT NULL, -- `epochs.id`.
  day INTEGER NOT NULL, -- Days since 1970.
  outcome TEXT NOT NULL, -- `delivered`, `dropped`, `removed` (dropped by retention), `dead`; and of the dead: `retried` (they wait again), `discarded` (dropped by the operator), `expired` (they stay dead).
  reason TEXT NOT NULL, -- Why it was dropped or is dead. `other reasons`: those after the first 32 of a day and outcome. If a commit has several days, its reasons count for these days in the order of the sequences.
  count INTEGER NOT NULL, -- Entries ever.
  folded INTEGER NOT NULL, -- Of these, those of commits and operations that are gone.
  checksum BLOB NOT NULL, -- First 16 bytes of the SHA-256 over the other columns.
  PRIMARY KEY (epoch_id, day, outcome, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE anchors (
  -- One row each time the oldest links of a chain were folded into `tallies` and removed. The first commit or operation that is kept follows the newest anchor.
  epoch_id INTEGER NOT NULL, -- `epochs.id`.
  links INTEGER NOT NULL, -- Commits and operations up to here, since the chain began.
  commits INTEGER NOT NULL, -- Of these, commits.
  last_commit INTEGER NOT NULL, -- The largest `commits.id` among them.
  last_operation INTEGER NOT NULL, -- The largest `letter_operations.id` among them.
  watermark INTEGER NOT NULL, -- Every entry from `epochs.begin_seq` to below it has its outcome by them.
  done TEXT NOT NULL, -- Such entries above it, as in `epochs`.
  tallies BLOB NOT NULL, -- SHA-256 over `day`, `outcome`, `reason` and `folded` of every row of `tallies` that has any, in their order.
  letters BLOB NOT NULL, -- Exclusive or of the SHA-256 over `seq`, `waits` and `letter` of every row of `folded_letters`.
  at INTEGER NOT NULL, -- When they were folded. Milliseconds since 1970, UTC.
  hash BLOB NOT NULL, -- The hash of the last of them: the next link is chained to it.
  checksum BLOB NOT NULL, -- SHA-256 over the checksum of the anchor before it (32 zero bytes for the first) and the other columns.
  PRIMARY KEY (epoch_id, links)
) STRICT, WITHOUT ROWID;

CREATE TABLE folded_letters (
  -- One row per dead letter that is kept, or waits again, by what the newest anchor stands for.
  epoch_id INTEGER NOT NULL, -- `epochs.id`.
  seq INTEGER NOT NULL, -- The entry.
  waits INTEGER NOT NULL, -- 1 if it waits again.
  letter BLOB NOT NULL, -- `dead_letters.checksum`.
  PRIMARY KEY (epoch_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE identity (
  -- One row: the identity of this store, unlike that of any other.
  id BLOB PRIMARY KEY -- 16 random bytes.
) STRICT, WITHOUT ROWID;

CREATE TABLE letter_operations (
  -- One row per operation on dead letters: what the commits say of these entries is taken back. Part of the same chain as `commits`.
  id INTEGER PRIMARY KEY, -- In the order of the operations, over all pipelines.
  epoch_id INTEGER NOT NULL, -- `epochs.id`.
  after_commit INTEGER NOT NULL, -- The largest `commits.id` at that time: it stands in the chain before every later commit of its pass.
  generation INTEGER NOT NULL, -- `generations.generation` of the pipeline.
  kind TEXT NOT NULL, -- `retry`: dead letters wait again. `drop`: dead letters became dropped. `expire`: dead letters became too old and were removed, and the entries stay dead. `commit`: entries that waited again became final.
  seqs BLOB NOT NULL, -- The entries, ascending. For each run of neighbours: varint distance from the end of the run before, varint length.
  outcomes BLOB NOT NULL, -- As in `commits`, for each entry; empty for `retry` and `expire`.
  reasons TEXT NOT NULL, -- As in `commits`.
  days TEXT NOT NULL, -- As in `commits`; for `retry` the entries that were dead, for `expire` those that stay so.
  at INTEGER NOT NULL, -- When it happened. Milliseconds since 1970, UTC.
  batch TEXT NOT NULL, -- As in `commits`; the id is empty if no batch did it.
  dead BLOB NOT NULL, -- `dead_letters.checksum` in the order of the entries: of new letters for `commit`, of the letters taken back or removed otherwise.
  state BLOB NOT NULL, -- As in `commits`.
  hash BLOB NOT NULL -- SHA-256 over the hash before it in the same pipeline and stream, and this row: see `chain.rs`.
) STRICT;

CREATE TABLE dead_letters (
  -- One row per entry that could not be delivered, with the original event. Not subject to the retention of events: `dead-letters` in the configuration says how long.
  epoch_id INTEGER NOT NULL, -- `epochs.id`.
  seq INTEGER NOT NULL, -- The entry.
  at INTEGER NOT NULL, -- When it became final. Milliseconds since 1970, UTC.
  generation INTEGER NOT NULL, -- The pipeline's configuration at that time.
  key TEXT NOT NULL, -- The event's idempotency key.
  event_type TEXT NOT NULL, -- Such as `session.start`.
  time INTEGER NOT NULL, -- The event's time. Milliseconds since 1970, UTC.
  cause TEXT NOT NULL, -- What refused it, such as `sink (builtin:fluentd)`.
  reason TEXT NOT NULL, -- Why.
  payload BLOB NOT NULL, -- The event: JSON text, or its bytes if it could not be turned into JSON.
  checksum BLOB NOT NULL, -- SHA-256, see `encoded.rs`; in rows of format 1 over `seq`, `key`, `event_type`, `time`, `cause`, `reason` and `payload`.
  code TEXT NOT NULL DEFAULT '', -- Teleport's event code.
  event_index INTEGER NOT NULL DEFAULT 0, -- Teleport's `ei`.
  session TEXT NOT NULL DEFAULT '', -- Session id; empty if the event belongs to none.
  read_at INTEGER NOT NULL DEFAULT 0, -- When the event was read from the source. Milliseconds since 1970, UTC.
  raw INTEGER NOT NULL DEFAULT 0, -- 1 if the event could not be turned into JSON.
  redrive INTEGER NOT NULL DEFAULT 0, -- 0: it is dead. Else it waits again, and this is the `letter_operations.id` of the retry.
  PRIMARY KEY (epoch_id, seq)
) STRICT;

CREATE INDEX letters_by_age ON dead_letters (epoch_id, at) WHERE redrive = 0;

CREATE INDEX waiting_letters ON dead_letters (epoch_id, seq) WHERE redrive > 0;

CREATE INDEX letters_by_key ON dead_letters (key);

CREATE TABLE state (
  -- Key-value state of the plugins that import it. Changes together with the outcomes of the batch that changed it.
  pipeline TEXT NOT NULL, -- `pipelines.name`.
  owner TEXT NOT NULL, -- Name of the plugin in the configuration. `NAME#2` if the pipeline uses the plugin for the second time. `stage N`: left of a stage that had no plugin when a store of format 2 was brought up to date.
  key TEXT NOT NULL, -- The plugin's own.
  value TEXT NOT NULL, -- The plugin's own.
  checksum BLOB NOT NULL, -- First 16 bytes of the SHA-256 over the other columns.
  PRIMARY KEY (pipeline, owner, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE compiled_code (
  -- What compiled components must hash to: a file of compiled code with another digest is not loaded.
  key TEXT PRIMARY KEY, -- What decides the code: the component's digest, the compiler and its settings.
  sha256 BLOB NOT NULL, -- SHA-256 of the compiled code.
  at INTEGER NOT NULL -- When it was compiled. Milliseconds since 1970, UTC.
) STRICT, WITHOUT ROWID;
