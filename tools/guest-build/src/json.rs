//! The little of JSON that cargo's answers need: names, lists and text. No dependency, because this
//! crate is compiled before everything that uses a component.

use std::iter::Peekable;
use std::str::Chars;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
    /// A number, `true`, `false` or `null`: nothing here looks at those.
    Other,
}

impl Value {
    /// Parses one JSON text; `None` if it is not JSON.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut chars = text.chars().peekable();
        let value = value(&mut chars, 0)?;
        blank(&mut chars);
        chars.next().is_none().then_some(value)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.field(name)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of the list under `name`; none if there is no list.
    pub(crate) fn list(&self, name: &str) -> &[Self] {
        match self.field(name) {
            Some(Self::List(items)) => items,
            _ => &[],
        }
    }

    /// The strings of the list under `name`.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        let texts = self.list(name).iter().map(|value| {
            if let Self::Text(text) = value {
                Some(text.as_str())
            } else {
                None
            }
        });
        texts.flatten().collect()
    }
}

type Input<'a> = Peekable<Chars<'a>>;

/// Cargo nests a handful of levels; a cap keeps a strange answer from exhausting the stack.
const DEPTH: usize = 64;

fn blank(input: &mut Input) {
    while input.next_if(|c| c.is_ascii_whitespace()).is_some() {}
}

fn value(input: &mut Input, depth: usize) -> Option<Value> {
    if depth > DEPTH {
        return None;
    }
    blank(input);
    match input.peek()? {
        '"' => string(input).map(Value::Text),
        '[' => items(input, ']', |input| value(input, depth + 1)).map(Value::List),
        '{' => items(input, '}', |input| {
            blank(input);
            let name = string(input)?;
            blank(input);
            input.next_if_eq(&':')?;
            Some((name, value(input, depth + 1)?))
        })
        .map(Value::Object),
        _ => {
            let mut length = 0;
            while input
                .next_if(|c| c.is_ascii_alphanumeric() || "+-.".contains(*c))
                .is_some()
            {
                length += 1;
            }
            (length > 0).then_some(Value::Other)
        }
    }
}

fn items<T>(
    input: &mut Input,
    close: char,
    mut item: impl FnMut(&mut Input) -> Option<T>,
) -> Option<Vec<T>> {
    input.next()?;
    let mut found = Vec::new();
    blank(input);
    if input.next_if_eq(&close).is_some() {
        return Some(found);
    }
    loop {
        found.push(item(input)?);
        blank(input);
        match input.next()? {
            ',' => {}
            c if c == close => return Some(found),
            _ => return None,
        }
    }
}

fn string(input: &mut Input) -> Option<String> {
    input.next_if_eq(&'"')?;
    let mut text = String::new();
    loop {
        match input.next()? {
            '"' => return Some(text),
            '\\' => match input.next()? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                'u' => {
                    let digits: String = input.by_ref().take(4).collect();
                    // Cargo escapes control characters only, so halves of a surrogate pair do not
                    // occur.
                    text.push(
                        char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
                            .unwrap_or('\u{fffd}'),
                    );
                }
                c @ ('"' | '\\' | '/') => text.push(c),
                _ => return None,
            },
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cargo_writes() {
        let message = Value::parse(
            r#" {"reason":"compiler-artifact","n":-1.5e3,"ok":true,"target":{"kind":["cdylib","rlib"],"none":[],"o":{}},
               "filenames":["C:\\t\\a b.wasm","/é\u0009\".wasm", null]} "#,
        )
        .expect("valid");
        assert_eq!(message.text("reason"), Some("compiler-artifact"));
        assert_eq!(
            message.field("target").expect("an object").texts("kind"),
            ["cdylib", "rlib"]
        );
        assert_eq!(
            message.texts("filenames"),
            ["C:\\t\\a b.wasm", "/é\t\".wasm"]
        );
        assert_eq!(message.texts("reason"), Vec::<&str>::new());
    }

    #[test]
    fn refuses_what_is_not_json() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\" 1}",
            "{\"a\":}",
            "\"open",
            "[1] 2",
            "\"\\x\"",
            "}",
            &"[".repeat(100_000),
        ] {
            assert_eq!(Value::parse(text), None, "{text:.20}");
        }
    }
}
