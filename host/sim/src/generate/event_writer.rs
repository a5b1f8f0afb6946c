//! Writes the events of a chunk: chooses their types, keeps the open sessions, and writes the
//! fields that many types share.

use std::collections::VecDeque;

use lockgate_model::Millis;

use super::lists::{COMMANDS, USERS};
use super::organisation::{Organisation, Person};
use super::rng::Rng;
use super::session::{ApplicationSession, DatabaseSession, SshSession};
use super::text::ShortText;
use super::wire::{self, Fields};

/// Writes the events of one chunk. Each chunk begins with new sessions, so nothing outlives it.
pub(crate) struct EventWriter {
    pub(crate) rng: Rng,
    pub(crate) position: u64,
    pub(crate) time: Millis,
    /// The next event's `time`, if it is not that.
    pub(crate) odd_time: Option<&'static str>,
    pub(crate) ssh: Vec<SshSession>,
    pub(crate) databases: Vec<DatabaseSession>,
    pub(crate) applications: Vec<ApplicationSession>,
    /// Events that must come next, after the end of a session.
    pub(crate) follow_ups: VecDeque<FollowUp>,
    /// Type of the event that is being written.
    event_type: &'static str,
    /// Where the length of the open Struct is.
    payload_at: usize,
}

pub(crate) enum FollowUp {
    Upload(SshSession),
    Leave(SshSession),
}

type Write = fn(&mut EventWriter, &Organisation, &mut Vec<u8>);

/// Weights of the event types in a busy engineering organisation. The sum does not matter.
const MIX: [(f64, Write); 39] = [
    (9.0, EventWriter::login),
    (15.0, EventWriter::certificate),
    (6.0, EventWriter::ssh_start),
    (2.0, EventWriter::ssh_resize),
    (1.2, EventWriter::ssh_join),
    (5.0, EventWriter::ssh_data),
    (5.0, EventWriter::ssh_command),
    (1.5, EventWriter::ssh_network),
    (1.5, EventWriter::ssh_disk),
    (5.5, EventWriter::ssh_end),
    (4.0, EventWriter::exec),
    (2.0, EventWriter::scp),
    (2.5, EventWriter::sftp),
    (1.0, EventWriter::subsystem),
    (13.0, EventWriter::kube_request),
    (3.0, EventWriter::database_start),
    (12.0, EventWriter::database_query),
    (1.0, EventWriter::database_failure),
    (2.6, EventWriter::database_end),
    (1.5, EventWriter::application_start),
    (7.0, EventWriter::application_request),
    (0.8, EventWriter::application_chunk),
    (0.8, EventWriter::application_end),
    (1.2, EventWriter::request_create),
    (1.0, EventWriter::request_review),
    (0.4, EventWriter::request_search),
    (0.3, EventWriter::user_create),
    (0.3, EventWriter::user_update),
    (0.1, EventWriter::user_delete),
    (0.2, EventWriter::role_create),
    (0.1, EventWriter::lock_create),
    (0.6, EventWriter::authentication_failure),
    (0.8, EventWriter::instance_join),
    (0.6, EventWriter::bot_join),
    (0.4, EventWriter::device_authenticate),
    (0.7, EventWriter::client_disconnect),
    (0.6, EventWriter::recording_access),
    (0.5, EventWriter::desktop_start),
    (0.5, EventWriter::svid_issue),
];

/// Sessions of each kind that begin a chunk, because events need an open session.
const OPENING: u64 = 5;

impl EventWriter {
    /// `position` is the first of its chunk.
    pub(crate) fn new(seed: u64, position: u64) -> EventWriter {
        EventWriter {
            rng: Rng::new(seed, position),
            position,
            time: 0,
            odd_time: None,
            ssh: Vec::new(),
            databases: Vec::new(),
            applications: Vec::new(),
            follow_ups: VecDeque::new(),
            event_type: "",
            payload_at: 0,
        }
    }

    /// Appends one encoded `EventUnstructured` and returns its type. `of_chunk` counts from the
    /// chunk's first event. `failed_login`: it is one, of this user.
    pub(crate) fn write(
        &mut self,
        organisation: &Organisation,
        time: Millis,
        of_chunk: u64,
        failed_login: Option<&str>,
        out: &mut Vec<u8>,
        extra: impl FnOnce(&mut Fields<'_>),
    ) -> &'static str {
        self.time = time;
        if let Some(user) = failed_login {
            self.failed_login(organisation, user, out);
            return self.finish(out, extra);
        }
        let method = match of_chunk / OPENING {
            0 => EventWriter::ssh_start,
            1 => EventWriter::database_start,
            2 => EventWriter::application_start,
            _ => match self.follow_ups.pop_front() {
                Some(FollowUp::Upload(session)) => {
                    self.ssh_upload(organisation, &session, out);
                    return self.finish(out, extra);
                }
                Some(FollowUp::Leave(mut session)) => {
                    self.ssh_leave(organisation, &mut session, out);
                    return self.finish(out, extra);
                }
                None => self.draw(),
            },
        };
        method(self, organisation, out);
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
        EventWriter::login
    }

    fn finish(&mut self, out: &mut Vec<u8>, extra: impl FnOnce(&mut Fields<'_>)) -> &'static str {
        extra(&mut Fields::new(out));
        self.close(out);
        self.event_type
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
        organisation: &Organisation,
        out: &'o mut Vec<u8>,
        event: &'static str,
        code: &str,
        index: u32,
    ) -> Fields<'o> {
        let uid = organisation
            .ids
            .encode(super::ids::IdKind::Event, self.position);
        self.event_type = event;
        self.payload_at = envelope(out, event, uid, self.time, index);
        let mut fields = Fields::new(out);
        fields.number("ei", index.into());
        fields.text("event", event);
        fields.text("uid", uid);
        fields.text("code", code);
        match self.odd_time {
            Some(time) => fields.text("time", time),
            None => fields.text("time", ShortText::time(self.time)),
        }
        fields.text("cluster_name", &organisation.cluster);
        fields
    }

    /// Writes who did it. `device`: whether a trusted device may be named.
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

    pub(crate) fn person<'w>(&mut self, organisation: &'w Organisation) -> &'w Person {
        self.rng.one(&organisation.people)
    }

    pub(crate) fn user(&mut self) -> &'static str {
        self.rng.pick(&USERS)
    }

    pub(crate) fn command(&mut self) -> &'static str {
        self.rng.pick(&COMMANDS)
    }

    /// The event's time plus `hours`, with nine digits of a second.
    pub(crate) fn later(&mut self, hours: u64) -> ShortText {
        ShortText::time_nanos(
            self.time + hours as Millis * 3_600_000,
            self.rng.below(1_000_000),
        )
    }

    pub(crate) fn ip(&mut self) -> ShortText {
        ip(&mut self.rng)
    }

    pub(crate) fn address(&mut self) -> ShortText {
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

pub(crate) fn ip(rng: &mut Rng) -> ShortText {
    let mut text = ShortText::default();
    text.push(rng.pick(&[b"198", b"203", b"192"]));
    for part in [rng.below(256), rng.below(256), rng.range(1, 255)] {
        text.push(b".");
        text.push_number(part);
    }
    text
}

pub(crate) fn address(rng: &mut Rng) -> ShortText {
    let mut text = ShortText::default();
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
