//! What the host promises about a document: one JSON object, no key twice, no lone surrogate,
//! bounded depth.
//!
//! A mapper's texts are checked here in one pass, without building a tree, because everything
//! behind a mapper (sinks that concatenate, receivers that parse) relies on the promise. Numbers
//! are checked for form, not for range.

use std::borrow::Cow;

use thiserror::Error;

/// Objects and arrays inside one another, the outermost included.
pub(crate) const DEPTH_MAX: usize = 128;

/// Why a text is not a document. Places are bytes from its start.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// Something else, or nothing.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// Cut off.
    #[error("it ends in the middle")]
    Ends,
    /// No JSON at this byte.
    #[error("there is something unexpected at byte {0}")]
    Unexpected(usize),
    /// Not one object alone.
    #[error("the object is followed by something at byte {0}")]
    Trailing(usize),
    /// A control character that is not escaped.
    #[error("the string at byte {0} has a control character")]
    Control(usize),
    /// A backslash before something else.
    #[error("the escape at byte {0} is not one of JSON's")]
    Escape(usize),
    /// `\ud800` to `\udfff` without its other half.
    #[error("the escape at byte {0} is a lone surrogate")]
    LoneSurrogate(usize),
    /// Such as `01`, `1.` or `1e400`.
    #[error("the number at byte {0} is malformed")]
    Number(usize),
    /// After escapes are resolved.
    #[error("the key `{0}` stands twice in an object")]
    KeyTwice(String),
    /// Objects and lists inside one another.
    #[error("it is nested deeper than {DEPTH_MAX}")]
    Depth,
}

/// Checks that `text` is one JSON object that keeps the promise: what an event's payload is, and
/// what a mapper's document must be.
pub fn check_object(text: &str) -> Result<(), Fault> {
    let mut scanner = Scanner {
        text,
        bytes: text.as_bytes(),
        at: 0,
        open: Vec::new(),
        keys: Vec::with_capacity(64),
    };
    scanner.space();
    if scanner.peek() != Some(b'{') {
        return Err(Fault::NotAnObject);
    }
    scanner.document()?;
    scanner.space();
    if scanner.at < scanner.bytes.len() {
        Err(Fault::Trailing(scanner.at))
    } else {
        Ok(())
    }
}

/// Takes the line breaks out of a document that [`check_object`] has passed: there are none inside
/// its strings.
pub fn put_on_one_line(document: &mut String) {
    if memchr::memchr2(b'\n', b'\r', document.as_bytes()).is_some() {
        document.retain(|char| !matches!(char, '\n' | '\r'));
    }
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open>,
    /// Keys of all open objects, the innermost last.
    keys: Vec<Cow<'a, str>>,
}

enum Open {
    Array,
    /// Where its keys begin in `keys`.
    Object(usize),
}

impl<'a> Scanner<'a> {
    /// One value and all inside it. A loop and not a recursion, so that no text decides how much
    /// stack it takes.
    fn document(&mut self) -> Result<(), Fault> {
        loop {
            // A value begins here.
            let opened = match self.next()? {
                b'{' => self.enter(Open::Object(self.keys.len()))?,
                b'[' => self.enter(Open::Array)?,
                b'"' => self.string().map(|_| false)?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                b'-' | b'0'..=b'9' => self.number()?,
                _ => return Err(Fault::Unexpected(self.at - 1)),
            };
            self.space();
            if opened {
                let close = if matches!(self.open.last(), Some(Open::Object(_))) {
                    b'}'
                } else {
                    b']'
                };
                if self.peek() != Some(close) {
                    self.key_if_object()?;
                    continue;
                }
                self.at += 1;
                self.leave()?;
            }
            // A value ends here: so may those around it.
            loop {
                self.space();
                if self.open.is_empty() {
                    return Ok(());
                }
                match (self.next()?, self.open.last()) {
                    (b',', _) => break,
                    (b'}', Some(Open::Object(_))) | (b']', Some(Open::Array)) => self.leave()?,
                    _ => return Err(Fault::Unexpected(self.at - 1)),
                }
            }
            self.space();
            self.key_if_object()?;
        }
    }

    fn enter(&mut self, open: Open) -> Result<bool, Fault> {
        if self.open.len() == DEPTH_MAX {
            return Err(Fault::Depth);
        }
        self.open.push(open);
        Ok(true)
    }

    fn leave(&mut self) -> Result<(), Fault> {
        if let Some(Open::Object(first)) = self.open.pop() {
            let keys = &mut self.keys[first..];
            // Most documents have their keys in order already, as Teleport's events do. Sorting,
            // not hashing: no input makes it slow.
            if !keys.is_sorted_by(|a, b| a < b) {
                keys.sort_unstable();
                if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                    return Err(Fault::KeyTwice(pair[0].chars().take(100).collect()));
                }
            }
            self.keys.truncate(first);
        }
        Ok(())
    }

    /// Inside an object, a key and its colon come before a value.
    fn key_if_object(&mut self) -> Result<(), Fault> {
        if !matches!(self.open.last(), Some(Open::Object(_))) {
            return Ok(());
        }
        if self.next()? != b'"' {
            return Err(Fault::Unexpected(self.at - 1));
        }
        let start = self.at;
        let escaped = self.string()?;
        let raw = &self.text[start..self.at - 1];
        self.keys.push(if escaped {
            Cow::Owned(unescape(raw))
        } else {
            Cow::Borrowed(raw)
        });
        self.space();
        if self.next()? != b':' {
            return Err(Fault::Unexpected(self.at - 1));
        }
        self.space();
        Ok(())
    }

    /// The rest of a string behind its opening quote. True where it has an escape.
    fn string(&mut self) -> Result<bool, Fault> {
        let mut escaped = false;
        loop {
            self.plain();
            match self.next()? {
                b'"' => return Ok(escaped),
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(Fault::Control(self.at - 1)),
            }
        }
    }

    /// Steps over what needs no attention inside a string, eight bytes at a time.
    fn plain(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*chunk);
            let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
            let special = control
                | zero_byte(word ^ (ONES * u64::from(b'"')))
                | zero_byte(word ^ (ONES * u64::from(b'\\')));
            if special != 0 {
                // A borrow may mark a byte above the first hit too early, never one below it.
                self.at += (special.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while self
            .peek()
            .is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
        {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let start = self.at - 1;
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => match self.hex(start)? {
                0xDC00..=0xDFFF => Err(Fault::LoneSurrogate(start)),
                0xD800..=0xDBFF => {
                    let low = self.bytes[self.at..].starts_with(b"\\u");
                    self.at += 2 * usize::from(low);
                    if low && matches!(self.hex(start)?, 0xDC00..=0xDFFF) {
                        Ok(())
                    } else {
                        Err(Fault::LoneSurrogate(start))
                    }
                }
                _ => Ok(()),
            },
            _ => Err(Fault::Escape(start)),
        }
    }

    fn hex(&mut self, start: usize) -> Result<u32, Fault> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = (self.next()? as char)
                .to_digit(16)
                .ok_or(Fault::Escape(start))?;
            value = value * 16 + digit;
        }
        Ok(value)
    }

    fn literal(&mut self, word: &str) -> Result<bool, Fault> {
        let start = self.at - 1;
        if !self.bytes[start..].starts_with(word.as_bytes()) {
            return Err(if word.as_bytes().starts_with(&self.bytes[start..]) {
                Fault::Ends
            } else {
                Fault::Unexpected(start)
            });
        }
        self.at = start + word.len();
        Ok(false)
    }

    fn number(&mut self) -> Result<bool, Fault> {
        let start = self.at - 1;
        self.at -= 1;
        self.at += usize::from(self.bytes[start] == b'-');
        let whole = self.digits();
        let leading_zero = whole > 1 && self.bytes[self.at - whole] == b'0';
        let mut good = whole > 0 && !leading_zero;
        if self.peek() == Some(b'.') {
            self.at += 1;
            good &= self.digits() > 0;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            good &= self.digits() > 0;
        }
        // Most parsers refuse what a 64-bit float cannot hold, some with the whole list it is in.
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or("");
        good = good && (self.at - start < 300 && !text.contains(['e', 'E']) || is_finite(text));
        if good {
            Ok(false)
        } else {
            Err(Fault::Number(start))
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Fault> {
        let byte = self.peek().ok_or(Fault::Ends)?;
        self.at += 1;
        Ok(byte)
    }
}

/// The text behind a string's escapes, which have been checked.
pub(crate) fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let unit = |from: usize| {
            rest.get(at + from..at + from + 4)
                .and_then(|hex| u32::from_str_radix(hex, 16).ok())
                .unwrap_or(0)
        };
        let (char, len) = match rest.as_bytes().get(at + 1) {
            Some(b'u') => match unit(2) {
                high @ 0xD800..=0xDBFF => (
                    0x10000 + ((high - 0xD800) << 10) + unit(8).saturating_sub(0xDC00),
                    12,
                ),
                unit => (unit, 6),
            },
            Some(b'b') => (8, 2),
            Some(b'f') => (12, 2),
            Some(b'n') => (10, 2),
            Some(b'r') => (13, 2),
            Some(b't') => (9, 2),
            Some(&same) => (u32::from(same), 2),
            None => (0, 1),
        };
        text.push(char::from_u32(char).unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = rest.get(at + len..).unwrap_or("");
    }
    text.push_str(rest);
    text
}

fn is_finite(number: &str) -> bool {
    number.parse::<f64>().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn line_breaks_between_tokens_go_and_escaped_ones_stay() {
        let mut document = "{\r\n  \"a\": \"x\\ny\",\n\"b\":[\n1]\n}\n".to_owned();
        check_object(&document).unwrap();
        put_on_one_line(&mut document);
        assert_eq!(document, r#"{  "a": "x\ny","b":[1]}"#);
    }

    #[test]
    fn texts_that_break_the_promise_are_told_apart() {
        let nested = |depth: usize| {
            format!(
                "{{\"a\":{}1{}}}",
                "[".repeat(depth - 1),
                "]".repeat(depth - 1)
            )
        };
        for (text, fault) in [
            (r#""#, Fault::NotAnObject),
            (r#"[]"#, Fault::NotAnObject),
            (r#""text""#, Fault::NotAnObject),
            (r#"{"#, Fault::Ends),
            (r#"{"a":tru"#, Fault::Ends),
            (r#"{"a":1,}"#, Fault::Unexpected(7)),
            (r#"{"a":[1,]}"#, Fault::Unexpected(8)),
            (r#"{"a":[1}"#, Fault::Unexpected(7)),
            (r#"{"a" 1}"#, Fault::Unexpected(5)),
            (r#"{a:1}"#, Fault::Unexpected(1)),
            (r#"{"a":nul1}"#, Fault::Unexpected(5)),
            (r#"{"a":1}{"b":2}"#, Fault::Trailing(7)),
            ("{\"a\":\"x\ny\"}", Fault::Control(7)),
            (r#"{"a":"\x"}"#, Fault::Escape(6)),
            (r#"{"a":"\u12g4"}"#, Fault::Escape(6)),
            (r#"{"a":"\ud800"}"#, Fault::LoneSurrogate(6)),
            (r#"{"a":"\ud800\ud800"}"#, Fault::LoneSurrogate(6)),
            (r#"{"a":"\ud800\n"}"#, Fault::LoneSurrogate(6)),
            (r#"{"a":"\udc00"}"#, Fault::LoneSurrogate(6)),
            (r#"{"\udbff":1}"#, Fault::LoneSurrogate(2)),
            (r#"{"a":01}"#, Fault::Number(5)),
            (r#"{"a":-}"#, Fault::Number(5)),
            (r#"{"a":1.}"#, Fault::Number(5)),
            (r#"{"a":1e}"#, Fault::Number(5)),
            (r#"{"a":1,"b":2,"a":3}"#, Fault::KeyTwice("a".into())),
            (r#"{"a":1,"\u0061":2}"#, Fault::KeyTwice("a".into())),
            (
                r#"{"x":{"😀":1,"\ud83d\ude00":2}}"#,
                Fault::KeyTwice("😀".into()),
            ),
            (&nested(DEPTH_MAX + 1), Fault::Depth),
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

    /// A million keys, none in order: must not take a million squared steps.
    #[test]
    fn many_keys_out_of_order_stay_cheap() {
        let keys: Vec<String> = (0..200_000)
            .map(|n: u64| format!("\"k{}\":1", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
            .collect();
        assert_eq!(check_object(&format!("{{{}}}", keys.join(","))), Ok(()));
    }

    /// A value as it would be written by some generator, with duplicate keys and odd spaces and
    /// escapes possible.
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

    /// Serde's opinion: parsed into pairs, so that keys are seen twice where they stand twice.
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
        // `Value` decodes every string, and so refuses lone surrogates.
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
}
