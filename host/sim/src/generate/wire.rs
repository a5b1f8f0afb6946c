//! Writes `google.protobuf.Struct` (fields 1; Value: null 1, number 2, string 3, bool 4, struct 5,
//! list 6) without a tree.
//!
//! Entries are not sorted, so that the reader has to sort them.

const ENTRY: u8 = 0x0a;
const KEY: u8 = 0x0a;
const VALUE: u8 = 0x12;
const NULL: u8 = 0x08;
const NUMBER: u8 = 0x11;
const TEXT: u8 = 0x1a;
const FLAG: u8 = 0x20;
const OBJECT: u8 = 0x2a;
const LIST: u8 = 0x32;
const ITEM: u8 = 0x0a;

/// The entries of one open Struct.
pub(crate) struct Fields<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Fields<'a> {
        Fields { out }
    }

    pub(crate) fn text(&mut self, key: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        let inner = 1 + varint_len(value.len()) + value.len();
        self.entry(key, inner);
        bytes(self.out, TEXT, value);
    }

    pub(crate) fn number(&mut self, key: &str, value: f64) {
        self.entry(key, 9);
        self.out.push(NUMBER);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.entry(key, 2);
        self.out.extend_from_slice(&[FLAG, u8::from(value)]);
    }

    pub(crate) fn null(&mut self, key: &str) {
        self.entry(key, 2);
        self.out.extend_from_slice(&[NULL, 0]);
    }

    pub(crate) fn object(&mut self, key: &str, write: impl FnOnce(&mut Fields<'_>)) {
        self.nested(key, OBJECT, |out| write(&mut Fields { out }));
    }

    pub(crate) fn texts<T: AsRef<[u8]>>(&mut self, key: &str, values: impl IntoIterator<Item = T>) {
        self.list(key, |list| {
            values.into_iter().for_each(|value| list.text(value))
        });
    }

    pub(crate) fn list(&mut self, key: &str, write: impl FnOnce(&mut Items<'_>)) {
        self.nested(key, LIST, |out| write(&mut Items { out }));
    }

    /// Appends entries that were encoded earlier.
    pub(crate) fn entries(&mut self, encoded: &[u8]) {
        self.out.extend_from_slice(encoded);
    }

    fn entry(&mut self, key: &str, value_len: usize) {
        self.out.push(ENTRY);
        varint(
            self.out,
            1 + varint_len(key.len()) + key.len() + 1 + varint_len(value_len) + value_len,
        );
        bytes(self.out, KEY, key.as_bytes());
        self.out.push(VALUE);
        varint(self.out, value_len);
    }

    fn nested(&mut self, key: &str, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
        nest(self.out, ENTRY, |out| {
            bytes(out, KEY, key.as_bytes());
            nest(out, VALUE, |out| nest(out, tag, write));
        });
    }
}

/// The values of one open list.
pub(crate) struct Items<'a> {
    out: &'a mut Vec<u8>,
}

impl Items<'_> {
    pub(crate) fn text(&mut self, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.out.push(ITEM);
        varint(self.out, 1 + varint_len(value.len()) + value.len());
        bytes(self.out, TEXT, value);
    }

    pub(crate) fn object(&mut self, write: impl FnOnce(&mut Fields<'_>)) {
        nest(self.out, ITEM, |out| {
            nest(out, OBJECT, |out| write(&mut Fields { out }))
        });
    }
}

/// Appends a length-delimited field whose length is known.
pub(crate) fn bytes(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    varint(out, value.len());
    out.extend_from_slice(value);
}

/// Appends a length-delimited field whose length is known only after its content has been written.
pub(crate) fn nest(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let at = open(out, tag);
    write(out);
    close(out, at);
}

/// Begins a length-delimited field; [`close`] takes what this returns.
pub(crate) fn open(out: &mut Vec<u8>, tag: u8) -> usize {
    out.extend_from_slice(&[tag, 0, 0]);
    out.len() - 2
}

/// Writes the length of the field opened at `at`. Two bytes are reserved for it; if it needs more
/// or fewer, the content moves.
pub(crate) fn close(out: &mut Vec<u8>, at: usize) {
    let content = at + 2;
    let len = out.len() - content;
    let need = varint_len(len);
    match need {
        1 => {
            out.copy_within(content.., content - 1);
            out.truncate(out.len() - 1);
        }
        2 => {}
        _ => {
            let end = out.len();
            out.resize(end + need - 2, 0);
            out.copy_within(content..end, at + need);
        }
    }
    let mut rest = len;
    for (step, byte) in out[at..at + need].iter_mut().enumerate() {
        *byte = (rest & 0x7f) as u8 | if step + 1 < need { 0x80 } else { 0 };
        rest >>= 7;
    }
}

pub(crate) fn varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(crate) fn varint_len(value: usize) -> usize {
    ((usize::BITS - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::{Struct, value::Kind};

    use super::*;

    #[test]
    fn a_written_struct_reads_back_with_every_kind_and_length() {
        for size in [
            0, 1, 100, 127, 128, 16_000, 16_383, 16_384, 70_000, 3_000_000,
        ] {
            let long = "x".repeat(size);
            let mut out = Vec::new();
            let mut fields = Fields::new(&mut out);
            fields.text("text", &long);
            fields.number("number", 4_294_967_297.0);
            fields.flag("flag", true);
            fields.null("null");
            fields.object("object", |inner| {
                inner.text("addr.remote", &long);
                inner.object("empty", |_| {});
            });
            fields.texts("list", ["a", &long]);
            fields.list("mixed", |list| list.object(|inner| inner.flag("no", false)));

            let read = Struct::decode(out.as_slice())
                .unwrap_or_else(|error| panic!("{size}: {error}"))
                .fields;
            assert_eq!(read.len(), 7);
            assert_eq!(read["text"].kind, Some(Kind::StringValue(long.clone())));
            assert_eq!(
                read["number"].kind,
                Some(Kind::NumberValue(4_294_967_297.0))
            );
            assert_eq!(read["null"].kind, Some(Kind::NullValue(0)));
            let Some(Kind::StructValue(object)) = &read["object"].kind else {
                panic!("no object")
            };
            assert_eq!(
                object.fields["addr.remote"].kind,
                Some(Kind::StringValue(long.clone()))
            );
            let Some(Kind::ListValue(list)) = &read["list"].kind else {
                panic!("no list")
            };
            assert_eq!(list.values[1].kind, Some(Kind::StringValue(long)));
        }
    }
}
