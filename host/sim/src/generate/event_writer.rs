//! Writes one event after another: which type comes next, the sessions that are open, and the
//! fields many types share.

use std::collections::VecDeque;

use lockgate_model::Millis;

use super::lists::{COMMANDS, USERS};
use super::rng::Rng;
use super::session::{ApplicationSession, DatabaseSession, SshSession};
use super::text::Short;
use super::wire::{self, Fields};
use super::world::{Person, World};

/// The state of one chunk while it is written. Nothing outlives a chunk: each begins with sessions
/// of its own.
pub(crate) struct Scribe {
    pub(crate) rng: Rng,
    pub(crate) position: u64,
    pub(crate) time: Millis,
    pub(crate) ssh: Vec<SshSession>,
    pub(crate) databases: Vec<DatabaseSession>,
    pub(crate) applications: Vec<ApplicationSession>,
    /// Events that must come next: what follows a session's end.
    pub(crate) pending: VecDeque<Pending>,
    head: Head,
    /// Where the length of the open Struct is.
    payload_at: usize,
}

pub(crate) enum Pending {
    Upload(SshSession),
    Leave(SshSession),
}

/// What the server must know of an event beside its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    pub(crate) event: &'static str,
}

type Write = fn(&mut Scribe, &World, &mut Vec<u8>);

/// Weights give a busy engineering organisation; the sum does not matter.
const MIX: [(f64, Write); 39] = [
    (9.0, Scribe::login),
    (15.0, Scribe::certificate),
    (6.0, Scribe::ssh_start),
    (2.0, Scribe::ssh_resize),
    (1.2, Scribe::ssh_join),
    (5.0, Scribe::ssh_data),
    (5.0, Scribe::ssh_command),
    (1.5, Scribe::ssh_network),
    (1.5, Scribe::ssh_disk),
    (5.5, Scribe::ssh_end),
    (4.0, Scribe::exec),
    (2.0, Scribe::scp),
    (2.5, Scribe::sftp),
    (1.0, Scribe::subsystem),
    (13.0, Scribe::kube_request),
    (3.0, Scribe::database_start),
    (12.0, Scribe::database_query),
    (1.0, Scribe::database_failure),
    (2.6, Scribe::database_end),
    (1.5, Scribe::application_start),
    (7.0, Scribe::application_request),
    (0.8, Scribe::application_chunk),
    (0.8, Scribe::application_end),
    (1.2, Scribe::request_create),
    (1.0, Scribe::request_review),
    (0.4, Scribe::request_search),
    (0.3, Scribe::user_create),
    (0.3, Scribe::user_update),
    (0.1, Scribe::user_delete),
    (0.2, Scribe::role_create),
    (0.1, Scribe::lock_create),
    (0.6, Scribe::authentication_failure),
    (0.8, Scribe::instance_join),
    (0.6, Scribe::bot_join),
    (0.4, Scribe::device_authenticate),
    (0.7, Scribe::client_disconnect),
    (0.6, Scribe::recording_access),
    (0.5, Scribe::desktop_start),
    (0.5, Scribe::svid_issue),
];

/// Nobody acts in a session that was not started: so many of each kind begin a chunk.
const OPENING: u64 = 5;

impl Scribe {
    /// Begins at `position`, the first of its chunk.
    pub(crate) fn new(seed: u64, position: u64) -> Scribe {
        Scribe {
            rng: Rng::new(seed, position),
            position,
            time: 0,
            ssh: Vec::new(),
            databases: Vec::new(),
            applications: Vec::new(),
            pending: VecDeque::new(),
            head: Head::default(),
            payload_at: 0,
        }
    }

    /// Appends one encoded `EventUnstructured`; `of_chunk` counts from the chunk's first event.
    pub(crate) fn write(
        &mut self,
        world: &World,
        time: Millis,
        of_chunk: u64,
        out: &mut Vec<u8>,
        extra: impl FnOnce(&mut Fields<'_>),
    ) -> Head {
        self.time = time;
        let method = match of_chunk / OPENING {
            0 => Scribe::ssh_start,
            1 => Scribe::database_start,
            2 => Scribe::application_start,
            _ => match self.pending.pop_front() {
                Some(Pending::Upload(session)) => {
                    self.ssh_upload(world, &session, out);
                    return self.finish(out, extra);
                }
                Some(Pending::Leave(mut session)) => {
                    self.ssh_leave(world, &mut session, out);
                    return self.finish(out, extra);
                }
                None => self.draw(),
            },
        };
        method(self, world, out);
        self.finish(out, extra)
    }

    fn draw(&mut self) -> Write {
        let mut left = self.rng.unit() * MIX.iter().map(|(weight, _)| weight).sum::<f64>();
        for (weight, method) in MIX {
            if left < weight {
                return method;
            }
            left -= weight;
        }
        Scribe::login
    }

    fn finish(&mut self, out: &mut Vec<u8>, extra: impl FnOnce(&mut Fields<'_>)) -> Head {
        extra(&mut Fields::new(out));
        self.close(out);
        self.head
    }

    /// Ends the event that [`Self::begin`] opened.
    pub(crate) fn close(&mut self, out: &mut Vec<u8>) {
        wire::close(out, self.payload_at);
        self.position += 1;
    }

    // === fields that many types share ===

    /// Opens an event: its wire head (Teleport api `EventUnstructured`: type 1, id 2, time 3, index
    /// 4, unstructured 5), then the common fields. [`Self::write`] closes it.
    pub(crate) fn begin<'o>(
        &mut self,
        world: &World,
        out: &'o mut Vec<u8>,
        event: &'static str,
        code: &str,
        index: u32,
    ) -> Fields<'o> {
        let uid = world.ids.encode(super::ids::Kind::Event, self.position);
        self.head = Head { event };
        self.payload_at = envelope(out, event, uid, self.time, index);
        let mut fields = Fields::new(out);
        fields.number("ei", index.into());
        fields.text("event", event);
        fields.text("uid", uid);
        fields.text("code", code);
        fields.text("time", Short::time(self.time));
        fields.text("cluster_name", &world.cluster);
        fields
    }

    /// Who did it. `device`: whether a trusted device may be named.
    pub(crate) fn who(&mut self, fields: &mut Fields<'_>, person: &Person, device: bool) {
        fields.entries(&person.identity);
        self.grants(fields, person, device);
    }

    pub(crate) fn grants(&mut self, fields: &mut Fields<'_>, person: &Person, device: bool) {
        if self.rng.chance(0.7) {
            fields.entries(&person.grants);
        }
        if device && self.rng.chance(0.35) {
            fields.object("trusted_device", |inner| inner.entries(&person.device));
        }
        if self.rng.chance(0.08) {
            fields.texts("access_requests", [self.rng.uuid()]);
        }
    }

    pub(crate) fn person<'w>(&mut self, world: &'w World) -> &'w Person {
        self.rng.one(&world.people)
    }

    pub(crate) fn user(&mut self) -> &'static str {
        self.rng.pick(&USERS)
    }

    pub(crate) fn command(&mut self) -> &'static str {
        self.rng.pick(&COMMANDS)
    }

    /// The event's time plus `hours`, with nine digits of a second.
    pub(crate) fn later(&mut self, hours: u64) -> Short {
        Short::time_nanos(
            self.time + hours as Millis * 3_600_000,
            self.rng.below(1_000_000),
        )
    }

    pub(crate) fn ip(&mut self) -> Short {
        ip(&mut self.rng)
    }

    pub(crate) fn address(&mut self) -> Short {
        address(&mut self.rng)
    }
}

/// Writes the head of an `EventUnstructured` and opens its Struct; returns what [`wire::close`]
/// takes.
pub(crate) fn envelope(
    out: &mut Vec<u8>,
    event: &str,
    id: impl AsRef<[u8]>,
    time: Millis,
    index: u32,
) -> usize {
    wire::bytes(out, 0x0a, event.as_bytes());
    wire::bytes(out, 0x12, id.as_ref());
    let (second, nanos) = (
        time.div_euclid(1000) as usize,
        time.rem_euclid(1000) as usize * 1_000_000,
    );
    let nanos_len = if nanos > 0 {
        1 + wire::varint_len(nanos)
    } else {
        0
    };
    out.extend_from_slice(&[0x1a, (1 + wire::varint_len(second) + nanos_len) as u8, 0x08]);
    wire::varint(out, second);
    if nanos > 0 {
        out.push(0x10);
        wire::varint(out, nanos);
    }
    if index > 0 {
        out.push(0x20);
        wire::varint(out, index as usize);
    }
    wire::open(out, 0x2a)
}

pub(crate) fn ip(rng: &mut Rng) -> Short {
    let mut text = Short::default();
    text.push(rng.pick(&[b"198", b"203", b"192"]));
    for part in [rng.below(256), rng.below(256), rng.range(1, 255)] {
        text.push(b".");
        text.push_number(part);
    }
    text
}

pub(crate) fn address(rng: &mut Rng) -> Short {
    let mut text = Short::default();
    if rng.chance(0.05) {
        text.push(b"[2001:db8::");
        text.push_hex(rng.bits(), 4);
        text.push(b"]");
    } else {
        text = ip(rng);
    }
    text.push(b":");
    text.push_number(rng.range(1024, 65_535));
    text
}
