//! Tests of the conversion of Structs to JSON.

use proptest::prelude::*;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use super::*;

fn convert(wire: &[u8]) -> Result<String, JsonError> {
    let mut text = String::from("before");
    let result = Converter::new().append(wire, &mut text).map(|_| ());
    let rest = text
        .strip_prefix("before")
        .expect("the existing text stays")
        .to_owned();
    match result {
        Ok(()) => Ok(rest),
        Err(error) => {
            assert_eq!(rest, "", "an error leaves nothing behind");
            Err(error)
        }
    }
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn object(fields: &[(&str, Kind)]) -> Struct {
    Struct {
        fields: fields
            .iter()
            .map(|(key, kind)| ((*key).to_owned(), value(kind.clone())))
            .collect(),
    }
}

fn nested(levels: usize) -> Struct {
    (1..levels).fold(object(&[]), |inner, _| {
        object(&[("a", Kind::StructValue(inner))])
    })
}

/// The expected result: a tree, printed by serde_json.
fn naive(kind: &Option<Kind>) -> serde_json::Value {
    match kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::NumberValue(number)) => {
            let text = if *number == 0.0 && number.is_sign_negative() {
                "-0".to_owned()
            } else if number.trunc() == *number && number.abs() < 9e15 {
                format!("{number}")
            } else {
                ryu_js::Buffer::new().format(*number).to_owned()
            };
            // serde_json would reformat a number, so it becomes a marked string here, whose quotes
            // are removed below.
            format!("\u{1}number{text}\u{1}").into()
        }
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::StructValue(inner)) => tree(inner),
        Some(Kind::ListValue(list)) => list.values.iter().map(|value| naive(&value.kind)).collect(),
    }
}

fn tree(inner: &Struct) -> serde_json::Value {
    inner
        .fields
        .iter()
        .map(|(key, value)| (key.clone(), naive(&value.kind)))
        .collect()
}

fn naive_text(inner: &Struct) -> String {
    tree(inner)
        .to_string()
        .replace("\"\\u0001number", "")
        .replace("\\u0001\"", "")
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let text = prop_oneof![
        "[a-z.]{0,20}",
        any::<String>().prop_map(|text| text.replace('\u{1}', "")),
        Just("a \"quoted\" \\ back\tslash <&> ü \u{2028} \u{7f} \u{1f}".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Kind::NullValue(0)),
        any::<bool>().prop_map(Kind::BoolValue),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(Kind::NumberValue),
        any::<i64>().prop_map(|number| Kind::NumberValue(number as f64)),
        (-100_000i32..100_000).prop_map(|number| Kind::NumberValue(number.into())),
        text.prop_map(Kind::StringValue),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|kinds| Kind::ListValue(
                ListValue {
                    values: kinds.into_iter().map(value).collect()
                }
            )),
            proptest::collection::btree_map("[a-e\"é.]{0,10}", inner, 0..8).prop_map(|map| {
                Kind::StructValue(Struct {
                    fields: map
                        .into_iter()
                        .map(|(key, kind)| (key, value(kind)))
                        .collect(),
                })
            }),
        ]
    })
}

/// The wire form of the fields, in the given order: encoders may choose any.
fn wire_of(fields: &[(String, Kind)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(key, kind)| {
            Struct {
                fields: [(key.clone(), value(kind.clone()))].into(),
            }
            .encode_to_vec()
        })
        .collect()
}

proptest! {
    #[test]
    fn agrees_with_a_tree(fields in proptest::collection::vec(("[a-z_.A-Z\"]{0,14}", any_kind()), 0..30)) {
        let text = convert(&wire_of(&fields)).expect("a well-formed event");
        // Collecting into a map keeps the last of equal keys, too.
        let expected = Struct { fields: fields.into_iter().map(|(key, kind)| (key, value(kind))).collect() };
        prop_assert_eq!(&text, &naive_text(&expected));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn any_bytes_give_json_or_an_error(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(text) = convert(&wire) {
            prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
        }
    }

    #[test]
    fn damaged_events_give_json_or_an_error(
        fields in proptest::collection::vec(("[a-z]{0,9}", any_kind()), 1..9),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut wire = wire_of(&fields);
        let at = at.index(wire.len());
        wire[at] = byte;
        if cut {
            wire.truncate(at);
        }
        if let Ok(text) = convert(&wire) {
            prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
        }
    }

    #[test]
    fn doubles_survive(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
        let text = convert(&object(&[("n", Kind::NumberValue(number))]).encode_to_vec()).expect("a number");
        let digits = text.trim_start_matches("{\"n\":").trim_end_matches('}');
        prop_assert_eq!(digits.parse::<f64>().expect("a number").to_bits(), number.to_bits());
    }
}

#[test]
fn numbers_print_as_protojson_prints_them() {
    for (number, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (2_147_483_647.0, "2147483647"),
        (-42.0, "-42"),
        (9_007_199_254_740_993.0, "9007199254740992"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e300, "1.5e+300"),
    ] {
        let wire = object(&[("n", Kind::NumberValue(number))]).encode_to_vec();
        assert_eq!(convert(&wire), Ok(format!("{{\"n\":{text}}}")));
    }
}

#[test]
fn keys_are_sorted_by_bytes_and_the_last_of_equal_ones_wins() {
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let fields = [
        ("zz", text("1")),
        ("addr.remote", text("2")),
        ("addr.remote_longer", text("3")),
        ("", text("4")),
        ("é", text("5")),
        ("Z", text("6")),
        ("zz", text("7")),
        (
            "addr.local",
            Kind::StructValue(object(&[("b", text("8")), ("a", Kind::NullValue(0))])),
        ),
    ]
    .map(|(key, kind)| (key.to_owned(), kind));
    let expected = concat!(
        r#"{"":"4","Z":"6","addr.local":{"a":null,"b":"8"},"addr.remote":"2","addr.remote_longer":"3","#,
        r#""zz":"7","é":"5"}"#
    );
    assert_eq!(convert(&wire_of(&fields)).as_deref(), Ok(expected));
}

#[test]
fn events_that_json_cannot_represent_are_refused() {
    let not_utf8 = {
        let mut wire = object(&[("k", Kind::StringValue("??".into()))]).encode_to_vec();
        let at = wire
            .iter()
            .position(|&byte| byte == b'?')
            .expect("the text");
        wire[at] = 0xed;
        wire[at + 1] = 0xa0;
        wire
    };
    for (wire, error) in [
        (
            object(&[("n", Kind::NumberValue(f64::NAN))]).encode_to_vec(),
            JsonError::NotFinite,
        ),
        (
            object(&[("n", Kind::NumberValue(f64::INFINITY))]).encode_to_vec(),
            JsonError::NotFinite,
        ),
        (not_utf8, JsonError::NotUtf8),
        (vec![0x0a, 0x05, 0x0a], JsonError::Malformed),
        (nested(DEPTH_MAX + 1).encode_to_vec(), JsonError::TooDeep),
    ] {
        assert_eq!(convert(&wire), Err(error));
    }
    assert!(convert(&nested(DEPTH_MAX).encode_to_vec()).is_ok());
}

#[test]
fn the_fields_a_reader_needs_are_captured() {
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let inner = object(&[("uid", text("inner")), ("code", text("inner"))]);
    let wire = object(&[
        ("uid", text("u-\"1")),
        ("code", text("T1000I")),
        ("sid", Kind::NumberValue(1.0)),
        ("in", Kind::StructValue(inner)),
    ])
    .encode_to_vec();
    let mut json = String::new();
    let captured = Converter::new().append(&wire, &mut json);
    assert_eq!(
        captured,
        Ok(Captured {
            code: "T1000I",
            sid: "",
            user: "",
            uid: "u-\"1",
            unknown_event: ""
        })
    );
}

#[test]
fn a_value_that_is_not_set_reads_as_null() {
    let wire = Struct {
        fields: [("a".to_owned(), Value { kind: None })].into(),
    }
    .encode_to_vec();
    assert_eq!(convert(&wire).as_deref(), Ok(r#"{"a":null}"#));
}
