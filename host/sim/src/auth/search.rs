//! `GetUnstructuredEvents`, with the rules observed of a real server's file backend (13.3.8).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use lockgate_model::{Day, Millis};
use lockgate_teleport::proto::auditlog::GetUnstructuredEventsRequest;
use prost_types::Timestamp;
use tonic::Status;

use crate::generate::{CHUNK, Generator, json_of, wire};

const LIMIT_DEFAULT: usize = 500;
const LIMIT_MAX: i32 = 10_000;
/// A page has fewer bytes of JSON than this.
const PAGE_BYTES: usize = 1 << 20;
/// Rendered chunks to keep. Pages of a window are usually in the same chunk.
const KEPT: usize = 3;

/// Answers searches. Renders whole chunks, so it belongs on a thread that may block.
#[derive(Default)]
pub(super) struct Search {
    kept: Mutex<VecDeque<Arc<Rendered>>>,
}

/// A page, encoded as `EventsUnstructured`.
#[derive(Debug, PartialEq)]
pub(super) struct Page {
    pub(super) message: Vec<u8>,
    pub(super) events: u64,
}

struct Rendered {
    number: u64,
    wire: Vec<u8>,
    events: Vec<RenderedEvent>,
}

struct RenderedEvent {
    end: usize,
    event_type: &'static str,
    json: usize,
}

impl Search {
    /// One page of the first `visible` events.
    pub(super) fn page(
        &self,
        generator: &Generator,
        visible: u64,
        request: &GetUnstructuredEventsRequest,
    ) -> Result<Page, Status> {
        let limit = match request.limit {
            ..=0 => LIMIT_DEFAULT,
            limit @ 1..=LIMIT_MAX => limit as usize,
            limit => {
                return Err(Status::invalid_argument(format!(
                    "limit {limit} exceeds max iteration limit 1000"
                )));
            }
        };
        // Inverted on the wire: 0 is oldest first.
        let ascending = match request.order {
            0 => true,
            1 => false,
            order => {
                return Err(Status::invalid_argument(format!(
                    "invalid event order: {order}"
                )));
            }
        };
        let (from, to) = (
            nanos(request.start_date.as_ref()),
            nanos(request.end_date.as_ref()),
        );
        if to - from <= -i128::from(Day::MILLIS) * 1_000_000 {
            return Err(Status::invalid_argument("invalid days"));
        }
        // Both ends are inclusive; times of events are whole milliseconds.
        let (from, to) = (millis(from + 999_999), millis(to));
        let mut first = generator.position_at(from);
        let mut end = generator.position_at(to.saturating_add(1)).min(visible);
        let wanted: Vec<&str> = request
            .event_types
            .iter()
            .map(String::as_str)
            .filter(|name| !name.is_empty())
            .collect();
        let matches = |event_type: &str| wanted.is_empty() || wanted.contains(&event_type);

        if !request.start_key.is_empty() {
            // A key is found if its event has a requested type and its day's file is read.
            // Otherwise the answer is an empty page, without an error.
            let key = generator
                .position_of(&request.start_key)
                .filter(|position| {
                    let day = Day::of(generator.time(*position)).start();
                    let read = from.saturating_sub(Day::MILLIS) < day
                        && day < to.saturating_add(Day::MILLIS);
                    *position < visible
                        && read
                        && matches(
                            self.rendered(generator, *position)
                                .event(*position)
                                .event_type,
                        )
                });
            let Some(key) = key else {
                return Ok(Page {
                    message: Vec::new(),
                    events: 0,
                });
            };
            match ascending {
                true => first = first.max(key + 1),
                false => end = end.min(key),
            }
        }

        let (mut message, mut events, mut size) = (Vec::new(), 0, 0);
        let (mut last, mut more) = (None, false);
        let mut positions = first..end;
        let mut chunk: Option<Arc<Rendered>> = None;
        while let Some(position) = if ascending {
            positions.next()
        } else {
            positions.next_back()
        } {
            let chunk = match &mut chunk {
                Some(chunk) if chunk.number == position / CHUNK => chunk,
                chunk => chunk.insert(self.rendered(generator, position)),
            };
            let event = chunk.event(position);
            if !matches(event.event_type) {
                continue;
            }
            size += event.json;
            if size >= PAGE_BYTES {
                more = true;
                break;
            }
            wire::bytes(&mut message, 0x0a, chunk.wire(position));
            events += 1;
            last = Some(position);
            if events == limit {
                more = true;
                break;
            }
        }
        if let (true, Some(last)) = (more, last) {
            wire::bytes(&mut message, 0x12, generator.uid(last).as_bytes());
        }
        Ok(Page {
            message,
            events: events as u64,
        })
    }

    fn rendered(&self, generator: &Generator, position: u64) -> Arc<Rendered> {
        let number = position / CHUNK;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|rendered| rendered.number == number) {
            return Arc::clone(&kept[at]);
        }
        let rendered = Arc::new(Rendered::new(generator, number));
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&rendered));
        rendered
    }
}

impl Rendered {
    fn new(generator: &Generator, number: u64) -> Rendered {
        let mut source = generator.chunk(number);
        let (mut wire, mut events) = (Vec::new(), Vec::new());
        let mut start = 0;
        while let Some(event_type) = source.write(&mut wire) {
            events.push(RenderedEvent {
                end: wire.len(),
                event_type,
                json: json_of(&wire[start..]).len(),
            });
            start = wire.len();
        }
        Rendered {
            number,
            wire,
            events,
        }
    }

    fn event(&self, position: u64) -> &RenderedEvent {
        &self.events[(position % CHUNK) as usize]
    }

    fn wire(&self, position: u64) -> &[u8] {
        let start = match position % CHUNK {
            0 => 0,
            _ => self.event(position - 1).end,
        };
        &self.wire[start..self.event(position).end]
    }
}

/// An absent time is the epoch, as in Go.
fn nanos(time: Option<&Timestamp>) -> i128 {
    time.map_or(0, |time| {
        i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
    })
}

fn millis(nanos: i128) -> Millis {
    nanos
        .div_euclid(1_000_000)
        .clamp(Millis::MIN.into(), Millis::MAX.into()) as Millis
}

#[cfg(test)]
mod tests;
