//! Real files, opened, answered from, replaced and broken.

use std::path::{Path, PathBuf};

use lockgate_lookup::{Databases, Grant, Lookups, Network, NotGranted, Place};
use lockgate_tests::{mmdb, mmdb_bytes};
use serde_json::{Value, json};

fn london() -> Value {
    json!({
        "continent": { "names": { "de": "Europa", "en": "Europe" } },
        "country": { "iso_code": "GB", "names": { "en": "United Kingdom" } },
        "subdivisions": [
            { "iso_code": "ENG", "names": { "en": "England" } },
            { "iso_code": "LND", "names": { "en": "London, City of" } },
        ],
        "city": { "names": { "en": "London" } },
        "location": { "latitude": 51.5142, "longitude": -0.0931, "time_zone": "Europe/London" },
    })
}

fn bhutan() -> Value {
    json!({ "country": { "iso_code": "BT", "names": { "en": "Bhutan" } }, "subdivisions": [{ "names": { "en": "" } }] })
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Directory {
        Directory(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn city(&self) -> PathBuf {
        let file = self.file("city.mmdb");
        mmdb(
            &file,
            "GeoLite2-City",
            &[
                ("192.0.2.0/24", london()),
                ("198.51.100.0/25", bhutan()),
                ("2001:db8::/33", bhutan()),
            ],
        );
        file
    }

    fn asn(&self) -> PathBuf {
        #[derive(serde::Serialize)]
        struct Asn {
            autonomous_system_number: u32,
            #[serde(skip_serializing_if = "Option::is_none")]
            autonomous_system_organization: Option<&'static str>,
        }
        let file = self.file("asn.mmdb");
        let row = |autonomous_system_number, autonomous_system_organization| Asn {
            autonomous_system_number,
            autonomous_system_organization,
        };
        mmdb(
            &file,
            "GeoLite2-ASN",
            &[
                ("192.0.2.0/24", row(64500, Some("Example Net"))),
                ("198.51.100.0/24", row(64501, None)),
            ],
        );
        file
    }
}

fn open(city: Option<&Path>, asn: Option<&Path>) -> Result<Databases, Vec<String>> {
    let grant = Grant {
        city: city.map(Path::to_owned),
        asn: asn.map(Path::to_owned),
        user_agents: false,
    };
    Databases::open(&grant).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn city_of(lookups: &Lookups, ip: &str) -> Option<String> {
    lookups.place_of(ip).unwrap()?.country_name.clone()
}

#[test]
fn places_and_networks_come_from_the_databases() {
    let dir = Directory::new();
    let lookups = open(Some(&dir.city()), Some(&dir.asn())).unwrap().lookups();
    let text = |text: &str| Some(text.to_owned());
    let place = Place {
        continent_name: text("Europe"),
        country_iso_code: text("GB"),
        country_name: text("United Kingdom"),
        region_iso_code: text("GB-LND"),
        region_name: text("London, City of"),
        city_name: text("London"),
        latitude: Some(51.5142),
        longitude: Some(-0.0931),
    };
    for _ in 0..2 {
        assert_eq!(
            lookups.place_of("192.0.2.7").unwrap().as_deref(),
            Some(&place)
        );
        let sparse = Place {
            country_iso_code: text("BT"),
            country_name: text("Bhutan"),
            ..Place::default()
        };
        assert_eq!(
            lookups.place_of("198.51.100.7").unwrap().as_deref(),
            Some(&sparse),
            "unknown fields are absent"
        );
        assert_eq!(city_of(&lookups, "2001:db8::1").as_deref(), Some("Bhutan"));
        assert_eq!(
            city_of(&lookups, "::ffff:192.0.2.9").as_deref(),
            Some("United Kingdom"),
            "mapped into IPv6"
        );
        let network = |number, organization: Option<&str>| Network {
            number: Some(number),
            organization: organization.map(str::to_owned),
        };
        assert_eq!(
            lookups.network_of("192.0.2.1").unwrap().as_deref(),
            Some(&network(64500, Some("Example Net")))
        );
        assert_eq!(
            lookups.network_of("198.51.100.200").unwrap().as_deref(),
            Some(&network(64501, None))
        );
    }
    for unknown in [
        "10.0.0.1",
        "127.0.0.1",
        "::1",
        "198.51.100.200",
        "192.000.002.007",
        "fe80::1%eth0",
        "example.com",
        "",
        "192.0.2.7:80",
    ] {
        assert_eq!(lookups.place_of(unknown).unwrap(), None, "{unknown}");
    }
}

#[test]
fn look_ups_that_are_not_granted_are_refused() {
    let dir = Directory::new();
    let lookups = open(Some(&dir.city()), None).unwrap().lookups();
    assert_eq!(lookups.network_of("192.0.2.1"), Err(NotGranted));
    assert_eq!(lookups.user_agent("curl/8"), Err(NotGranted));
    assert_eq!(Lookups::default().place_of("192.0.2.1"), Err(NotGranted));
    assert_eq!(
        lookups.digests().keys().copied().collect::<Vec<_>>(),
        ["city"]
    );
}

#[test]
fn an_unusable_file_is_named_in_the_error() {
    let dir = Directory::new();
    let (city, asn) = (dir.city(), dir.asn());
    let write = |name: &str, content: &[u8]| {
        let file = dir.file(name);
        std::fs::write(&file, content).unwrap();
        file
    };
    let whole = std::fs::read(&city).unwrap();
    let cut = write("cut.mmdb", &whole[..whole.len() / 2]);
    let text = write("text.mmdb", b"not a database");
    let flat = write(
        "flat.mmdb",
        &mmdb_bytes(
            "ipinfo standard_location.mmdb",
            &[("192.0.2.0/24", json!({ "country": "GB", "city": "London" }))],
        ),
    );
    let missing = dir.file("missing.mmdb");
    // Nobody writes to it: to open it would take for ever.
    let pipe = dir.file("pipe.mmdb");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let not_mmdb = "is not a MaxMind database (`.mmdb`) or is damaged";
    for (file, expected) in [
        (&missing, "cannot be read: No such file"),
        (
            &dir.0.path().to_owned(),
            "cannot be read: it is not a regular file",
        ),
        (&pipe, "cannot be read: it is not a regular file"),
        (&cut, not_mmdb),
        (&text, not_mmdb),
        (
            &asn,
            "is a database of type `GeoLite2-ASN`: its first 2 networks contain no places",
        ),
        (
            &flat,
            "is a database of type `ipinfo standard_location.mmdb`: its first 1 networks contain no places",
        ),
    ] {
        let errors = open(Some(file), None).unwrap_err();
        assert!(
            errors.len() == 1 && errors[0].starts_with(&format!("`{}` {expected}", file.display())),
            "{errors:?}"
        );
    }
    let errors = open(Some(&missing), Some(&city)).unwrap_err();
    assert!(
        errors.len() == 2
            && errors[1]
                .contains("its first 3 networks contain no networks (`autonomous_system_number`)"),
        "{errors:?}"
    );
}

#[test]
fn a_changed_file_is_loaded_once_it_is_stable() {
    let dir = Directory::new();
    let file = dir.city();
    let mut databases = open(Some(&file), None).unwrap();
    let before = databases.lookups();
    let digest = before.digests()["city"].to_owned();
    assert!(databases.refresh().replaced.is_empty());

    mmdb(&file, "GeoIP2-City", &[("192.0.2.0/24", bhutan())]);
    let first = databases.refresh();
    assert!(
        first.replaced.is_empty() && first.failed.is_empty(),
        "it may still be written to"
    );
    let second = databases.refresh();
    let [replaced] = &second.replaced[..] else {
        panic!("{second:?}")
    };
    assert_eq!(
        (replaced.kind.as_str(), replaced.built),
        ("GeoIP2-City", 1_767_225_600)
    );
    let after = databases.lookups();
    assert_eq!(
        (
            replaced.digest.as_str(),
            city_of(&after, "192.0.2.1").as_deref()
        ),
        (after.digests()["city"], Some("Bhutan"))
    );
    assert_eq!(
        city_of(&before, "192.0.2.1").as_deref(),
        Some("United Kingdom"),
        "an older snapshot does not change"
    );
    assert_ne!(digest, replaced.digest);

    // The same content with a new time is the same database.
    mmdb(&file, "GeoIP2-City", &[("192.0.2.0/24", bhutan())]);
    assert!((0..4).all(|_| databases.refresh().replaced.is_empty()));
}

#[test]
fn while_a_file_is_broken_or_missing_the_previous_content_answers() {
    let dir = Directory::new();
    let file = dir.city();
    let mut databases = open(Some(&file), None).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let breakages: [(&str, &dyn Fn()); 2] = [
        ("is not a MaxMind database", &|| {
            std::fs::write(&file, &whole[..100]).unwrap()
        }),
        ("cannot be read: No such file", &|| {
            std::fs::remove_file(&file).unwrap()
        }),
    ];
    for (expected, damage) in breakages {
        damage();
        let reported: Vec<String> = (0..5)
            .flat_map(|_| databases.refresh().failed)
            .map(|error| error.to_string())
            .collect();
        assert!(
            reported.len() == 1 && reported[0].contains(expected),
            "reported once: {reported:?}"
        );
        assert_eq!(
            city_of(&databases.lookups(), "192.0.2.1").as_deref(),
            Some("United Kingdom")
        );
    }
    mmdb(&file, "GeoIP2-City", &[("192.0.2.0/24", bhutan())]);
    let replaced: usize = (0..3).map(|_| databases.refresh().replaced.len()).sum();
    assert_eq!(
        (
            replaced,
            city_of(&databases.lookups(), "192.0.2.1").as_deref()
        ),
        (1, Some("Bhutan")),
        "the repaired file is loaded"
    );
}

/// A damaged database is refused or gives some answer, and never panics.
#[test]
fn a_damaged_database_never_panics() {
    let dir = Directory::new();
    let whole = [
        std::fs::read(dir.city()).unwrap(),
        std::fs::read(dir.asn()).unwrap(),
    ];
    let file = dir.file("damaged.mmdb");
    let (mut state, mut opened) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..3000 {
        let mut bytes = whole[round % 2].clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        if random(4) == 0 {
            bytes.truncate(random(bytes.len()) + 1);
        }
        std::fs::write(&file, &bytes).unwrap();
        let (city, asn) = if round % 2 == 0 {
            (Some(&*file), None)
        } else {
            (None, Some(&*file))
        };
        let Ok(databases) = open(city, asn) else {
            continue;
        };
        opened += 1;
        for ip in ["192.0.2.7", "198.51.100.7", "2001:db8::1", "10.0.0.1", "::"] {
            let _ = (
                databases.lookups().place_of(ip),
                databases.lookups().network_of(ip),
            );
        }
    }
    assert!(
        opened > 300,
        "some damaged files are opened, so that look-ups are tested too: {opened}"
    );
}
