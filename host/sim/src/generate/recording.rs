//! Session recordings, the answer of `StreamUnstructuredSessionEvents`. They depend only on the
//! session's id.
//!
//! As observed on a real server for an interactive session: `session.start` (0), `print` (1 to n),
//! `session.leave`, `session.end`; indexes are consecutive; `print` has no uid, so its id on the
//! wire is the SHA-256 of its JSON text.

use sha2::{Digest, Sha256};

use super::event_writer::{EventWriter, envelope};
use super::json;
use super::lists::COMMANDS;
use super::organisation::Organisation;
use super::rng::Rng;
use super::session::SshSession;
use super::text::ShortText;
use super::wire::{self, Fields};

/// A position after the end of any audit log.
const BEYOND_THE_LOG: u64 = 1 << 60;

/// One encoded `EventUnstructured` for each event of the recording, in order of index.
pub(crate) fn write(organisation: &Organisation, session: SshSession) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(organisation.seed ^ 0x7265_636f_7264, session.started_at);
    let prints = rng.range(3, 40) as u32;
    let mut event_writer = EventWriter::new(rng.bits(), session.started_at);
    let mut session = session;
    let mut events = Vec::with_capacity(prints as usize + 3);
    let started = session.start;

    let mut edge = |event_writer: &mut EventWriter,
                    session: &mut SshSession,
                    time,
                    event,
                    code,
                    write: &dyn Fn(&mut Fields<'_>)| {
        let mut out = Vec::new();
        event_writer.time = time;
        let mut fields = event_writer.ssh(organisation, &mut out, session, event, code);
        write(&mut fields);
        event_writer.close(&mut out);
        events.push(out);
    };
    edge(
        &mut event_writer,
        &mut session,
        started,
        "session.start",
        "T2000I",
        &|fields| {
            fields.text("size", "120:40");
            fields.text("session_recording", "node");
        },
    );
    // From here on, uids do not belong to any event of the audit log.
    event_writer.position = BEYOND_THE_LOG + 2 * session.started_at;
    let mut printed = Vec::new();
    let (mut elapsed, mut offset) = (0, 0);
    for number in 0..prints {
        let delay = rng.below(5000);
        elapsed += delay;
        let (event, len) = print(
            organisation,
            &mut rng,
            &mut session,
            number,
            delay,
            elapsed,
            offset,
        );
        offset += len;
        printed.push(event);
    }
    let stop = started + elapsed as i64 + 20;
    edge(
        &mut event_writer,
        &mut session,
        stop,
        "session.leave",
        "T2003I",
        &|_| {},
    );
    let participants = session.participants.clone();
    edge(
        &mut event_writer,
        &mut session,
        stop + 5000,
        "session.end",
        "T2004I",
        &|fields| {
            fields.flag("enhanced_recording", false);
            fields.flag("interactive", true);
            fields.texts("participants", &participants);
            fields.text("session_recording", "node");
            fields.text("session_start", ShortText::time_nanos(started, 0));
            fields.text("session_stop", ShortText::time_nanos(stop, 0));
        },
    );
    events.splice(1..1, printed);
    events
}

/// Returns one `print` event and the number of bytes of terminal output in it. `delay`, `elapsed`:
/// ms; `offset`: bytes.
fn print(
    organisation: &Organisation,
    rng: &mut Rng,
    session: &mut SshSession,
    number: u32,
    delay: u64,
    elapsed: u64,
    offset: u64,
) -> (Vec<u8>, u64) {
    let magnitude = rng.range(4, 12);
    let len = 8 + rng.below(1 << magnitude);
    let host = session
        .node(organisation)
        .host
        .split('.')
        .next()
        .unwrap_or_default();
    let line = format!(
        "\x1b[1;32m{}@{host}\x1b[0m:~$ {}\r\n",
        session.login,
        rng.pick(&COMMANDS)
    );
    let screen: Vec<u8> = line.bytes().cycle().take(len as usize).collect();
    let time = session.start + elapsed as i64;

    let mut payload = Vec::new();
    let mut fields = Fields::new(&mut payload);
    fields.number("ei", session.index.into());
    fields.text("event", "print");
    fields.text("time", ShortText::time(time));
    fields.text("cluster_name", &organisation.cluster);
    fields.number("ci", f64::from(number));
    fields.number("bytes", len as f64);
    fields.number("delay", delay as f64);
    fields.number("ms", elapsed as f64);
    fields.number("offset", offset as f64);
    fields.text("data", base64(&screen));
    fields.text("sid", session.id);

    let mut text = Vec::new();
    json::object(&payload, false, &mut text);
    let id: String = Sha256::digest(&text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut out = Vec::new();
    let at = envelope(&mut out, "print", id, time, session.index);
    out.extend_from_slice(&payload);
    wire::close(&mut out, at);
    session.index += 1;
    (out, len)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            match place <= group.len() {
                true => text.push(char::from(
                    LETTERS[(bits >> (18 - 6 * place)) as usize & 63],
                )),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_follows_rfc_4648() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }
}
