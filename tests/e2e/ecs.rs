//! The ECS mapper as its user meets it: compiled, run by the host, with look-ups answered by real
//! databases.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use lockgate_tests::{lockgate, mmdb, root};
use serde_json::{Value, json};

/// Events in, documents out.
fn run(with: &Value, databases: Option<[&Path; 2]>, events: &Path) -> Vec<Value> {
    let mut command = lockgate();
    command.args(["plugin", "run", "builtin:ecs", "--with", &with.to_string()]);
    if let Some([city, asn]) = databases {
        command
            .arg("--lookup-city")
            .arg(city)
            .arg("--lookup-asn")
            .arg(asn);
    }
    let output = command
        .stdin(Stdio::from(std::fs::File::open(events).unwrap()))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

/// Test data of other projects, which this repository must not contain.
fn shared() -> Option<PathBuf> {
    let directory = std::env::var_os("LOCKGATE_SHARED")
        .map_or_else(|| root().join("../shared"), PathBuf::from)
        .join("data");
    if directory.join("ecs-golden").is_dir() {
        return Some(directory);
    }
    let test = std::thread::current();
    // Written to the stream itself: what `println!` writes is shown for failing tests only.
    let _ = writeln!(
        std::io::stderr(),
        "test {} was skipped: `{}` does not exist",
        test.name().unwrap_or_default(),
        directory.join("ecs-golden").display()
    );
    None
}

#[test]
fn the_host_produces_every_document_of_elastics_own_tests() {
    let Some(shared) = shared() else { return };
    let golden = |name: &str| shared.join("ecs-golden").join(name);
    let geoip = |name: &str| shared.join("geoip").join(name);
    let (city, asn) = (geoip("GeoLite2-City.mmdb"), geoip("GeoLite2-ASN.mmdb"));
    let log = golden("test-teleport-all-events.log");
    let with = json!({ "compat": "0.1.0", "preserve-original": true });
    let documents = run(&with, Some([&city, &asn]), &log);

    let expected =
        std::fs::read_to_string(golden("test-teleport-all-events.log-expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let expected = expected["expected"].as_array().unwrap();
    assert_eq!((documents.len(), expected.len()), (242, 242));
    let wrong: Vec<_> = documents
        .iter()
        .zip(expected)
        .enumerate()
        .filter(|(_, (document, expected))| document != expected)
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of 242 differ, the first is {:#?}",
        wrong.len(),
        wrong[0]
    );
    let with_place = documents
        .iter()
        .filter(|document| document.to_string().contains("\"geo\":"))
        .count();
    assert!(with_place > 50, "look-ups had a part in it: {with_place}");
}

#[test]
fn documents_are_printed_one_a_line_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    mmdb(
        &file("city.mmdb"),
        "GeoLite2-City",
        &[(
            "192.0.2.0/24",
            json!({ "country": { "names": { "en": "Austria" } } }),
        )],
    );
    mmdb(
        &file("asn.mmdb"),
        "GeoLite2-ASN",
        &[(
            "192.0.2.0/24",
            json!({ "autonomous_system_organization": "Example Net" }),
        )],
    );
    let line = |uid: usize| {
        format!(
            r#"{{"event":"user.login","code":"T1000I","uid":"u-{uid}","user":"bob","addr.remote":"192.0.2.{}:1","user_agent":"Go-http-client/1.1"}}"#,
            uid % 250
        )
    };
    let lines: Vec<String> = (0..1200).map(line).collect();
    std::fs::write(file("events.ndjson"), lines.join("\n")).unwrap();

    let databases = Some([&*file("city.mmdb"), &*file("asn.mmdb")]);
    let documents = run(
        &json!({ "preserve-original": true }),
        databases,
        &file("events.ndjson"),
    );
    assert_eq!(documents.len(), 1200);
    for (number, document) in documents.iter().enumerate() {
        assert_eq!(document["event"]["id"], format!("u-{number}"));
        assert_eq!(document["event"]["original"], lines[number]);
        assert_eq!(document["tags"], json!(["preserve_original_event"]));
        assert_eq!(
            document["client"]["geo"],
            json!({ "country_name": "Austria" })
        );
        assert_eq!(
            document["client"]["as"],
            json!({ "organization": { "name": "Example Net" } })
        );
        assert_eq!(document["user_agent"]["name"], "Go-http-client");
    }

    let plain = run(&json!({}), None, &file("events.ndjson"));
    assert_eq!(plain.len(), 1200);
    for document in &plain {
        assert!(
            document["event"].get("original").is_none() && document.get("tags").is_none(),
            "{document}"
        );
        assert!(
            document["client"].get("geo").is_none() && document["client"].get("as").is_none(),
            "{document}"
        );
        assert_eq!(
            document["user_agent"]["version"], "1.1",
            "user agents need no file"
        );
    }
}
