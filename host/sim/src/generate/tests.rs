//! Tests of the generated events.

use std::collections::BTreeMap;

use prost::Message;
use sha2::{Digest, Sha256};

use super::*;

/// Like `lockgate_teleport::proto`, but with the payload as a Struct, as in Teleport's own proto
/// file.
#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(message, optional, tag = "3")]
    time: Option<prost_types::Timestamp>,
    #[prost(int64, tag = "4")]
    index: i64,
    #[prost(message, optional, tag = "5")]
    payload: Option<prost_types::Struct>,
}

fn generator(events: u64) -> Generator {
    Generator::new(GeneratorOptions {
        events,
        ..GeneratorOptions::default()
    })
}

fn chunk_bytes(generator: &Generator, number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut events = generator.chunk(number);
    while events.write(&mut out).is_some() {}
    out
}

#[test]
fn the_same_seed_gives_the_same_bytes_in_every_release() {
    let lines: String = generator(6_000).json_lines(6_000).collect();
    let digest: String = Sha256::digest(lines.as_bytes())
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        digest, "bcdea2cb1e434519",
        "a change here changes every benchmark and the meaning of every `--seed`"
    );
}

#[test]
fn chunks_do_not_depend_on_the_order_in_which_they_are_written() {
    let generator = generator(20_000);
    let forwards: Vec<_> = (0..4)
        .map(|number| chunk_bytes(&generator, number))
        .collect();
    for number in (0..4).rev() {
        assert!(
            chunk_bytes(&self::generator(20_000), number) == forwards[number as usize],
            "chunk {number}"
        );
    }
    assert!(forwards[0] != forwards[1]);
    assert!(chunk_bytes(&generator, 4).is_empty());
    let other = Generator::new(GeneratorOptions {
        seed: 43,
        ..generator.options().clone()
    });
    assert!(chunk_bytes(&other, 0) != forwards[0]);
}

#[test]
fn writing_can_begin_at_any_position() {
    let generator = generator(7_000);
    let (mut whole, mut late) = (Vec::new(), Vec::new());
    let mut events = generator.chunk(1);
    for _ in 0..1_234 {
        whole.clear();
        events.write(&mut whole);
    }
    generator.from(CHUNK + 1_233).write(&mut late);
    assert!(whole == late);
}

#[test]
fn the_wire_bytes_are_events_that_agree_with_their_payload() {
    let generator = generator(12_000);
    let mut out = Vec::new();
    let mut before = i64::MIN;
    for number in 0..3 {
        let mut events = generator.chunk(number);
        loop {
            out.clear();
            let position = events.position();
            let Some(name) = events.write(&mut out) else {
                break;
            };
            let event = Event::decode(out.as_slice())
                .unwrap_or_else(|error| panic!("event {position}: {error}"));
            let json: serde_json::Value = serde_json::from_str(&json_of(&out))
                .unwrap_or_else(|error| panic!("{position}: {error}"));
            assert_eq!(event.kind, name);
            assert_eq!(json["event"], name);
            assert_eq!(json["uid"], *event.id);
            assert_eq!(json["ei"], event.index);
            assert_eq!(generator.position_of(&event.id), Some(position));
            assert_eq!(generator.uid(position), event.id);
            let time = event.time.expect("a time");
            let millis = time.seconds * 1000 + i64::from(time.nanos) / 1_000_000;
            assert_eq!(millis, generator.time(position));
            assert_eq!(
                json["time"]
                    .as_str()
                    .and_then(|text| text.parse::<jiff::Timestamp>().ok())
                    .map(|t| t.as_millisecond()),
                Some(millis)
            );
            assert!(millis >= before, "time fell at {position}");
            before = millis;
            let payload = event.payload.expect("a payload");
            assert_eq!(
                payload.fields.len(),
                json.as_object().expect("an object").len(),
                "a field of {name} was written twice"
            );
        }
    }
}

#[test]
fn types_and_sizes_are_those_of_a_busy_organisation() {
    let count = 40_000;
    let (mut bytes, mut mix) = (0, BTreeMap::<String, u64>::new());
    for line in generator(count).json_lines(count) {
        bytes += line.len() as u64;
        let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        *mix.entry(event["event"].as_str().unwrap_or_default().to_owned())
            .or_default() += 1;
    }
    let mean = bytes / count;
    assert!((800..=1_050).contains(&mean), "mean size {mean} B");
    assert!((38..=45).contains(&mix.len()), "{} types", mix.len());
    assert!(!mix.contains_key("print"));
    for (event, percent) in [
        ("cert.create", 12.4),
        ("kube.request", 11.0),
        ("db.session.query", 10.0),
        ("user.login", 7.5),
        ("app.session.request", 5.9),
        ("session.start", 5.0),
        ("session.end", 4.5),
        ("session.upload", 4.5),
        ("exec", 3.4),
        ("session.leave", 2.3),
        ("access_request.create", 1.0),
    ] {
        let found = 100.0 * mix[event] as f64 / count as f64;
        assert!(
            (found - percent).abs() < 0.25 * percent,
            "{event}: {found} %, expected about {percent} %"
        );
    }
}

#[test]
fn awkward_content_occurs() {
    let text: Vec<String> = generator(20_000).json_lines(20_000).collect();
    for needle in [
        "\u{1F525}",
        "\\ud83d\\udd25",
        "\\n",
        "<script>",
        ":null",
        "\"addr.remote\"",
        "\"ei\":2147483647",
        "\"cgroup_id\":42949",
        "zo\u{eb}@",
    ] {
        assert!(
            text.iter().any(|line| line.contains(needle)),
            "{needle} does not occur"
        );
    }
}

#[test]
fn every_upload_names_a_session_whose_recording_can_be_streamed() {
    let generator = generator(3_000);
    let mut seen = 0;
    for line in generator.json_lines(3_000) {
        let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        if event["event"] != "session.upload" {
            continue;
        }
        seen += 1;
        let sid = event["sid"].as_str().expect("a sid");
        let recording = generator.recording(sid).expect("a recording");
        let events: Vec<Event> = recording
            .iter()
            .map(|bytes| Event::decode(bytes.as_slice()).expect("an event"))
            .collect();
        assert!(
            events
                .iter()
                .map(|event| event.index)
                .eq(0..events.len() as i64),
            "indexes are consecutive"
        );
        assert_eq!(
            events.first().map(|event| &*event.kind),
            Some("session.start")
        );
        assert_eq!(events.last().map(|event| &*event.kind), Some("session.end"));
        assert!(
            events
                .windows(2)
                .all(|pair| pair[0].time.unwrap().seconds <= pair[1].time.unwrap().seconds)
        );
        for (event, bytes) in events.iter().zip(&recording) {
            let json: serde_json::Value = serde_json::from_str(&json_of(bytes)).expect("JSON");
            assert_eq!(json["sid"], sid);
            if event.kind == "print" {
                assert!(json.get("uid").is_none());
                assert_eq!(event.id.len(), 64);
                assert_eq!(
                    json["data"].as_str().map(|data| data.len() as u64),
                    json["bytes"].as_u64().map(|len| len.div_ceil(3) * 4)
                );
            }
        }
        assert_eq!(generator.recording(sid), Some(recording));
    }
    assert!(seen > 50, "{seen} uploads");
    assert_eq!(
        generator.recording("7d0c2e4e-2b4c-4d8e-9a55-0f6a7c1e2d3b"),
        None
    );
}

#[test]
fn positions_are_found_by_time() {
    let generator = Generator::new(GeneratorOptions {
        events: 10_000,
        event_rate: 0.05,
        ..GeneratorOptions::default()
    });
    let first = Day::of(START);
    let mut next = 0;
    for day in first.0..=Day::of(generator.time(9_999)).0 {
        let range = generator.positions_on(Day(day));
        assert_eq!(range.start, next, "day {day}");
        assert!(
            range
                .clone()
                .all(|position| Day::of(generator.time(position)) == Day(day))
        );
        next = range.end;
    }
    assert_eq!(next, 10_000);
    assert!(generator.positions_on(Day(first.0 - 1)).is_empty());
    assert_eq!(generator.position_at(i64::MIN), 0);
    assert_eq!(generator.position_at(i64::MAX), 10_000);
}

#[test]
fn selected_events_contain_nan_or_are_larger_than_a_page() {
    let generator = Generator::new(GeneratorOptions {
        events: 30,
        not_json: vec![20],
        oversized: vec![21],
        ..GeneratorOptions::default()
    });
    let mut events = generator.chunk(0);
    let mut sizes = Vec::new();
    for position in 0..30 {
        let mut out = Vec::new();
        events.write(&mut out);
        let payload = Event::decode(out.as_slice())
            .expect("an event")
            .payload
            .expect("a payload");
        let broken =
            payload.fields.values().any(|value| matches!(value.kind, Some(prost_types::value::Kind::NumberValue(n)) if n.is_nan()));
        assert_eq!(broken, position == 20, "{position}");
        sizes.push(out.len());
    }
    assert!(sizes[21] > 1 << 20 && sizes[22] < 1 << 16);
}

#[test]
fn odd_events_have_times_and_numbers_at_the_edges_and_the_others_stay_as_they_are() {
    let usual = GeneratorOptions {
        events: 300,
        ..GeneratorOptions::default()
    };
    let odd = GeneratorOptions {
        odd: true,
        ..usual.clone()
    };
    let lines = |options| Generator::new(options).json_lines(300);
    let mut found = std::collections::BTreeSet::new();
    for (position, (usual, odd)) in lines(usual).zip(lines(odd)).enumerate() {
        assert_eq!(usual != odd, position % 16 == 15, "{position}");
        if usual != odd {
            let odd: serde_json::Value = serde_json::from_str(&odd).expect("it is JSON");
            found.insert(odd["time"].as_str().expect("a text").to_owned());
        }
    }
    assert_eq!(found.len(), ODD_VALUES.len());
}
