//! Databases that components look things up in, and their replacement.

use std::path::Path;

use lockgate_tests::{
    Auth, ReceiverProcess, books, configuration, endpoint, mmdb, quickstart, start,
    start_and_finish, status, until,
};
use serde_json::{Value, json};

const STAGE: &str = "
[[pipelines.main.stage]]
plugin = \"builtin:ecs\"
";

/// A database in which every address is in one country.
fn country(file: &Path, name: &str) {
    let place = json!({ "country": { "names": { "en": name } } });
    mmdb(
        file,
        "GeoLite2-City",
        &[
            ("0.0.0.0/1", place.clone()),
            ("128.0.0.0/1", place.clone()),
            ("2000::/3", place),
        ],
    );
}

/// Countries of the documents that arrived, in the order in which they did, each once.
fn countries(captured: &Path) -> Vec<String> {
    let mut countries = Vec::new();
    for line in std::fs::read_to_string(captured)
        .unwrap_or_default()
        .lines()
    {
        // The last line may be half written.
        let Ok(document) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let Some(country) = document
            .pointer("/client/geo/country_name")
            .and_then(Value::as_str)
        else {
            continue;
        };
        if !countries.iter().any(|known| known == country) {
            countries.push(country.to_owned());
        }
    }
    countries
}

#[test]
fn a_replaced_database_is_used_and_begins_a_new_generation() {
    let dir = tempfile::tempdir().unwrap();
    let (database, captured) = (
        dir.path().join("city.mmdb"),
        dir.path().join("captured.ndjson"),
    );
    country(&database, "Bhutan");
    let auth = Auth::start(dir.path(), &["--events", "100000", "--rate", "300"]);
    let receiver = ReceiverProcess::start(dir.path(), &["--capture", captured.to_str().unwrap()]);
    let config = quickstart(
        dir.path(),
        &auth,
        &receiver,
        &format!("{STAGE}\n[lookup]\ncity = \"city.mmdb\"\n"),
    );
    let host = start(&config, &[]);
    until(
        "a document has the first country",
        || host.stderr(),
        || countries(&captured) == ["Bhutan"],
    );
    let generation = |status: &Value| {
        let main = &status["pipelines"]["main"];
        (
            main["generation"].as_u64().unwrap(),
            main["description"]["lookup"]["city"]
                .as_str()
                .unwrap()
                .to_owned(),
        )
    };
    let (first, digest) = generation(&status(&config));
    assert_eq!((first, digest.len()), (1, 64));

    // A broken one is reported and changes nothing.
    std::fs::write(&database, "not a database").unwrap();
    let line = host.line_with(
        "the database granted as `city` has changed and cannot be used; keeping the previous one",
    );
    assert!(
        line.contains("city.mmdb` is not a MaxMind database"),
        "{line}"
    );
    assert_eq!(generation(&status(&config)), (1, digest.clone()));

    country(&database, "Austria");
    host.line_with(
        "the database granted as `city` was replaced by a `GeoLite2-City` of 2026-01-01",
    );
    until(
        "a document has the second country",
        || host.stderr(),
        || countries(&captured) == ["Bhutan", "Austria"],
    );
    let (second, replaced) = generation(&status(&config));
    assert!(second == 2 && replaced != digest, "{second} {replaced}");
    host.stop();
    receiver.stop();
}

#[test]
fn a_pipeline_whose_database_is_missing_does_not_start_and_the_others_do() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "500"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let sink = |path: &str| {
        format!(
            "plugin = \"builtin:fluentd\"\n{}\n",
            endpoint(&receiver.addr, &receiver.dir, path)
        )
    };
    let pipelines = format!(
        "[lookup]\ncity = \"city.mmdb\"\n\n[pipelines.main.sink]\n{}\n[[pipelines.ecs.stage]]\nplugin = \"builtin:ecs\"\n[pipelines.ecs.sink]\n{}",
        sink("main"),
        sink("ecs")
    );
    let config = configuration(dir.path(), &auth, &pipelines);
    let ended = start(&config, &["--exit-on-last-event"])
        .ended()
        .exits_with(1);
    for text in [
        "city.mmdb` cannot be read: No such file",
        "city = \"city.mmdb\"",
        "1 pipeline could not start",
    ] {
        assert!(
            ended.stderr.contains(text),
            "no `{text}` in:\n{}",
            ended.stderr
        );
    }
    let delivered = |status: &Value, name: &str| books(status, name).delivered;
    let before = status(&config);
    assert_eq!(
        (delivered(&before, "main"), delivered(&before, "ecs")),
        (500, 0)
    );
    assert!(
        before["pipelines"]["main"]["description"]
            .get("lookup")
            .is_none(),
        "it looks nothing up: {before}"
    );

    // The events have waited for it.
    country(&dir.path().join("city.mmdb"), "Austria");
    start_and_finish(&config);
    let after = status(&config);
    assert_eq!(
        (delivered(&after, "main"), delivered(&after, "ecs")),
        (500, 500)
    );
    assert_eq!(receiver.stop().documents, 1000);
}
