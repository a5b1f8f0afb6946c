//! Masks secrets and escapes control characters in texts for people and plugins.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use memchr::memmem::Finder;

/// The replacement for a secret.
pub const MASK: &str = "***";

/// Shorter values are not masked: they would mask large parts of every text, which would also
/// reveal them.
pub const MASKED_MIN_CHARS: usize = 4;

/// Longest line that a plugin or a receiver may write to the log, in bytes.
pub const LINE_MAX: usize = 1024;

/// Lines of a multi-line secret, such as a key in PEM, are masked on their own if they have at
/// least this many characters.
const SECRET_LINE_MIN_CHARS: usize = 8;

/// The secrets known to this process. Clones share one set, and a secret added later is masked by
/// all of them.
///
/// A secret is found in plain form, as escaped in JSON and in URLs, and line by line if it has
/// several lines. Other encodings must be added as secrets of their own, as egress does for the
/// Base64 of basic authentication.
#[derive(Clone, Default)]
pub struct Masks {
    known: Arc<RwLock<Known>>,
    /// Secrets of a wider scope.
    outer: Option<Arc<Masks>>,
}

#[derive(Default)]
struct Known {
    finders: Arc<Vec<SecretFinder>>,
    /// How many hold each of those that are not masked for ever.
    holders: BTreeMap<String, usize>,
}

/// A secret that is masked for as long as this lives. It may have changed by then.
pub struct HeldMask {
    masks: Masks,
    forms: Vec<String>,
}

impl Masks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Masks what these mask, and in addition secrets of its own, which these do not mask: a secret
    /// that a foreign server chose must change only the texts about that server.
    pub fn scope(&self) -> Masks {
        Masks {
            known: Arc::default(),
            outer: Some(Arc::new(self.clone())),
        }
    }

    /// Masks `secret` from now on. Returns false and does nothing if it is shorter than
    /// [`MASKED_MIN_CHARS`].
    pub fn add(&self, secret: &str) -> bool {
        let secret = secret.trim();
        if secret.chars().count() < MASKED_MIN_CHARS {
            return false;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for form in forms(secret) {
            known.holders.remove(&form);
            if !known.finds(&form) {
                known.find(&form);
            }
        }
        true
    }

    /// Masks `secret` until the result is dropped. `None` if it is shorter than
    /// [`MASKED_MIN_CHARS`].
    pub fn hold(&self, secret: &str) -> Option<HeldMask> {
        let secret = secret.trim();
        if secret.chars().count() < MASKED_MIN_CHARS {
            return None;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut held = forms(secret);
        held.sort_unstable();
        held.dedup();
        // Those that are masked for ever need no holder.
        held.retain(|form| known.holders.contains_key(form) || !known.finds(form));
        for form in &held {
            if !known.finds(form) {
                known.find(form);
            }
            *known.holders.entry(form.clone()).or_default() += 1;
        }
        Some(HeldMask {
            masks: self.clone(),
            forms: held,
        })
    }

    /// `text` with every known secret replaced.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.mask_prefix(text.as_bytes(), text.len()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Secrets are text, so a match begins and ends at a character boundary.
            Cow::Owned(bytes) => {
                Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|_| MASK.into()))
            }
        }
    }

    /// The first `limit` bytes, masked. A secret that begins before the limit is masked completely
    /// if `bytes` contains all of it. So pass [`Masks::longest`] bytes more than the limit, and no
    /// part of a secret is left at the cut.
    pub fn mask_prefix<'a>(&self, bytes: &'a [u8], limit: usize) -> Cow<'a, [u8]> {
        let limit = limit.min(bytes.len());
        let mut found: Vec<Range<usize>> = Vec::new();
        for finders in self.snapshots() {
            for finder in finders.iter() {
                finder.find_in(bytes, &mut found);
            }
        }
        found.retain(|range| range.start < limit);
        if found.is_empty() {
            return Cow::Borrowed(&bytes[..limit]);
        }
        found.sort_by_key(|range| range.start);
        let mut masked = Vec::with_capacity(limit);
        let mut done = 0;
        for range in found {
            if range.start >= done {
                masked.extend_from_slice(&bytes[done..range.start]);
                masked.extend_from_slice(MASK.as_bytes());
            }
            done = done.max(range.end);
        }
        masked.extend_from_slice(bytes.get(done..limit).unwrap_or_default());
        Cow::Owned(masked)
    }

    /// Bytes of the longest text that is masked.
    pub fn longest(&self) -> usize {
        let longest = |finders: Arc<Vec<SecretFinder>>| {
            let lengths = finders.iter().map(|finder| finder.needle().len());
            lengths.max()
        };
        self.snapshots().filter_map(longest).max().unwrap_or(0)
    }

    /// Of this scope, and of those around it.
    fn snapshots(&self) -> impl Iterator<Item = Arc<Vec<SecretFinder>>> {
        std::iter::successors(Some(self), |masks| masks.outer.as_deref()).map(|masks| {
            let known = masks.known.read().unwrap_or_else(PoisonError::into_inner);
            known.finders.clone()
        })
    }
}

impl Known {
    fn finds(&self, form: &str) -> bool {
        let mut finders = self.finders.iter();
        finders.any(|finder| finder.needle() == form.as_bytes())
    }

    fn find(&mut self, form: &str) {
        Arc::make_mut(&mut self.finders).push(SecretFinder::new(form.as_bytes()));
    }
}

/// Finds a secret in time that is linear in the text, also if the secret overlaps itself.
#[derive(Clone)]
struct SecretFinder {
    finder: Finder<'static>,
    /// Of each prefix of the secret, the length of the longest end that it also begins with, and
    /// that is not all of it: where a search goes on behind a match (Knuth, Morris and Pratt).
    borders: Arc<[usize]>,
}

impl SecretFinder {
    /// `needle`: not empty.
    fn new(needle: &[u8]) -> SecretFinder {
        let mut borders = vec![0; needle.len()];
        let mut matched = 0;
        for at in 1..needle.len() {
            matched = longer_border(needle, &borders, matched, needle[at]);
            borders[at] = matched;
        }
        SecretFinder {
            finder: Finder::new(needle).into_owned(),
            borders: borders.into(),
        }
    }

    fn needle(&self) -> &[u8] {
        self.finder.needle()
    }

    /// Adds where the secret is. Occurrences that overlap are one range.
    fn find_in(&self, bytes: &[u8], found: &mut Vec<Range<usize>>) {
        let needle = self.needle();
        let mut from = 0;
        while let Some(at) = self.finder.find(&bytes[from..]) {
            let start = from + at;
            let mut range = start..start + needle.len();
            from = range.end;
            // The last bytes of a match may begin the next one.
            let mut matched = self.borders[needle.len() - 1];
            while matched > 0 && from < bytes.len() {
                matched = longer_border(needle, &self.borders, matched, bytes[from]);
                from += 1;
                if matched < needle.len() {
                    continue;
                }
                let start = from - needle.len();
                if start < range.end {
                    range.end = from;
                } else {
                    found.push(std::mem::replace(&mut range, start..from));
                }
                matched = self.borders[needle.len() - 1];
            }
            found.push(range);
        }
    }
}

/// How much of the needle ends with `byte`, if `matched` bytes of it came before.
fn longer_border(needle: &[u8], borders: &[usize], mut matched: usize, byte: u8) -> usize {
    while matched > 0 && needle[matched] != byte {
        matched = borders[matched - 1];
    }
    matched + usize::from(needle[matched] == byte)
}

impl fmt::Debug for HeldMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldMask({} texts)", self.forms.len())
    }
}

impl Drop for HeldMask {
    fn drop(&mut self) {
        let known = &self.masks.known;
        let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
        for form in &self.forms {
            match known.holders.get_mut(form) {
                Some(1) => {
                    known.holders.remove(form);
                    let finders = Arc::make_mut(&mut known.finders);
                    finders.retain(|finder| finder.needle() != form.as_bytes());
                }
                Some(holders) => *holders -= 1,
                // Since then it is masked for ever.
                None => {}
            }
        }
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: usize = self.snapshots().map(|finders| finders.len()).sum();
        write!(f, "Masks({texts} texts)")
    }
}

/// A value for a log line, escaped, and quoted if it could be read as anything but one value.
pub fn logfmt(text: &str, max_bytes: usize) -> Cow<'_, str> {
    let escaped = escape(text, max_bytes);
    if !escaped.is_empty() && !escaped.contains([' ', '"', '=', '\\']) {
        return escaped;
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(format!("\"{}\"", escape(&text, max_bytes)))
}

/// Makes foreign text safe for one line of a log: control characters, line separators and
/// characters that change the text direction are escaped, and text beyond `max_bytes` is replaced
/// by a mark with the number of missing bytes.
///
/// The result is at most `max_bytes` long, unless the mark alone is longer.
pub fn escape(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes && !text.chars().any(needs_escape) {
        return Cow::Borrowed(text);
    }
    // Leaves room for the longest mark, which is used only if the text is too long.
    let mut escaped = String::with_capacity(text.len().min(max_bytes));
    let mut cut = (0, 0);
    let mark = |left: usize| format!("…(+{left} bytes)");
    let room = max_bytes.saturating_sub(mark(text.len()).len());
    for (at, char) in text.char_indices() {
        if escaped.len() <= room {
            cut = (at, escaped.len());
        }
        match char {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            char if needs_escape(char) => escaped.extend(char.escape_unicode()),
            char => escaped.push(char),
        }
        if escaped.len() > max_bytes {
            escaped.truncate(cut.1);
            escaped.push_str(&mark(text.len() - cut.0));
            break;
        }
    }
    Cow::Owned(escaped)
}

fn needs_escape(char: char) -> bool {
    // Line and paragraph separators; marks, embeddings, overrides and isolates of bidirectional
    // text; zero-width characters.
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![
        secret.to_owned(),
        json_escaped(secret),
        percent_encoded(secret),
    ];
    forms.push(percent_encoded(secret).replace("%20", "+"));
    if secret.contains('\n') {
        let lines = secret
            .lines()
            .map(str::trim)
            .filter(|line| line.chars().count() >= SECRET_LINE_MIN_CHARS);
        // The BEGIN and END lines of a PEM file are not secret.
        forms.extend(
            lines
                .filter(|line| !line.starts_with("-----"))
                .map(str::to_owned),
        );
    }
    forms
}

fn json_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            char if u32::from(char) < 0x20 => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(char)))
            }
            char => escaped.push(char),
        }
    }
    escaped
}

/// Percent-encodes everything except the unreserved characters of RFC 3986 2.3, for a name or a
/// value in a URL's query.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Without percent-encoding. `None`: a `%` stands before something else than two hexadecimal
/// digits, or the result is not UTF-8.
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => (digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masks(secrets: &[&str]) -> Masks {
        let masks = Masks::new();
        for secret in secrets {
            assert!(masks.add(secret), "{secret}");
        }
        masks
    }

    #[test]
    fn known_secrets_are_masked_in_every_common_form() {
        for (secrets, text, masked) in [
            (&["hunter22"][..], "password=hunter22;", "password=***;"),
            (&["hunter22"], "hunter22hunter22", "******"),
            (&["abcd", "cdef"], "abcdef", "***"),
            (&["abcd", "abcdefgh"], "abcdefghi", "***i"),
            (&["aaaa"], "aaaaaaa", "***"),
            (&["abab"], "abababcabababx", "***c***x"),
            (&["abca"], "abcabcaabca abcab", "****** ***b"),
            (
                &["pa\"ss\\word"],
                r#"{"p":"pa\"ss\\word"}"#,
                r#"{"p":"***"}"#,
            ),
            (
                &["p@ss word"],
                "?token=p%40ss%20word&x=p%40ss+word",
                "?token=***&x=***",
            ),
            (&["one-line\nother-line"], "seen: other-line", "seen: ***"),
            (&["  trimmed\n"], "trimmed", "***"),
            (&["größe!"], "die größe! ist", "die *** ist"),
            (&["hunter22"], "hunter2", "hunter2"),
        ] {
            assert_eq!(self::masks(secrets).mask(text), masked, "{secrets:?}");
        }
    }

    #[test]
    fn short_values_are_not_masked() {
        let masks = Masks::new();
        assert!(!masks.add("abc"));
        assert_eq!(masks.mask("abc"), "abc");
    }

    #[test]
    fn a_secret_is_masked_as_long_as_somebody_holds_it() {
        let masks = Masks::new();
        let (first, second) = (masks.hold("hunter22"), masks.hold("hunter22"));
        let other = masks.hold("a secret");
        assert!(masks.hold("abc").is_none());
        drop(first);
        assert_eq!(masks.mask("hunter22 a%20secret"), "*** ***");
        drop(second);
        assert_eq!(masks.mask("hunter22 a%20secret"), "hunter22 ***");
        assert!(masks.add("a secret"));
        drop((other, masks.hold("a secret")));
        assert_eq!(masks.mask("a secret"), "***", "it was added for ever");
    }

    #[test]
    fn a_secret_across_the_cut_leaves_no_part_behind() {
        let masks = masks(&["hunter22"]);
        assert_eq!(masks.mask_prefix(b"ab hunter22 cd", 6).as_ref(), b"ab ***");
        assert_eq!(masks.mask_prefix(b"ab hunter22 cd", 3).as_ref(), b"ab ");
        assert_eq!(
            masks.mask_prefix(b"ab hunter22 cd", 12).as_ref(),
            b"ab *** "
        );
        assert_eq!(masks.longest(), 8);
    }

    #[test]
    fn a_scope_keeps_its_secrets_to_itself() {
        let masks = masks(&["hunter22"]);
        let scope = masks.scope();
        let held = scope.hold("a token");
        assert_eq!(scope.mask("hunter22, a token"), "***, ***");
        assert_eq!(masks.mask("hunter22, a token"), "***, a token");
        assert_eq!(scope.longest(), "hunter22".len().max("a%20token".len()));
        masks.add("added later");
        assert_eq!(scope.clone().mask("added later"), "***");
        drop(held);
        assert_eq!(scope.mask("a token"), "a token");
    }

    /// It was compared with the text once more at each byte: hours for this.
    #[test]
    fn a_secret_that_overlaps_itself_is_found_in_one_pass() {
        let masks = masks(&[&"a".repeat(1 << 18), &"ab".repeat(1 << 17)]);
        let mut text = "a".repeat(1 << 20);
        text.push('c');
        text += &"ab".repeat(1 << 19);
        assert_eq!(masks.mask(&text), "***c***");
    }

    #[test]
    fn clones_share_what_is_added_later() {
        let masks = Masks::new();
        let clone = masks.clone();
        masks.add("hunter22");
        assert_eq!(clone.mask("hunter22"), "***");
        assert_eq!(format!("{masks:?}"), "Masks(1 texts)");
    }

    #[test]
    fn foreign_text_becomes_one_line() {
        for (text, max, escaped) in [
            ("plain ü", 1024, "plain ü"),
            ("a\nb\r\tc\x1b[31m", 1024, "a\\nb\\r\\tc\\u{1b}[31m"),
            ("a\u{202e}b\u{2028}", 1024, "a\\u{202e}b\\u{2028}"),
            (
                "0123456789abcdefghijklmnop",
                26,
                "0123456789abcdefghijklmnop",
            ),
            (
                "0123456789abcdefghijklmnopq",
                26,
                "0123456789ab…(+15 bytes)",
            ),
        ] {
            assert_eq!(escape(text, max), escaped, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_occurrence_is_found(needle in "[ab]{1,6}", text in "[ab]{0,60}") {
            let (needle, text) = (needle.as_bytes(), text.as_bytes());
            let mut found = Vec::new();
            SecretFinder::new(needle).find_in(text, &mut found);
            let covered = |at: usize| found.iter().any(|range| range.contains(&at));
            let expected = |at: usize| {
                let mut starts = (at + 1).saturating_sub(needle.len())..=at;
                starts.any(|start| text[start..].starts_with(needle))
            };
            for at in 0..text.len() {
                prop_assert_eq!(covered(at), expected(at), "{} in {:?}", at, found);
            }
            prop_assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }

        #[test]
        fn what_is_encoded_is_decoded_again(text in ".{0,40}") {
            prop_assert_eq!(percent_decoded(&percent_encoded(&text)), Some(text));
        }

        #[test]
        fn escaped_text_fits_and_has_no_control_character(text in "\\PC{0,40}[\\x00-\\x1fa-zü\u{202e}]{0,200}", max in 32usize..300) {
            let escaped = escape(&text, max);
            prop_assert!(escaped.len() <= max);
            prop_assert!(!escaped.chars().any(needs_escape));
        }

        #[test]
        fn no_secret_is_left_in_a_masked_text(
            secrets in prop::collection::vec("[ab\"ü]{4,6}", 1..4),
            text in "[ab\"ü ]{0,60}",
            limit in 0usize..80,
        ) {
            let masks = Masks::new();
            secrets.iter().for_each(|secret| { masks.add(secret); });
            let masked = masks.mask(&text).into_owned();
            prop_assert!(secrets.iter().all(|secret| !masked.contains(secret.as_str())), "{masked}");
            let prefix = masks.mask_prefix(text.as_bytes(), limit).into_owned();
            prop_assert!(prefix.len() <= limit.max(1) * 3 + 3);
            prop_assert!(masked.as_bytes().starts_with(&prefix) || limit < text.len());
        }
    }

    #[test]
    fn only_what_encodes_a_character_is_decoded() {
        for (text, decoded) in [
            ("", Some("")),
            ("p%2Fx%2f", Some("p/x/")),
            ("%e2%82%ac", Some("\u{20ac}")),
            ("50%25", Some("50%")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%+f", None),
            ("%-1", None),
            ("%e2\u{20ac}", None),
            ("%e9", None),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), decoded, "{text}");
        }
    }
}
