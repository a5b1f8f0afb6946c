//! Teleport-like audit events, written straight into protobuf wire bytes.
//!
//! The same options give the same bytes in every release. Chunk `k` ([`CHUNK`] events) is made of
//! (seed, k) alone, so nothing is held in memory, however many events there are; ids and times tell
//! their position, so nothing is looked up either. Times rise with the position. The mix is that of
//! a busy organisation (about 40 types, mean about 0.95 KB of JSON) with awkward content on
//! purpose: non-ASCII text, quotes, line breaks, HTML, nulls, nested objects, keys with dots,
//! integers above 2^32. `print` is absent: it stands in recordings only.

mod access;
mod ids;
mod json;
mod lists;
mod recording;
pub(crate) mod rng;
mod scribe;
mod service;
mod session;
mod ssh;
mod text;
pub(crate) mod wire;
mod world;

use std::sync::Arc;

use lockgate_model::{Day, Millis};

use self::ids::Kind;
use self::rng::mix;
use self::scribe::Scribe;
use self::session::SshSession;
use self::world::World;

/// Events of one chunk.
pub const CHUNK: u64 = 5_000;

/// 2026-01-05T08:00:00Z: where event time begins, unless told otherwise. Fixed, so that the same
/// seed gives the same events on every day.
pub const START: Millis = 1_767_600_000_000;

/// What is generated.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// How many events there are.
    pub events: u64,
    /// Time of the first event.
    pub start: Millis,
    /// Events per second of event time, from 0.001 to 1,000,000; others count as the nearest of
    /// these.
    pub event_rate: f64,
    /// Name of the Teleport cluster.
    pub cluster: String,
    /// Positions (from 0) of events that hold a number which is no JSON: NaN.
    pub not_json: Vec<u64>,
    /// Positions (from 0) of events larger than a page of Teleport's search, 1 MiB.
    pub oversized: Vec<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 42,
            events: 20_000,
            start: START,
            event_rate: 25.0,
            cluster: "example.teleport.sh".to_owned(),
            not_json: Vec::new(),
            oversized: Vec::new(),
        }
    }
}

/// All events of one audit log. Cheap to clone.
#[derive(Clone)]
pub struct Generator {
    world: Arc<World>,
    options: Arc<Options>,
    /// Microseconds of event time between two events.
    step: u64,
}

impl Generator {
    pub fn new(options: Options) -> Generator {
        // `max` turns not-a-number into a step that works.
        let step = (1e6 / options.event_rate).clamp(1.0, 1e9).max(1.0) as u64;
        Generator {
            world: Arc::new(World::new(options.seed, &options.cluster)),
            options: Arc::new(options),
            step,
        }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How many events there are.
    pub fn count(&self) -> u64 {
        self.options.events
    }

    /// Time of the event at `position`; never falls as the position rises.
    pub fn time(&self, position: u64) -> Millis {
        let jitter = mix(self.options.seed ^ mix(position)) % self.step;
        self.options.start
            + (position.saturating_mul(self.step).saturating_add(jitter) / 1000) as Millis
    }

    /// Position of the first event at or after `time`; [`Self::count`] when there is none.
    pub fn position_at(&self, time: Millis) -> u64 {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.time(middle) < time {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// The positions whose time lies on a UTC day.
    pub fn positions_on(&self, day: Day) -> std::ops::Range<u64> {
        self.position_at(day.start())..self.position_at(Day(day.0.saturating_add(1)).start())
    }

    /// `uid` of the event at `position`. Looks like a random UUID.
    pub fn uid(&self, position: u64) -> String {
        self.world
            .ids
            .encode(Kind::Event, position)
            .as_str()
            .to_owned()
    }

    /// The inverse of [`Self::uid`]; `None` for text that is no uid of this seed.
    pub fn position_of(&self, uid: &str) -> Option<u64> {
        self.world
            .ids
            .decode(Kind::Event, uid)
            .filter(|position| *position < self.count())
    }

    /// The events of chunk `number`, in order of position. Empty beyond the last.
    pub fn chunk(&self, number: u64) -> Events {
        let first = number.saturating_mul(CHUNK);
        Events {
            generator: self.clone(),
            scribe: Scribe::new(self.options.seed, first),
            first,
            end: first.saturating_add(CHUNK).min(self.count()),
        }
    }

    /// The events from `position` on, to the end of its chunk.
    pub fn from(&self, position: u64) -> Events {
        let mut events = self.chunk(position / CHUNK);
        let mut unused = Vec::new();
        while events.position() < position && events.write(&mut unused).is_some() {
            unused.clear();
        }
        events
    }

    /// The recording of session `sid`: encoded `EventUnstructured`s in order of index. `None` for
    /// an id that no SSH session has.
    pub fn recording(&self, sid: &str) -> Option<Vec<Vec<u8>>> {
        let position = self.session_start(sid)?;
        Some(recording::write(
            &self.world,
            SshSession::new(&self.world, position, self.time(position)),
        ))
    }

    /// Position of the `session.start` of an SSH session.
    pub fn session_start(&self, sid: &str) -> Option<u64> {
        self.world
            .ids
            .decode(Kind::Ssh, sid)
            .filter(|position| *position < self.count())
    }

    /// The first `count` events as JSON text, one object a line, keys sorted. Every 16th line
    /// writes non-ASCII text as `\u` escapes.
    pub fn json_lines(&self, count: u64) -> impl Iterator<Item = String> + use<> {
        let generator = self.clone();
        let mut events = self.chunk(0);
        let mut wire = Vec::new();
        (0..count.min(self.count())).map(move |position| {
            if position == events.end {
                events = generator.chunk(position / CHUNK);
            }
            wire.clear();
            events.write(&mut wire);
            let mut text = Vec::with_capacity(1200);
            json::object(json::payload(&wire), position % 16 == 15, &mut text);
            String::from_utf8(text).unwrap_or_default()
        })
    }

    pub(crate) fn chunk_id(&self, number: u64) -> String {
        self.world
            .ids
            .encode(Kind::Chunk, number)
            .as_str()
            .to_owned()
    }

    pub(crate) fn chunk_number(&self, id: &str) -> Option<u64> {
        self.world.ids.decode(Kind::Chunk, id)
    }
}

/// Writes the events of one chunk, one after another.
pub struct Events {
    generator: Generator,
    scribe: Scribe,
    first: u64,
    end: u64,
}

impl Events {
    /// Position of the event that comes next.
    pub fn position(&self) -> u64 {
        self.scribe.position
    }

    /// Appends the next event as an encoded `EventUnstructured` and returns its type; `None` after
    /// the last of the chunk.
    pub fn write(&mut self, out: &mut Vec<u8>) -> Option<&'static str> {
        let Events {
            generator,
            scribe,
            first,
            end,
        } = self;
        let position = scribe.position;
        if position >= *end {
            return None;
        }
        let options = &generator.options;
        let head = scribe.write(
            &generator.world,
            generator.time(position),
            position - *first,
            out,
            |fields| {
                if options.not_json.contains(&position) {
                    fields.number("ratio", f64::NAN);
                }
                if options.oversized.contains(&position) {
                    fields.text("padding", "x".repeat(1_200_000));
                }
            },
        );
        Some(head.event)
    }
}

/// JSON text of an encoded `EventUnstructured`'s payload, keys sorted, no spaces.
pub fn json_of(event: &[u8]) -> String {
    let mut text = Vec::new();
    json::object(json::payload(event), false, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
