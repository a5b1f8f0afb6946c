//! The cost of a call of the built-in plugins for 500 events of about 1 kB, with a fresh instance
//! for each batch and with a reused one. For the filter, also the cost of the same code natively.

mod support;

use divan::Bencher;
use divan::counter::ItemsCount;
use lockgate_model::DocumentView;
use lockgate_model::request::RequestRules;
use lockgate_plugin::Filter;
use serde_json::{Value, json};
use support::{EVENTS, batch, event, sink, stage, transform};

fn main() {
    divan::main();
}

/// Without payloads: events are kept or dropped by feed and type.
#[divan::bench(args = [false, true])]
fn filter_heads(bencher: Bencher, reuse: bool) {
    filter(bencher, json!({ "skip": ["session.data"] }), reuse);
}

/// A condition on a field: every payload is copied in and read.
#[divan::bench(args = [false, true])]
fn filter_field(bencher: Bencher, reuse: bool) {
    filter(bencher, condition(), reuse);
}

#[divan::bench]
fn filter_field_native(bencher: Bencher) {
    let config = serde_json::from_value(condition()).unwrap();
    let (filter, _) = ::filter::FieldFilter::configure(config).unwrap();
    let payloads = payloads();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        payloads
            .iter()
            .filter(|payload| filter.drop_reason(payload).is_none())
            .count()
    });
}

#[divan::bench(args = [false, true])]
fn redact(bencher: Bencher, reuse: bool) {
    let stage = stage(
        "redact",
        json!({ "remove": ["server_labels.team"], "hash": ["user"], "truncate": { "command": 20 } }),
        reuse,
    );
    let payloads = payloads();
    let events: Vec<_> = payloads.iter().map(|payload| event(payload)).collect();
    bencher
        .counter(ItemsCount::new(EVENTS))
        .bench_local(|| transform(&stage, &events));
}

/// With a body of parts: payloads stay with the host, which checks their `time`.
#[divan::bench(args = [false, true])]
fn fluentd_encode(bencher: Bencher, reuse: bool) {
    encode(bencher, json!({}), reuse);
}

/// With every payload copied to the guest, because the operator's `max-bytes` needs their sizes.
#[divan::bench(args = [false, true])]
fn fluentd_encode_payloads(bencher: Bencher, reuse: bool) {
    encode(bencher, json!({ "max-bytes": 1 << 30 }), reuse);
}

/// The host assembles the parts.
#[divan::bench]
fn fluentd_assemble(bencher: Bencher) {
    let sink = sink("fluentd", json!({}), true);
    let payloads = payloads();
    let documents = documents(&payloads);
    let rules = RequestRules::default();
    let encoded = sink
        .encode(batch(), &documents, &rules, false)
        .result
        .unwrap();
    let body = encoded.requests[0].body();
    bencher
        .counter(ItemsCount::new(EVENTS))
        .bench_local(|| body.assemble(|index| &payloads[index as usize]));
}

fn encode(bencher: Bencher, config: Value, reuse: bool) {
    let sink = sink("fluentd", config, reuse);
    let payloads = payloads();
    let documents = documents(&payloads);
    let rules = RequestRules::default();
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        sink.encode(batch(), &documents, &rules, false)
            .result
            .unwrap()
    });
}

fn documents(payloads: &[String]) -> Vec<DocumentView<'_>> {
    payloads
        .iter()
        .map(|payload| DocumentView {
            event: event(payload),
            attributes: &[],
        })
        .collect()
}

fn filter(bencher: Bencher, config: Value, reuse: bool) {
    let stage = stage("filter", config, reuse);
    let payloads = payloads();
    let events: Vec<_> = payloads.iter().map(|payload| event(payload)).collect();
    bencher
        .counter(ItemsCount::new(EVENTS))
        .bench_local(|| support::filter(&stage, &events));
}

fn condition() -> Value {
    json!({ "where": { "server_labels.env": ["prod"] } })
}

/// Shaped like Teleport's `session.command`; a third of them in `prod`.
fn payloads() -> Vec<String> {
    let payload = |n: usize| {
        json!({
            "addr.local": "10.0.3.17:3022", "addr.remote": format!("203.0.113.{}:52110", n % 250), "argv": ["-la", "/var/log", "--color=auto"],
            "cgroup_id": 4_294_968_191_u64 + n as u64, "cluster_name": "example.teleport.sh", "code": "T4000I",
            "command": "journalctl -u nginx.service --since today --no-pager", "ei": n, "event": "session.command",
            "initiator": "web", "kubernetes_cluster": "", "login": "ubuntu", "namespace": "default", "path": "/usr/bin/journalctl", "pid": 30_000 + n,
            "ppid": 1021, "private_key_policy": "none", "program": "journalctl", "proto": "ssh", "return_code": 0,
            "server_hostname": format!("node-{}", n % 40), "server_id": "5f2c8a0e-2b0e-4f61-8a8d-77a3a1a3a1e4",
            "server_labels": { "env": (["dev", "prod", "stage"][n % 3]), "hostname": format!("node-{}", n % 40), "team": "payments", "teleport.internal/resource-id": "7b0b9c7e" },
            "server_version": "18.2.1", "sid": "c0a1b9f2-62a5-4b6e-9d0a-1f2e3d4c5b6a", "success": true, "time": "2026-01-05T08:00:00.123Z",
            "uid": format!("8d5a3f0e-1f2b-4a37-9a6f-{n:012}"), "user": (["alice", "bob", "carol"][n % 3]), "user_agent": "teleport/18.2.1",
            "user_kind": 1, "user_roles": ["access", "editor", "auditor"], "user_traits": { "logins": ["root", "ubuntu"], "groups": ["payments-oncall"] },
        })
        .to_string()
    };
    (0..EVENTS).map(payload).collect()
}
