//! Teleport-like audit events, written directly as protobuf wire bytes.
//!
//! The same options give the same bytes in every release. Chunk `k` ([`CHUNK`] events) depends only
//! on the seed and `k`, so memory does not grow with the number of events. Ids and times encode
//! their position, so no index is needed either. Times rise with the position. The mix is that of a
//! busy organisation (about 40 types, about 0.95 KB of JSON on average), with awkward content on
//! purpose: non-ASCII text, quotes, line breaks, HTML, nulls, nested objects, keys with dots,
//! integers above 2^32. `print` occurs only in recordings.

mod access;
mod event_writer;
mod ids;
mod json;
mod lists;
mod organisation;
mod recording;
pub(crate) mod rng;
mod service;
mod session;
mod ssh;
mod text;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_model::{Day, Millis};

use self::event_writer::EventWriter;
use self::ids::IdKind;
use self::organisation::Organisation;
use self::rng::mix;
use self::session::SshSession;

/// Events per chunk.
pub const CHUNK: u64 = 5_000;

/// 2026-01-05T08:00:00Z, the default time of the first event. It is fixed, so that the same seed
/// gives the same events on every day.
pub const START: Millis = 1_767_600_000_000;

/// One event in so many is odd.
const ODD: u64 = 16;

const ODD_VALUES: [(&str, f64); 8] = [
    ("2026-01-05T08:00:00+99:99", f64::MAX),
    ("2026-01-05T08:00:00.123-24:00", f64::MIN_POSITIVE),
    ("2026-01-05T08:00:00+02:60", 5e-324),
    ("0999-12-31T23:59:59Z", 1e-7),
    ("0001-01-01T00:00:00Z", f64::MIN),
    ("2026-02-30T08:00:00Z", 1e21),
    ("2026-01-05T23:59:60Z", 9_007_199_254_740_991.0),
    ("", 0.1),
];

/// The options of a [`Generator`].
#[derive(Clone, Debug)]
pub struct GeneratorOptions {
    pub seed: u64,
    /// The number of events.
    pub events: u64,
    /// Time of the first event.
    pub start: Millis,
    /// Events per second of event time, clamped to 0.001 to 1,000,000.
    pub event_rate: f64,
    /// Name of the Teleport cluster.
    pub cluster: String,
    /// Positions (from 0) of events with NaN, which JSON cannot represent.
    pub not_json: Vec<u64>,
    /// Users whose logins failed, by the positions (from 0) of these events.
    pub failed_logins: BTreeMap<u64, String>,
    /// Every 16th event has a `time` and a number that receivers refuse or misread: zones that are
    /// not on the map, years before 1000, the largest and the smallest doubles.
    pub odd: bool,
    /// Positions (from 0) of events larger than a page of Teleport's search, 1 MiB.
    pub oversized: Vec<u64>,
}

impl Default for GeneratorOptions {
    fn default() -> GeneratorOptions {
        GeneratorOptions {
            seed: 42,
            events: 20_000,
            start: START,
            event_rate: 25.0,
            cluster: "example.teleport.sh".to_owned(),
            not_json: Vec::new(),
            failed_logins: BTreeMap::new(),
            odd: false,
            oversized: Vec::new(),
        }
    }
}

/// All events of one audit log. Cheap to clone.
#[derive(Clone)]
pub struct Generator {
    organisation: Arc<Organisation>,
    options: Arc<GeneratorOptions>,
    /// Microseconds of event time between two events.
    step: u64,
}

impl Generator {
    pub fn new(options: GeneratorOptions) -> Generator {
        // `max` replaces NaN with a valid step.
        let step = (1e6 / options.event_rate).clamp(1.0, 1e9).max(1.0) as u64;
        Generator {
            organisation: Arc::new(Organisation::new(options.seed, &options.cluster)),
            options: Arc::new(options),
            step,
        }
    }

    pub fn options(&self) -> &GeneratorOptions {
        &self.options
    }

    /// The number of events.
    pub fn count(&self) -> u64 {
        self.options.events
    }

    /// Time of the event at `position`. Never decreases as the position increases.
    pub fn time(&self, position: u64) -> Millis {
        let jitter = mix(self.options.seed ^ mix(position)) % self.step;
        self.options.start
            + (position.saturating_mul(self.step).saturating_add(jitter) / 1000) as Millis
    }

    /// Position of the first event at or after `time`, or [`Self::count`] if there is none.
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

    /// The positions of the events on a UTC day.
    pub fn positions_on(&self, day: Day) -> std::ops::Range<u64> {
        self.position_at(day.start())..self.position_at(Day(day.0.saturating_add(1)).start())
    }

    /// `uid` of the event at `position`. Looks like a random UUID.
    pub fn uid(&self, position: u64) -> String {
        self.organisation
            .ids
            .encode(IdKind::Event, position)
            .as_str()
            .to_owned()
    }

    /// The inverse of [`Self::uid`]. `None` if the text is not a uid of this seed.
    pub fn position_of(&self, uid: &str) -> Option<u64> {
        self.organisation
            .ids
            .decode(IdKind::Event, uid)
            .filter(|position| *position < self.count())
    }

    /// The events of chunk `number`, in order of position. Empty after the last chunk.
    pub fn chunk(&self, number: u64) -> Events {
        let first = number.saturating_mul(CHUNK);
        Events {
            generator: self.clone(),
            event_writer: EventWriter::new(self.options.seed, first),
            first,
            end: first.saturating_add(CHUNK).min(self.count()),
        }
    }

    /// The events from `position` to the end of its chunk.
    pub fn from(&self, position: u64) -> Events {
        let mut events = self.chunk(position / CHUNK);
        let mut unused = Vec::new();
        while events.position() < position && events.write(&mut unused).is_some() {
            unused.clear();
        }
        events
    }

    /// The recording of session `sid`: encoded `EventUnstructured`s in order of index. `None` if no
    /// SSH session has this id.
    pub fn recording(&self, sid: &str) -> Option<Vec<Vec<u8>>> {
        let position = self.session_start(sid)?;
        Some(recording::write(
            &self.organisation,
            SshSession::new(&self.organisation, position, self.time(position)),
        ))
    }

    /// Position of the `session.start` of an SSH session.
    pub fn session_start(&self, sid: &str) -> Option<u64> {
        self.organisation
            .ids
            .decode(IdKind::Ssh, sid)
            .filter(|position| *position < self.count())
    }

    /// The first `count` events as JSON text, one object per line, keys sorted. Every 16th line
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

    /// The id of the export chunk with this number, each of [`CHUNK`] events without a rate.
    pub fn chunk_id(&self, number: u64) -> String {
        self.organisation
            .ids
            .encode(IdKind::Chunk, number)
            .as_str()
            .to_owned()
    }

    pub(crate) fn chunk_number(&self, id: &str) -> Option<u64> {
        self.organisation.ids.decode(IdKind::Chunk, id)
    }
}

/// Writes the events of one chunk, one after another.
pub struct Events {
    generator: Generator,
    event_writer: EventWriter,
    first: u64,
    end: u64,
}

impl Events {
    /// Position of the next event.
    pub fn position(&self) -> u64 {
        self.event_writer.position
    }

    /// Appends the next event as an encoded `EventUnstructured` and returns its type; `None` after
    /// the last of the chunk.
    pub fn write(&mut self, out: &mut Vec<u8>) -> Option<&'static str> {
        let Events {
            generator,
            event_writer,
            first,
            end,
        } = self;
        let position = event_writer.position;
        if position >= *end {
            return None;
        }
        let options = &generator.options;
        let odd = (options.odd && position % ODD == ODD - 1)
            .then(|| ODD_VALUES[(position / ODD) as usize % ODD_VALUES.len()]);
        event_writer.odd_time = odd.map(|(time, _)| time);
        Some(event_writer.write(
            &generator.organisation,
            generator.time(position),
            position - *first,
            options.failed_logins.get(&position).map(String::as_str),
            out,
            |fields| {
                if let Some((_, number)) = odd {
                    fields.number("ratio", number);
                }
                if options.not_json.contains(&position) {
                    fields.number("ratio", f64::NAN);
                }
                if options.oversized.contains(&position) {
                    fields.text("padding", "x".repeat(1_200_000));
                }
            },
        ))
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
