//! The rules of `GetUnstructuredEvents` as observed on a real server (13.3.8, file backend).

use lockgate_teleport::proto::auditlog::EventsUnstructured;
use prost::Message;
use tonic::Code;

use super::*;
use crate::generate::GeneratorOptions;

/// 20 s of event time between two events: 12,000 events are about 2.8 days.
fn log() -> Generator {
    Generator::new(GeneratorOptions {
        events: 12_000,
        event_rate: 0.05,
        ..GeneratorOptions::default()
    })
}

fn at(time: Millis) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: time.div_euclid(1000),
        nanos: time.rem_euclid(1000) as i32 * 1_000_000,
    })
}

/// The window from position `first` to position `last`, both inclusive.
fn window(log: &Generator, first: u64, last: u64) -> GetUnstructuredEventsRequest {
    GetUnstructuredEventsRequest {
        start_date: at(log.time(first)),
        end_date: at(log.time(last)),
        limit: 5_000,
        ..Default::default()
    }
}

/// Positions of the events in a page, and its key.
fn page(
    log: &Generator,
    request: &GetUnstructuredEventsRequest,
) -> Result<(Vec<u64>, String), (Code, String)> {
    let page = Search::default().page(log, log.count(), request);
    let page = page.map_err(|status| (status.code(), status.message().to_owned()))?;
    let read = EventsUnstructured::decode(page.message.as_slice()).expect("a page");
    assert_eq!(page.events, read.items.len() as u64);
    let positions = read
        .items
        .iter()
        .map(|item| log.position_of(&item.id).expect("a uid of this log"));
    Ok((positions.collect(), read.last_key))
}

fn positions(log: &Generator, request: &GetUnstructuredEventsRequest) -> Vec<u64> {
    page(log, request).expect("a page").0
}

#[test]
fn invalid_requests_are_refused_with_the_observed_messages() {
    let log = log();
    let base = window(&log, 0, 10);
    let day = Day::MILLIS;
    for (request, expected) in [
        (
            GetUnstructuredEventsRequest {
                limit: 10_001,
                ..base.clone()
            },
            "limit 10001 exceeds max iteration limit 1000",
        ),
        (
            GetUnstructuredEventsRequest {
                order: 7,
                ..base.clone()
            },
            "invalid event order: 7",
        ),
        (
            GetUnstructuredEventsRequest {
                end_date: at(log.time(0) - day),
                ..base.clone()
            },
            "invalid days",
        ),
        (
            GetUnstructuredEventsRequest {
                end_date: None,
                ..base.clone()
            },
            "invalid days",
        ),
    ] {
        assert_eq!(
            page(&log, &request),
            Err((Code::InvalidArgument, expected.to_owned()))
        );
    }
}

#[test]
fn windows_include_both_ends() {
    let log = log();
    assert_eq!(
        positions(&log, &window(&log, 100, 103)),
        [100, 101, 102, 103]
    );
    assert_eq!(positions(&log, &window(&log, 100, 100)), [100]);
    let short_of = GetUnstructuredEventsRequest {
        end_date: at(log.time(103) - 1),
        ..window(&log, 100, 103)
    };
    assert_eq!(positions(&log, &short_of), [100, 101, 102]);
    let after = Timestamp {
        nanos: at(log.time(100)).unwrap().nanos + 1,
        ..at(log.time(100)).unwrap()
    };
    let after = GetUnstructuredEventsRequest {
        start_date: Some(after),
        ..window(&log, 100, 102)
    };
    assert_eq!(
        positions(&log, &after),
        [101, 102],
        "a nanosecond after the event"
    );
    let backwards = GetUnstructuredEventsRequest {
        end_date: at(log.time(100) - 1000),
        ..window(&log, 100, 100)
    };
    assert_eq!(
        page(&log, &backwards),
        Ok((vec![], String::new())),
        "an end before the start, by less than a day"
    );
    let everything = GetUnstructuredEventsRequest {
        start_date: None,
        limit: 3,
        ..window(&log, 0, 50)
    };
    assert_eq!(
        positions(&log, &everything),
        [0, 1, 2],
        "the start defaults to the epoch"
    );
}

#[test]
fn order_is_inverted_on_the_wire() {
    let log = log();
    let newest_first = GetUnstructuredEventsRequest {
        order: 1,
        limit: 2,
        ..window(&log, 100, 103)
    };
    let (found, key) = page(&log, &newest_first).expect("a page");
    assert_eq!(found, [103, 102]);
    let next = GetUnstructuredEventsRequest {
        start_key: key,
        limit: 10,
        ..newest_first
    };
    assert_eq!(page(&log, &next), Ok((vec![101, 100], String::new())));
}

#[test]
fn limits_default_to_500_and_pages_stay_below_one_mebibyte() {
    let log = log();
    for limit in [0, -3] {
        let request = GetUnstructuredEventsRequest {
            limit,
            ..window(&log, 0, 4_000)
        };
        assert_eq!(positions(&log, &request).len(), 500, "limit {limit}");
    }
    let request = GetUnstructuredEventsRequest {
        limit: 10_000,
        ..window(&log, 0, 9_000)
    };
    let message = Search::default()
        .page(&log, log.count(), &request)
        .expect("a page")
        .message;
    let page = EventsUnstructured::decode(message.as_slice()).expect("a page");
    assert!(
        (900..1_400).contains(&page.items.len()),
        "{} events",
        page.items.len()
    );
    assert_eq!(
        log.position_of(&page.last_key),
        Some(page.items.len() as u64 - 1)
    );
}

#[test]
fn a_page_filled_exactly_has_a_key_and_the_next_is_empty() {
    let log = log();
    let request = GetUnstructuredEventsRequest {
        limit: 4,
        ..window(&log, 100, 103)
    };
    let (found, key) = page(&log, &request).expect("a page");
    assert_eq!((found.len(), &*key), (4, &*log.uid(103)));
    let next = GetUnstructuredEventsRequest {
        start_key: key,
        ..request.clone()
    };
    assert_eq!(page(&log, &next), Ok((vec![], String::new())));
    let roomy = GetUnstructuredEventsRequest {
        limit: 5,
        ..request
    };
    assert_eq!(page(&log, &roomy).expect("a page").1, "");
}

#[test]
fn following_the_keys_gives_every_event_once() {
    let log = log();
    let mut request = window(&log, 0, log.count() - 1);
    let (search, mut found) = (Search::default(), Vec::new());
    loop {
        let message = search
            .page(&log, log.count(), &request)
            .expect("a page")
            .message;
        let page = EventsUnstructured::decode(message.as_slice()).expect("a page");
        found.extend(
            page.items
                .iter()
                .map(|item| log.position_of(&item.id).expect("a uid")),
        );
        if page.last_key.is_empty() {
            break;
        }
        request.start_key = page.last_key;
    }
    assert!(found.into_iter().eq(0..log.count()));
}

#[test]
fn a_key_the_server_does_not_find_ends_the_log_without_an_error() {
    let log = log();
    let nothing = Ok((vec![], String::new()));
    let day = Day::of(log.time(0));
    let second = log.positions_on(Day(day.0 + 1));
    let base = window(&log, second.start + 10, second.start + 20);
    let keyed = |start_key: String| GetUnstructuredEventsRequest {
        start_key,
        ..base.clone()
    };
    assert_eq!(page(&log, &keyed("no such key".to_owned())), nothing);
    assert_eq!(
        page(&log, &keyed(log.uid(second.start - 1))),
        nothing,
        "from the day before the window"
    );
    assert_eq!(
        positions(&log, &keyed(log.uid(second.start))).len(),
        11,
        "from the window's day, before its start"
    );
    assert_eq!(positions(&log, &keyed(log.uid(second.start + 15))).len(), 5);
    let other_type = GetUnstructuredEventsRequest {
        event_types: vec!["no.such.type".to_owned()],
        ..keyed(log.uid(second.start + 15))
    };
    assert_eq!(page(&log, &other_type), nothing);
}

#[test]
fn types_match_exactly_and_empty_ones_do_not_count() {
    let log = log();
    let typed = |types: &[&str]| {
        let event_types = types.iter().map(|name| (*name).to_owned()).collect();
        positions(
            &log,
            &GetUnstructuredEventsRequest {
                event_types,
                ..window(&log, 0, 600)
            },
        )
        .len()
    };
    let (logins, certificates) = (typed(&["user.login"]), typed(&["cert.create"]));
    assert!(logins > 0 && certificates > 0);
    assert_eq!(
        typed(&["user.login", "cert.create", ""]),
        logins + certificates
    );
    assert_eq!(typed(&["user", "unknown.type"]), 0);
    assert_eq!(typed(&[""]), 601);
}

#[test]
fn only_events_that_have_appeared_are_found() {
    let log = log();
    let message = Search::default()
        .page(&log, 102, &window(&log, 100, 110))
        .expect("a page")
        .message;
    assert_eq!(
        EventsUnstructured::decode(message.as_slice())
            .expect("a page")
            .items
            .len(),
        2
    );
}

#[test]
fn an_event_larger_than_a_page_gives_an_empty_page_without_a_key() {
    let log = Generator::new(GeneratorOptions {
        events: 100,
        oversized: vec![50],
        ..GeneratorOptions::default()
    });
    let mut request = window(&log, 40, 99);
    let (found, key) = page(&log, &request).expect("a page");
    assert_eq!((found.last(), &*key), (Some(&49), &*log.uid(49)));
    request.start_key = key;
    assert_eq!(page(&log, &request), Ok((vec![], String::new())));
}
