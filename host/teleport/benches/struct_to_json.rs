//! Converting a Struct to JSON. Divan prints ns per event.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use lockgate_teleport::json::Converter;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

fn main() {
    divan::main();
}

fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as J;
    let kind = match json {
        J::Null => Kind::NullValue(0),
        J::Bool(value) => Kind::BoolValue(*value),
        J::Number(number) => Kind::NumberValue(number.as_f64().expect("a double")),
        J::String(text) => Kind::StringValue(text.clone()),
        J::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(value).collect(),
        }),
        J::Object(_) => Kind::StructValue(object(json)),
    };
    Value { kind: Some(kind) }
}

fn object(json: &serde_json::Value) -> Struct {
    Struct {
        fields: json
            .as_object()
            .expect("an object")
            .iter()
            .map(|(key, json)| (key.clone(), value(json)))
            .collect(),
    }
}

/// A session start as Teleport 13 writes it, 930 bytes and 29 fields; on the wire unsorted, like
/// Go's maps.
fn event() -> (Vec<u8>, usize) {
    let json = serde_json::json!({
        "event": "session.start", "code": "T2000I", "ei": 0, "uid": "5f1e6f3a-8a5e-4f3e-9a55-0d4b1a0a6b7c",
        "time": "2026-01-05T08:15:30.123Z", "cluster_name": "teleport.example.com", "sid": "0190c9b4-6a8e-7d51-9e8f-1f2d3c4b5a69",
        "user": "alice.anderson@example.com", "login": "ubuntu", "namespace": "default", "private_key_policy": "none",
        "server_id": "c2a1f3b8-2f0d-4f64-a8f7-3e1c9d5b7a90", "server_hostname": "ip-10-0-3-17.eu-central-1.compute.internal",
        "server_addr": "10.0.3.17:3022", "server_labels": {"env": "prod", "team": "platform", "region": "eu-central-1"},
        "addr.local": "10.0.3.17:3022", "addr.remote": "203.0.113.54:51734", "proto": "ssh", "size": "120:40", "with_mfa": "",
        "initial_command": ["bash", "-l"], "session_recording": "node", "user_kind": 1, "server_version": "17.2.1",
        "access_requests": ["0190c9b4-0000-7d51-9e8f-1f2d3c4b5a69"], "participants": ["alice.anderson@example.com"],
        "interactive": true, "success": true, "impersonator": ""
    });
    let whole = object(&json);
    let mut keys: Vec<&String> = whole.fields.keys().collect();
    keys.sort_by_key(|key| key.bytes().rev().collect::<Vec<_>>());
    let wire = keys
        .into_iter()
        .flat_map(|key| {
            Struct {
                fields: [(key.clone(), whole.fields[key].clone())].into(),
            }
            .encode_to_vec()
        })
        .collect();
    (wire, json.to_string().len())
}

#[divan::bench(sample_size = 1000)]
fn one_pass(bencher: Bencher) {
    let (wire, len) = event();
    let mut converter = Converter::new();
    let mut text = String::with_capacity(1 << 20);
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        text.clear();
        converter
            .append(black_box(&wire), &mut text)
            .expect("an event");
        text.len()
    });
}

#[divan::bench(sample_size = 100)]
fn tree(bencher: Bencher) {
    let (wire, len) = event();
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        Struct::decode(black_box(&wire[..]))
            .expect("a Struct")
            .fields
            .len()
    });
}
