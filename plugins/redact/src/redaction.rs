//! Finds and changes the configured fields of an event.

use std::fmt::Write as _;
use std::ops::Range;

use lockgate_plugin::json::{self, Field, Malformed};
use sha2::{Digest, Sha256};

/// What happens to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Removes key and value.
    Remove,
    Hash,
    /// Characters to keep.
    Truncate(usize),
}

/// Paths, and the action for each.
#[derive(Debug)]
pub struct Redaction {
    pub rules: Vec<(String, Action)>,
    /// Prefix of the hashed text. Not a secret.
    pub salt: String,
}

/// Byte ranges of the payload and their replacements, in order.
type Edits = Vec<(Range<usize>, String)>;

/// The rest of a path inside a value, and the action at its end.
type Rest<'a> = (&'a str, Action);

impl Redaction {
    /// The redacted payload, or `None` if it has none of the fields.
    pub fn apply(&self, payload: &str) -> Result<Option<String>, Malformed> {
        let rules: Vec<Rest<'_>> = self
            .rules
            .iter()
            .map(|(path, action)| (path.as_str(), *action))
            .collect();
        let mut edits = vec![];
        self.object(payload, 0, &rules, &mut edits)?;
        if edits.is_empty() {
            return Ok(None);
        }
        let mut redacted = String::with_capacity(payload.len() + 64 * edits.len());
        let mut done = 0;
        for (range, text) in edits {
            redacted.push_str(&payload[done..range.start]);
            redacted.push_str(&text);
            done = range.end;
        }
        redacted.push_str(&payload[done..]);
        Ok(Some(redacted))
    }

    /// `base`: start of the object in the payload.
    fn object(
        &self,
        object: &str,
        base: usize,
        rules: &[Rest<'_>],
        edits: &mut Edits,
    ) -> Result<(), Malformed> {
        let mut removal = Removal::default();
        for field in json::fields(object) {
            let field = field.map_err(|inner| Malformed {
                at: base + inner.at,
            })?;
            let (action, inner) = match_rules(&field, rules);
            removal.next(base, &field, action == Some(Action::Remove), edits);
            match action {
                Some(Action::Remove) => {}
                Some(action) => self.value(field.value, base + field.value_start, action, edits)?,
                None if inner.is_empty() => {}
                None => self.inside(field.value, base + field.value_start, &inner, edits)?,
            }
        }
        removal.finish(base, edits);
        Ok(())
    }

    /// Continues with the rest of the paths, in an object or in each element of a list.
    fn inside(
        &self,
        value: &str,
        base: usize,
        rules: &[Rest<'_>],
        edits: &mut Edits,
    ) -> Result<(), Malformed> {
        match value.as_bytes().first() {
            Some(b'{') => self.object(value, base, rules, edits),
            Some(b'[') => each(value, base, |element, at| {
                self.inside(element, at, rules, edits)
            }),
            _ => Ok(()),
        }
    }

    fn value(
        &self,
        value: &str,
        base: usize,
        action: Action,
        edits: &mut Edits,
    ) -> Result<(), Malformed> {
        if value.starts_with('[') {
            return each(value, base, |element, at| {
                self.value(element, at, action, edits)
            });
        }
        let instead = match action {
            Action::Remove => None,
            Action::Hash if value == "null" => None,
            Action::Hash => Some(self.hash(json::text(value).as_deref().unwrap_or(value))),
            Action::Truncate(characters) => json::text(value).and_then(|text| {
                let (end, _) = text.char_indices().nth(characters)?;
                let mut cut = String::with_capacity(end + 2);
                json::write_text(&mut cut, &text[..end]);
                Some(cut)
            }),
        };
        edits.extend(instead.map(|text| (base..base + value.len(), text)));
        Ok(())
    }

    fn hash(&self, text: &str) -> String {
        let digest = Sha256::new()
            .chain_update(&self.salt)
            .chain_update(text)
            .finalize();
        let mut written = String::with_capacity(66);
        written.push('"');
        for byte in digest {
            // Writing to a String cannot fail.
            let _ = write!(written, "{byte:02x}");
        }
        written.push('"');
        written
    }
}

/// The action for a field itself, and the rest of the paths that lead into it.
fn match_rules<'r>(field: &Field<'_>, rules: &[Rest<'r>]) -> (Option<Action>, Vec<Rest<'r>>) {
    let (mut action, mut inner) = (None, vec![]);
    let key = field.key();
    for &(path, rule) in rules {
        match path.strip_prefix(key.as_ref()) {
            // Removal rules come first and win.
            Some("") => action = action.or(Some(rule)),
            Some(rest) => inner.extend(rest.strip_prefix('.').map(|rest| (rest, rule))),
            None => {}
        }
    }
    (action, inner)
}

fn each(
    list: &str,
    base: usize,
    mut apply: impl FnMut(&str, usize) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for element in json::elements(list) {
        let element = element.map_err(|inner| Malformed {
            at: base + inner.at,
        })?;
        apply(element.value, base + element.start)?;
    }
    Ok(())
}

/// Removes members from an object together with a comma: the one before if an earlier member stays,
/// or else the one after.
#[derive(Default)]
struct Removal {
    /// Whether an earlier member stays.
    stays: bool,
    /// End of the member before this one, within the object.
    last_end: usize,
    /// Start of the first member, if all members so far are removed.
    pending: Option<usize>,
}

impl Removal {
    fn next(&mut self, base: usize, field: &Field<'_>, removed: bool, edits: &mut Edits) {
        match (removed, self.stays) {
            (true, true) => edits.push((base + self.last_end..base + field.end, String::new())),
            (true, false) => {
                self.pending.get_or_insert(field.start);
            }
            (false, _) => {
                if let Some(start) = self.pending.take() {
                    edits.push((base + start..base + field.start, String::new()));
                }
                self.stays = true;
            }
        }
        self.last_end = field.end;
    }

    fn finish(self, base: usize, edits: &mut Edits) {
        if let Some(start) = self.pending {
            edits.push((base + start..base + self.last_end, String::new()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn redact(rules: &[(&str, Action)], salt: &str, payload: &str) -> String {
        let rules = rules
            .iter()
            .map(|(path, action)| ((*path).to_owned(), *action))
            .collect();
        Redaction {
            rules,
            salt: salt.into(),
        }
        .apply(payload)
        .unwrap()
        .unwrap_or_else(|| payload.to_owned())
    }

    #[test]
    fn fields_are_removed_with_one_comma() {
        for (paths, payload, expected) in [
            (&["a"][..], r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2,"c":3}"#),
            (&["b"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1,"c":3}"#),
            (&["c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1,"b":2}"#),
            (&["a", "b"], r#"{"a":1,"b":2,"c":3}"#, r#"{"c":3}"#),
            (&["b", "c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1}"#),
            (&["a", "c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2}"#),
            (&["a", "b", "c"], r#"{"a":1,"b":2,"c":3}"#, "{}"),
            (
                &["b"],
                "{ \"a\" : 1 ,\n \"b\":2 , \"c\":3 }",
                "{ \"a\" : 1 , \"c\":3 }",
            ),
            (&["x"], r#"{ "a" : 1.0 }"#, r#"{ "a" : 1.0 }"#),
            (
                &["a.b"],
                r#"{"a":{"b":1},"a.b":2,"c":{"a.b":3}}"#,
                r#"{"a":{},"c":{"a.b":3}}"#,
            ),
            (
                &["a.b.c"],
                r#"{"a":{"b.c":1,"b":{"c":2,"d":3}},"a.b":{"c":4}}"#,
                r#"{"a":{"b":{"d":3}},"a.b":{}}"#,
            ),
            (
                &["l.b"],
                r#"{"l":[{"b":1},[{"b":2,"c":3}],4]}"#,
                r#"{"l":[{},[{"c":3}],4]}"#,
            ),
            (&["ab"], r#"{"\u0061b":1}"#, "{}"),
        ] {
            let rules: Vec<_> = paths.iter().map(|path| (*path, Action::Remove)).collect();
            assert_eq!(redact(&rules, "", payload), expected, "{paths:?} {payload}");
        }
    }

    #[test]
    fn hashes_match_sha256sum() {
        const ALICE: &str = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90";
        let hash = |salt: &str, payload: &str| redact(&[("u", Action::Hash)], salt, payload);
        assert_eq!(
            hash("", r#"{"u":"alice"}"#),
            format!(r#"{{"u":"{ALICE}"}}"#)
        );
        assert_eq!(
            hash("ali", r#"{"u":"ce"}"#),
            format!(r#"{{"u":"{ALICE}"}}"#)
        );
        assert_eq!(
            hash("", r#"{"u":["\u0061lice",null,"alice"]}"#),
            format!(r#"{{"u":["{ALICE}",null,"{ALICE}"]}}"#)
        );
        for (value, digest) in [
            (
                "5",
                "ef2d127de37b942baad06145e54b0c619a1f22327b2ebbcfbec78f5564afe39d",
            ),
            (
                "true",
                "b5bea41b6c623f7c09f1bf24dcae58ebab3c0cdd90ad966bc43a45b44867e12b",
            ),
            (
                "{}",
                "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            ),
        ] {
            assert_eq!(
                hash("", &format!(r#"{{"u":{value}}}"#)),
                format!(r#"{{"u":"{digest}"}}"#)
            );
        }
    }

    #[test]
    fn texts_are_truncated_between_characters() {
        for (characters, value, expected) in [
            (3, r#""abcdef""#, r#""abc""#),
            (3, r#""abc""#, r#""abc""#),
            (0, r#""abc""#, r#""""#),
            (2, r#""é\u00e9é""#, r#""éé""#),
            (2, r#""\"\n\\x""#, r#""\"\n""#),
            (2, r#""\u0061b""#, r#""\u0061b""#),
            (1, r#"["ab",12,{"u":"ab"}]"#, r#"["a",12,{"u":"ab"}]"#),
        ] {
            let found = redact(
                &[("u", Action::Truncate(characters))],
                "",
                &format!(r#"{{"u":{value}}}"#),
            );
            assert_eq!(
                found,
                format!(r#"{{"u":{expected}}}"#),
                "{characters} {value}"
            );
        }
    }

    #[test]
    fn an_outer_field_is_redacted_before_its_content() {
        assert_eq!(
            redact(
                &[("a", Action::Remove), ("a.b", Action::Hash)],
                "",
                r#"{"a":{"b":1},"c":2}"#
            ),
            r#"{"c":2}"#
        );
    }

    fn tree() -> impl Strategy<Value = Value> {
        let key = prop_oneof![Just("a"), Just("b"), Just("a.b"), Just("c"), Just("b.c")];
        let leaf = prop_oneof![
            any::<u8>().prop_map(Value::from),
            "[a\"\\\\é]{0,4}".prop_map(Value::from),
            Just(Value::Null)
        ];
        let inner = leaf.prop_recursive(3, 20, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..5)
                    .prop_map(|map| map.into_iter().collect::<Value>())
            ]
        });
        let key = prop_oneof![Just("a"), Just("b"), Just("a.b"), Just("c")];
        prop::collection::btree_map(key, inner, 0..5).prop_map(|map| map.into_iter().collect())
    }

    /// The same on a tree.
    fn remove(value: &mut Value, path: &str) {
        match value {
            Value::Object(object) => {
                object.remove(path);
                for (key, value) in object {
                    if let Some(rest) = path
                        .strip_prefix(key.as_str())
                        .and_then(|rest| rest.strip_prefix('.'))
                    {
                        remove(value, rest);
                    }
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|value| remove(value, path)),
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn removal_gives_the_same_result_as_on_a_tree(tree in tree(), paths in prop::collection::vec("[abc](\\.[abc]){0,2}", 1..4)) {
            let rules: Vec<_> = paths.iter().map(|path| (path.as_str(), Action::Remove)).collect();
            let mut expected = tree.clone();
            paths.iter().for_each(|path| remove(&mut expected, path));
            for payload in [tree.to_string(), serde_json::to_string_pretty(&tree).unwrap()] {
                let found = redact(&rules, "", &payload);
                prop_assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), expected.clone(), "{} of {}", found, payload);
            }
        }

        #[test]
        fn foreign_text_never_panics(text in "[{}\\[\\]\":,\\\\a1 é]{0,30}") {
            let rules = vec![("a".to_owned(), Action::Truncate(1)), ("a.a".to_owned(), Action::Remove)];
            let _ = Redaction { rules, salt: String::new() }.apply(&text);
        }
    }
}
