//! Tests of the check of a mapper's documents.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

#[test]
fn line_breaks_between_tokens_are_removed_and_escaped_ones_stay() {
    let mut document = "{\r\n  \"a\": \"x\\ny\",\n\"b\":[\n1]\n}\n".to_owned();
    check_object(&document).unwrap();
    put_on_one_line(&mut document);
    assert_eq!(document, r#"{  "a": "x\ny","b":[1]}"#);
}

#[test]
fn invalid_documents_are_refused_with_their_cause() {
    let nested = |depth: usize| {
        format!(
            "{{\"a\":{}1{}}}",
            "[".repeat(depth - 1),
            "]".repeat(depth - 1)
        )
    };
    for (text, fault) in [
        (r#""#, DocumentError::NotAnObject),
        (r#"[]"#, DocumentError::NotAnObject),
        (r#""text""#, DocumentError::NotAnObject),
        (r#"{"#, DocumentError::Ends),
        (r#"{"a":tru"#, DocumentError::Ends),
        (r#"{"a":1,}"#, DocumentError::Unexpected(7)),
        (r#"{"a":[1,]}"#, DocumentError::Unexpected(8)),
        (r#"{"a":[1}"#, DocumentError::Unexpected(7)),
        (r#"{"a" 1}"#, DocumentError::Unexpected(5)),
        (r#"{a:1}"#, DocumentError::Unexpected(1)),
        (r#"{"a":nul1}"#, DocumentError::Unexpected(5)),
        (r#"{"a":1}{"b":2}"#, DocumentError::Trailing(7)),
        ("{\"a\":\"x\ny\"}", DocumentError::Control(7)),
        (r#"{"a":"\x"}"#, DocumentError::Escape(6)),
        (r#"{"a":"\u12g4"}"#, DocumentError::Escape(6)),
        (r#"{"a":"\ud800"}"#, DocumentError::LoneSurrogate(6)),
        (r#"{"a":"\ud800\ud800"}"#, DocumentError::LoneSurrogate(6)),
        (r#"{"a":"\ud800\n"}"#, DocumentError::LoneSurrogate(6)),
        (r#"{"a":"\udc00"}"#, DocumentError::LoneSurrogate(6)),
        (r#"{"\udbff":1}"#, DocumentError::LoneSurrogate(2)),
        (r#"{"a":01}"#, DocumentError::Number(5)),
        (r#"{"a":-}"#, DocumentError::Number(5)),
        (r#"{"a":1.}"#, DocumentError::Number(5)),
        (r#"{"a":1e}"#, DocumentError::Number(5)),
        (
            r#"{"a":1,"b":2,"a":3}"#,
            DocumentError::KeyTwice("a".into()),
        ),
        (r#"{"a":1,"\u0061":2}"#, DocumentError::KeyTwice("a".into())),
        (
            r#"{"x":{"😀":1,"\ud83d\ude00":2}}"#,
            DocumentError::KeyTwice("😀".into()),
        ),
        (&nested(DEPTH_MAX + 1), DocumentError::Depth),
    ] {
        assert_eq!(check_object(text), Err(fault), "{text}");
    }
    for text in [
        "{}",
        " \r\n\t{ } ",
        r#"{"a":{"a":1},"b":{"a":1},"c":[{"a":1},{"a":2}]}"#,
        r#"{"z":1,"a":-0.5e+10,"m":[],"e":{},"n":null,"t":true,"f":false,"":"\"\\\/\b\f\n\r\t\u0000😀\ud83d\ude00"}"#,
        &nested(DEPTH_MAX),
    ] {
        assert_eq!(check_object(text), Ok(()), "{text}");
    }
}

/// In quadratic time this would take minutes.
#[test]
fn two_hundred_thousand_unsorted_keys_are_checked() {
    let keys: Vec<String> = (0..200_000)
        .map(|n: u64| format!("\"k{}\":1", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    assert_eq!(check_object(&format!("{{{}}}", keys.join(","))), Ok(()));
}

/// A JSON value, possibly with duplicate keys, odd spaces and odd escapes.
fn value() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        r#"[a-c"\\/éا😀 ]{0,12}"#.prop_map(|text| serde_json::to_string(&text).unwrap()),
        proptest::collection::vec(
            prop_oneof![
                Just(r"\u0061"),
                Just(r"\ud83d\ude00"),
                Just(r"\ud83d"),
                Just(r"\n"),
                Just("a")
            ],
            0..4
        )
        .prop_map(|parts| format!("\"{}\"", parts.concat())),
    ];
    let leaf = prop_oneof![
        string.clone(),
        any::<f64>().prop_map(|number| Value::from(number).to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        prop_oneof![
            Just("null"),
            Just("true"),
            Just("false"),
            Just("01"),
            Just("1e5"),
            Just("-"),
            Just("")
        ]
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(6, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(" , "))),
            proptest::collection::vec((string.clone(), inner), 0..5).prop_map(|fields| {
                format!(
                    "{{{}}}",
                    fields
                        .iter()
                        .map(|(key, value)| format!("{key}: {value}"))
                        .collect::<Vec<_>>()
                        .join(",")
                )
            }),
        ]
    })
}

/// Whether serde accepts the text. Objects are parsed into pairs, to find duplicate keys.
fn serde_accepts(text: &str) -> bool {
    use serde_json::value::RawValue;
    struct Pairs(Vec<(String, Box<RawValue>)>);
    impl<'de> serde::Deserialize<'de> for Pairs {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Pairs;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Pairs, A::Error> {
                    let mut pairs = Vec::new();
                    while let Some(pair) = map.next_entry()? {
                        pairs.push(pair);
                    }
                    Ok(Pairs(pairs))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    fn unique(text: &str) -> bool {
        if let Ok(Pairs(pairs)) = serde_json::from_str::<Pairs>(text) {
            let mut keys: Vec<_> = pairs.iter().map(|(key, _)| key).collect();
            keys.sort();
            return keys.windows(2).all(|pair| pair[0] != pair[1])
                && pairs.iter().all(|(_, value)| unique(value.get()));
        }
        match serde_json::from_str::<Vec<Box<RawValue>>>(text) {
            Ok(items) => items.iter().all(|item| unique(item.get())),
            Err(_) => true,
        }
    }
    // `Value` decodes every string, so it refuses lone surrogates.
    matches!(serde_json::from_str::<Value>(text), Ok(Value::Object(_))) && unique(text)
}

proptest! {
    #[test]
    fn agrees_with_serde_on_generated_values(text in value()) {
        prop_assert_eq!(check_object(&text).is_ok(), serde_accepts(&text), "{}", text);
    }

    #[test]
    fn agrees_with_serde_on_damaged_objects(text in value(), at in any::<prop::sample::Index>(), put in "[ -~é]{0,2}") {
        let mut text = format!("{{\"k\":{text}}}");
        let mut place = at.index(text.len());
        while !text.is_char_boundary(place) {
            place -= 1;
        }
        text.insert_str(place, &put);
        prop_assume!(!text.contains("e9"), "serde refuses numbers out of range");
        prop_assert_eq!(check_object(&text).is_ok(), serde_accepts(&text), "{}", text);
    }

    #[test]
    fn never_panics(text in any::<String>(), braces in "[{}\\[\\]\":,\\\\ud8a-]{0,40}") {
        let _ = check_object(&text);
        let _ = check_object(&format!("{{{braces}"));
    }
}
