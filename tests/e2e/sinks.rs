//! The built-in sinks against receivers that refuse before they accept. What arrives is read as
//! each receiver reads it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::sync::Mutex;

use lockgate_sim::auth::AuthOptions;
use lockgate_sim::generate::{Generator, GeneratorOptions};
use lockgate_tests::recorder::{Answer, Recorded, Recorder};
use lockgate_tests::{
    Auth, LocalAuth, books, configuration, start_and_finish, started, status, until,
};
use serde_json::{Deserializer, Value, json};

const EVENTS: u64 = 400;

struct Sink {
    plugin: &'static str,
    /// Further lines of the sink's table.
    table: &'static str,
    content_type: &'static str,
    /// The answers to the first requests.
    refusals: Vec<Answer>,
    /// The answer to the others.
    accepts: fn(&Recorded) -> Answer,
    /// The documents of a request.
    documents: fn(&Recorded) -> Vec<Value>,
}

fn sinks() -> Vec<Sink> {
    let ok = |_: &Recorded| Answer::new(200, "ok");
    let busy = || Answer {
        headers: "retry-after: 1\r\n",
        ..Answer::new(429, "busy")
    };
    let sink = |plugin, table, documents| Sink {
        plugin,
        table,
        content_type: "application/json",
        refusals: vec![busy()],
        accepts: ok,
        documents,
    };
    vec![
        sink("http", "", array),
        Sink {
            content_type: "application/x-ndjson",
            ..sink(
                "http",
                "compression = \"zstd\"\nwith = { format = \"lines\", path = \"{event-type}/{date}\" }",
                values,
            )
        },
        Sink {
            refusals: vec![Answer::new(200, r#"{"ok":false}"#), busy()],
            accepts: |_| Answer::new(201, r#"{"ok":true}"#),
            ..sink(
                "http",
                r#"with = { document = '{"type":{event-type},"e":{document}}', envelope = '{"events":{documents}}', success = { ok = true } }"#,
                |request| {
                    let body = &values(request)[0];
                    let events = body["events"].as_array().unwrap().iter();
                    events
                        .map(|it| {
                            assert_eq!(it["type"], it["e"]["event"]);
                            it["e"].clone()
                        })
                        .collect()
                },
            )
        },
        sink("logstash", "", array),
        sink(
            "runreveal",
            "auth = { bearer = \"0123456789abcdef\" }",
            |request| {
                assert_eq!(request.headers["authorization"], "Bearer 0123456789abcdef");
                array(request)
            },
        ),
        sink(
            "runreveal",
            "with = { format = \"structured\" }",
            |request| vec![values(request)[0]["resources"][0].clone()],
        ),
        Sink {
            content_type: "application/x-ndjson",
            refusals: vec![
                // All are refused for a while, and then some.
                Answer::new(503, r#"{"error":"unavailable"}"#),
                Answer::new(200, "<html>a proxy's page</html>"),
            ],
            accepts: bulk,
            ..sink(
                "elasticsearch",
                "compression = \"gzip\"\nwith = { data-stream = \"logs-teleport.audit-default\" }",
                |request| {
                    assert!(request.path.contains("/_bulk?filter_path="), "{request:?}");
                    let lines = values(request);
                    let mut documents = vec![];
                    for pair in lines.chunks(2) {
                        assert_eq!(pair[0]["create"]["_index"], "logs-teleport.audit-default");
                        assert_eq!(pair[0]["create"]["_id"], pair[1]["uid"]);
                        documents.push(pair[1].clone());
                    }
                    documents
                },
            )
        },
        Sink {
            refusals: vec![Answer::new(503, r#"{"text":"Server is busy","code":9}"#)],
            accepts: |_| Answer::new(200, r#"{"text":"Success","code":0}"#),
            ..sink(
                "splunk",
                "with = { index = \"main\", fields = { type = \"{event-type}\" } }\nauth = { header = { name = \"Authorization\", value = \"Splunk 0123456789abcdef\" } }",
                |request| {
                    assert_eq!(request.headers["authorization"], "Splunk 0123456789abcdef");
                    let events = values(request);
                    assert_eq!(events[0]["index"], "main");
                    events.iter().map(|it| it["event"].clone()).collect()
                },
            )
        },
        Sink {
            accepts: |_| Answer::new(202, "{}"),
            ..sink(
                "datadog",
                "auth = { header = { name = \"DD-API-KEY\", value = \"0123456789abcdef\" } }",
                |request| {
                    let logs = array(request);
                    assert!(logs.len() <= 1000);
                    logs.iter().map(|it| text(&it["message"])).collect()
                },
            )
        },
        Sink {
            accepts: |_| Answer::new(204, ""),
            ..sink(
                "loki",
                "with = { labels = { job = \"teleport\", type = \"{event-type}\" }, metadata = { key = \"{key}\" } }",
                |request| {
                    let body = &values(request)[0];
                    let mut documents = vec![];
                    for stream in body["streams"].as_array().unwrap() {
                        for value in stream["values"].as_array().unwrap() {
                            let document = text(&value[1]);
                            assert_eq!(stream["stream"]["type"], document["event"]);
                            assert_eq!(value[2]["key"], document["uid"]);
                            documents.push(document);
                        }
                    }
                    documents
                },
            )
        },
        sink("slack", "with = { text = \"{key}\" }", |request| {
            vec![json!({"uid": values(request)[0]["text"]})]
        }),
        Sink {
            content_type: "application/x-protobuf",
            accepts: |_| Answer::new(200, ""),
            ..sink("otlp", "", |request| {
                // Each body of a record is the text of a document, and no document has `{"` inside
                // but at its begin.
                let body = String::from_utf8_lossy(&request.body);
                let starts = body.match_indices(r#"{""#).map(|(at, _)| at);
                let mut documents = vec![];
                let mut end = 0;
                for start in starts {
                    if start < end {
                        continue;
                    }
                    let mut parsed = Deserializer::from_str(&body[start..]).into_iter::<Value>();
                    documents.push(parsed.next().unwrap().unwrap());
                    end = start + parsed.byte_offset();
                }
                documents
            })
        },
    ]
}

/// Creates all but the documents that are throttled at their first attempt.
fn bulk(request: &Recorded) -> Answer {
    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut seen = SEEN.lock().unwrap();
    let mut errors = false;
    let items: Vec<Value> = values(request)
        .chunks(2)
        .enumerate()
        .map(|(at, pair)| {
            let id = pair[0]["create"]["_id"].as_str().unwrap();
            let is_new = seen.insert(id.to_owned());
            let status = match (is_new, at % 7) {
                (true, 0) => 429,
                (true, 1) => 409,
                _ => 201,
            };
            errors |= status > 201;
            json!({"create": {"status": status}})
        })
        .collect();
    let answer = json!({"errors": errors, "items": items});
    Answer::new(200, answer.to_string())
}

/// The JSON values of a body, one after the other.
fn values(request: &Recorded) -> Vec<Value> {
    let values = Deserializer::from_slice(&request.body).into_iter();
    values.map(Result::unwrap).collect()
}

fn array(request: &Recorded) -> Vec<Value> {
    serde_json::from_slice(&request.body).unwrap()
}

fn text(value: &Value) -> Value {
    serde_json::from_str(value.as_str().unwrap()).unwrap()
}

#[test]
fn each_sink_delivers_each_document_as_its_receiver_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = AuthOptions {
        events: GeneratorOptions {
            events: EVENTS,
            ..GeneratorOptions::default()
        },
        ..AuthOptions::default()
    };
    let auth = LocalAuth::start(dir.path(), options.clone());
    let sent: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let receiver = Recorder::start(move |request| {
        let place = place(request);
        let sink = &sinks()[place];
        let mut sent = sent.lock().unwrap();
        let count = sent.entry(place.to_string()).or_default();
        *count += 1;
        match sink.refusals.get(*count - 1) {
            Some(refusal) => refusal.clone(),
            None => (sink.accepts)(request),
        }
    });
    let mut text = format!(
        "[teleport]\naddr = \"{}\"\nidentity = \"{}/identity\"\n\
         start-time = \"2026-01-01T00:00:00Z\"\n\
         [store]\npath = \"{}/store\"\n[admin]\nlisten = \"\"\n",
        auth.addr,
        auth.dir.display(),
        dir.path().display(),
    );
    for (place, sink) in sinks().iter().enumerate() {
        text += &format!(
            "[pipelines.p{place}.sink]\nplugin = \"builtin:{}\"\n\
             url = \"http://{}/p{place}\"\n{}\n",
            sink.plugin, receiver.addr, sink.table
        );
    }
    let config = dir.path().join("lockgate.toml");
    fs::write(&config, text).unwrap();
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("every sink has delivered everything", shown, || {
        let status = status(&config);
        (0..sinks().len()).all(|place| books(&status, &format!("p{place}")).delivered == EVENTS)
    });
    host.stop().exits_with(0);

    let log = Generator::new(options.events).json_lines(EVENTS);
    let log: BTreeMap<String, Value> = log
        .map(|line| serde_json::from_str::<Value>(&line).unwrap())
        .map(|event| (event["uid"].as_str().unwrap().to_owned(), event))
        .collect();
    let requests = receiver.requests();
    for (place, sink) in sinks().iter().enumerate() {
        let mut arrived = HashSet::new();
        let its = requests.iter().filter(|it| self::place(it) == place);
        for request in its {
            assert_eq!(request.headers["content-type"], sink.content_type);
            assert_eq!(request.method, "POST");
            let compression = request.headers.get("content-encoding");
            let wanted = compression.map(|name| format!("compression = \"{name}\""));
            assert!(wanted.map_or(!sink.table.contains("compression"), |it| {
                sink.table.contains(&it)
            }));
            for document in (sink.documents)(request) {
                let uid = document["uid"].as_str().unwrap().to_owned();
                if sink.plugin != "slack" {
                    assert_eq!(document, log[&uid], "{}", sink.plugin);
                }
                arrived.insert(uid);
            }
        }
        assert_eq!(arrived.len() as u64, EVENTS, "{}", sink.plugin);
    }
}

/// The pipeline of a request.
fn place(request: &Recorded) -> usize {
    let name = request.path.split(['/', '?']).nth(1).unwrap();
    name.strip_prefix('p').unwrap().parse().unwrap()
}

/// Fluentd refuses all events of an array for the `time` of one.
#[test]
fn odd_times_and_numbers_do_not_cost_fluentd_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--odd", "--events", &EVENTS.to_string()]);
    let is_good = |time: &Value| {
        let time = time.as_str().unwrap_or_default();
        let is_usual = time.starts_with("2026-01-05T") && time.ends_with('Z');
        is_usual && (20..=24).contains(&time.len()) && !time.contains(":60")
    };
    let receiver = Recorder::start(move |request| {
        match array(request).iter().all(|it| is_good(&it["time"])) {
            true => Answer::new(200, ""),
            false => Answer::new(400, "invalid time format"),
        }
    });
    let sink = format!(
        "[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\nurl = \"http://{}/p0\"\n",
        receiver.addr
    );
    let config = configuration(dir.path(), &auth, &sink);
    start_and_finish(&config);
    let options = GeneratorOptions {
        events: EVENTS,
        odd: true,
        ..GeneratorOptions::default()
    };
    let log = Generator::new(options).json_lines(EVENTS);
    let mut log: BTreeMap<String, Value> = log
        .map(|line| serde_json::from_str::<Value>(&line).unwrap())
        .map(|event| (event["uid"].as_str().unwrap().to_owned(), event))
        .collect();
    let mut repaired = 0;
    for request in receiver.requests() {
        for document in array(&request) {
            let mut event = log.remove(document["uid"].as_str().unwrap()).unwrap();
            assert!(is_good(&document["time"]), "no request was refused");
            if event["time"] != document["time"] {
                repaired += 1;
                event["time"] = document["time"].clone();
            }
            if let Some(ratio) = event.get("ratio") {
                // Written in another way, perhaps, and read less than exactly.
                let (sent, read) = (ratio.as_f64().unwrap(), document["ratio"].as_f64().unwrap());
                assert!((sent - read).abs() <= sent.abs() * 1e-12, "{sent} {read}");
                event["ratio"] = document["ratio"].clone();
            }
            assert_eq!(document, event);
        }
    }
    assert!(log.is_empty(), "{} events are lost", log.len());
    assert_eq!(repaired, EVENTS / 16);
}
