//! The keys that rows use, as small numbers, and paths made of them. They are numbered at compile
//! time, so that an event's keys are compared as numbers and paths need not be split at run time.

use std::borrow::Cow;

use lockgate_plugin::json::Field;

use crate::mapping::{GROUPS, INTAKE, LEFTOVERS};
use crate::row::Row;

/// A key that rows or code use, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u16);

/// A key of the document: a known one, or foreign text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    Known(Key),
    Other(Cow<'a, str>),
}

/// A path in the document. `.x` is inside `teleport.audit`.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub inside: bool,
    keys: [Key; LONGEST],
    length: u8,
}

/// Paths that occur only in code.
const CODE: &[&str] = &[
    "ecs.version",
    "event.kind",
    "event.category",
    "event.type",
    "event.original",
    "event.outcome",
    "error.message",
    "tags",
    "process.tty.columns",
    "process.tty.rows",
    "teleport.audit",
    "client.domain",
    "client.address",
    "client.port",
    "client.geo",
    "client.as",
    "destination.ip",
    "server.ip",
    "source.ip",
    "user.email",
    "user.domain",
    "related.ip",
    "related.hosts",
    "related.user",
    ".user.logins",
    ".certificate.identity.participants",
    ".certificate.identity.database_users",
    ".server.labels.hostname",
];

/// Number of keys in the longest path.
const LONGEST: usize = 5;

/// Capacity for keys.
const KEYS_MAX: usize = 1024;

/// Twice as many, so that searches for absent keys end soon.
const SLOTS: usize = 2 * KEYS_MAX;

static TABLE: Table = TABLE_MADE;
const TABLE_MADE: Table = Table::new();

/// An open hash table.
struct Table {
    names: [&'static str; KEYS_MAX],
    count: usize,
    /// Numbers of keys, plus one. 0 means free.
    slots: [u16; SLOTS],
}

/// Number of keys.
pub const COUNT: usize = TABLE_MADE.count;

impl Key {
    /// The key of a name in the tables. Another name does not compile.
    pub const fn of(name: &'static str) -> Key {
        match TABLE_MADE.find(name.as_bytes()) {
            Some(key) => key,
            None => panic!("a path that occurs only in code must be listed in `keys.rs`"),
        }
    }

    pub fn name(self) -> &'static str {
        TABLE.names[usize::from(self.0)]
    }

    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

impl<'a> Name<'a> {
    pub fn of(name: impl Into<Cow<'a, str>>) -> Name<'a> {
        let name = name.into();
        TABLE
            .find(name.as_bytes())
            .map_or(Name::Other(name), Name::Known)
    }

    /// The name of a member. Keys hardly ever contain escapes.
    pub fn of_field(field: &Field<'a>) -> Name<'a> {
        match TABLE.find(field.raw_key.as_bytes()) {
            Some(key) => Name::Known(key),
            None => Name::of(field.key()),
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Name::Known(key) => key.name(),
            Name::Other(name) => name,
        }
    }

    pub fn into_owned<'b>(self) -> Name<'b> {
        match self {
            Name::Known(key) => Name::Known(key),
            Name::Other(name) => Name::Other(Cow::Owned(name.into_owned())),
        }
    }
}

impl From<Key> for Name<'_> {
    fn from(key: Key) -> Self {
        Name::Known(key)
    }
}

impl From<&'static str> for Name<'_> {
    fn from(name: &'static str) -> Self {
        Name::of(name)
    }
}

impl Path {
    pub const fn of(text: &'static str) -> Path {
        let bytes = text.as_bytes();
        let inside = !bytes.is_empty() && bytes[0] == b'.';
        let mut path = Path {
            inside,
            keys: [Key(0); LONGEST],
            length: 0,
        };
        let mut at = inside as usize;
        while at < bytes.len() {
            let end = key_end(bytes, at);
            let (_, rest) = text.split_at(at);
            let (key, _) = rest.split_at(end - at);
            path.keys[path.length as usize] = Key::of(key);
            path.length += 1;
            at = end + 1;
        }
        path
    }

    pub fn keys(&self) -> &[Key] {
        &self.keys[..usize::from(self.length)]
    }

    /// The first key. `None` for the empty path.
    pub const fn first(&self) -> Option<Key> {
        if self.length == 0 {
            None
        } else {
            Some(self.keys[0])
        }
    }

    pub const fn length(&self) -> usize {
        self.length as usize
    }
}

impl Table {
    const fn new() -> Table {
        let table = Table {
            names: [""; KEYS_MAX],
            count: 0,
            slots: [0; SLOTS],
        };
        let mut table = table
            .with_rows(INTAKE)
            .with_rows(GROUPS)
            .with_rows(LEFTOVERS);
        let mut at = 0;
        while at < CODE.len() {
            table = table.with_path(CODE[at]);
            at += 1;
        }
        table
    }

    const fn with_rows(mut self, rows: &'static [Row]) -> Table {
        let mut at = 0;
        while at < rows.len() {
            let row = &rows[at];
            self = self
                .with_path(row.from)
                .with_path(row.to)
                .with_path(row.only[0].path())
                .with_path(row.only[1].path());
            if let Some(literal) = row.literal_key() {
                self = self.with_key(literal);
            }
            at += 1;
        }
        self
    }

    const fn with_path(mut self, text: &'static str) -> Table {
        let bytes = text.as_bytes();
        let mut at = (!bytes.is_empty() && bytes[0] == b'.') as usize;
        while at < bytes.len() {
            let end = key_end(bytes, at);
            let (_, rest) = text.split_at(at);
            let (key, _) = rest.split_at(end - at);
            self = self.with_key(key);
            at = end + 1;
        }
        self
    }

    const fn with_key(mut self, name: &'static str) -> Table {
        let mut at = slot(name.as_bytes());
        while self.slots[at] != 0 {
            if same(
                self.names[self.slots[at] as usize - 1].as_bytes(),
                name.as_bytes(),
            ) {
                return self;
            }
            at = (at + 1) % SLOTS;
        }
        self.names[self.count] = name;
        self.count += 1;
        self.slots[at] = self.count as u16;
        self
    }

    const fn find(&self, name: &[u8]) -> Option<Key> {
        let mut at = slot(name);
        while self.slots[at] != 0 {
            let number = self.slots[at] - 1;
            if same(self.names[number as usize].as_bytes(), name) {
                return Some(Key(number));
            }
            at = (at + 1) % SLOTS;
        }
        None
    }
}

/// The slot of a key. Hashing its ends and its length distinguishes Teleport's names well enough.
const fn slot(key: &[u8]) -> usize {
    let (start, end) = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(start), Some(end)) => (u64::from_le_bytes(*start), u64::from_le_bytes(*end)),
        _ => {
            let (mut start, mut at) = (0, 0);
            while at < key.len() {
                start = start << 8 | key[at] as u64;
                at += 1;
            }
            (start, 0)
        }
    };
    let mixed =
        (start ^ end.rotate_left(29) ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 53) as usize % SLOTS
}

/// Compares eight bytes at a time, because a guest's `memcmp` compares single bytes.
const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (Some(end), Some(other_end)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        let mut at = 0;
        while at < a.len() && a[at] == b[at] {
            at += 1;
        }
        return at == a.len();
    };
    let (mut rest, mut other) = (a, b);
    while let (Some((eight, more)), Some((other_eight, other_more))) = (
        rest.split_first_chunk::<8>(),
        other.split_first_chunk::<8>(),
    ) {
        if u64::from_le_bytes(*eight) != u64::from_le_bytes(*other_eight) {
            return false;
        }
        (rest, other) = (more, other_more);
    }
    u64::from_le_bytes(*end) == u64::from_le_bytes(*other_end)
}

const fn key_end(path: &[u8], mut at: usize) -> usize {
    while at < path.len() && path[at] != b'.' {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_needs_no_escape() {
        for (number, name) in TABLE.names[..COUNT].iter().enumerate() {
            assert_eq!(Name::of(*name), Name::Known(Key(number as u16)), "{name}");
            assert!(
                name.bytes()
                    .all(|byte| byte >= 0x20 && !matches!(byte, b'"' | b'\\')),
                "{name}"
            );
        }
        assert_eq!(Name::of("nobody's key"), Name::Other("nobody's key".into()));
    }
}
