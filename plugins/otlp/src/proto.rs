//! The few messages of OTLP that logs need, as protobuf
//! (`opentelemetry/proto/collector/logs/v1/logs_service.proto`).

use std::collections::BTreeMap;

use lockgate_plugin::template::Template;
use lockgate_plugin::{Document, Timestamp};

/// A field with a length: a text, bytes or a message.
const LENGTH: u32 = 2;
const FIXED64: u32 = 1;
const VARINT: u32 = 0;
const FIXED32: u32 = 5;
/// `SEVERITY_NUMBER_INFO`.
const INFO: u64 = 9;

/// `ExportLogsServiceRequest`.
pub fn request(
    resource: &BTreeMap<String, String>,
    attributes: &BTreeMap<String, Template>,
    read_at: Timestamp,
    documents: &[Document],
) -> Vec<u8> {
    let mut described = vec![];
    for (name, value) in resource {
        attribute(&mut described, 1, name, value);
    }
    let mut scope = vec![];
    bytes(&mut scope, 1, b"lockgate");
    let mut scope_logs = vec![];
    bytes(&mut scope_logs, 1, &scope);
    for document in documents {
        bytes(&mut scope_logs, 2, &record(attributes, read_at, document));
    }
    let mut resource_logs = vec![];
    bytes(&mut resource_logs, 1, &described);
    bytes(&mut resource_logs, 2, &scope_logs);
    let mut request = vec![];
    bytes(&mut request, 1, &resource_logs);
    request
}

/// `LogRecord`. Its body is the document as text.
fn record(
    attributes: &BTreeMap<String, Template>,
    read_at: Timestamp,
    document: &Document,
) -> Vec<u8> {
    let mut record = Vec::with_capacity(document.payload.len() + 256);
    fixed64(&mut record, 1, nanos(document.time));
    key(&mut record, 2, VARINT);
    varint(&mut record, INFO);
    let mut body = Vec::with_capacity(document.payload.len() + 8);
    bytes(&mut body, 1, document.payload.as_bytes());
    bytes(&mut record, 5, &body);
    for (name, value) in [
        ("teleport.key", document.key.as_str()),
        ("teleport.code", document.code.as_str()),
        (
            "session.id",
            document.session.as_deref().unwrap_or_default(),
        ),
    ] {
        if !value.is_empty() {
            attribute(&mut record, 6, name, value);
        }
    }
    for (name, template) in attributes {
        let value = template.render(document);
        if !value.is_empty() {
            attribute(&mut record, 6, name, &value);
        }
    }
    fixed64(&mut record, 11, nanos(read_at));
    if !document.event_type.is_empty() {
        bytes(&mut record, 12, document.event_type.as_bytes());
    }
    record
}

/// `KeyValue` with a text.
fn attribute(out: &mut Vec<u8>, field: u32, name: &str, value: &str) {
    let mut any = vec![];
    bytes(&mut any, 1, value.as_bytes());
    let mut pair = vec![];
    bytes(&mut pair, 1, name.as_bytes());
    bytes(&mut pair, 2, &any);
    bytes(out, field, &pair);
}

/// Nanoseconds since 1970. 0, "unknown", for what cannot be written so.
fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time)
        .ok()
        .and_then(|millis| millis.checked_mul(1_000_000))
        .unwrap_or(0)
}

fn key(out: &mut Vec<u8>, field: u32, wire: u32) {
    varint(out, u64::from(field << 3 | wire));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number that is left out if it is 0, as usual.
fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value == 0 {
        return;
    }
    key(out, field, FIXED64);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(out, field, LENGTH);
    varint(out, value.len() as u64);
    out.extend(value);
}

/// What `ExportLogsServiceResponse` says in `partial_success`: the rejected records and why. `None`
/// if these are other bytes.
pub fn partial_success(response: &[u8]) -> Option<(i64, String)> {
    let mut found = (0, String::new());
    for field in fields(response)? {
        let Field::Bytes(1, partial) = field else {
            continue;
        };
        for field in fields(partial)? {
            match field {
                Field::Number(1, rejected) => found.0 = rejected as i64,
                Field::Bytes(2, message) => {
                    found.1 = String::from_utf8_lossy(message).into_owned();
                }
                _ => {}
            }
        }
    }
    Some(found)
}

enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
}

fn fields(mut message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut found = vec![];
    while !message.is_empty() {
        let key = read_varint(&mut message)?;
        let (field, wire) = (key >> 3, (key & 7) as u32);
        found.push(match wire {
            VARINT => Field::Number(field, read_varint(&mut message)?),
            FIXED64 => Field::Bytes(field, take(&mut message, 8)?),
            FIXED32 => Field::Bytes(field, take(&mut message, 4)?),
            LENGTH => {
                let length = read_varint(&mut message)?;
                Field::Bytes(field, take(&mut message, usize::try_from(length).ok()?)?)
            }
            _ => return None,
        });
    }
    Some(found)
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
