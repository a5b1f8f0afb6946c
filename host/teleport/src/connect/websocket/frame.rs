//! The frames of a WebSocket (RFC 6455, section 5), without I/O.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Largest payload of a control frame, in bytes.
const CONTROL_MAX: usize = 125;
const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// A client sets the mask bit, with a key of zero; a server does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// What a decoder has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The next bytes of the stream: the payload of a binary message, or a part of it.
    Data(Bytes),
    /// To be answered with the same payload.
    Ping(Bytes),
    /// The other side sends nothing more.
    Close,
}

/// Why the bytes are not frames that the other side may send.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("a WebSocket frame has reserved bits")]
    Reserved,
    #[error("a WebSocket control frame is too long or in parts")]
    Control,
    #[error("a WebSocket frame is longer than 2^63 bytes")]
    Length,
    #[error("a WebSocket frame of the server is masked")]
    Masked,
    #[error("a WebSocket frame of the client is not masked, or not with a key of zero")]
    NotMaskedWithZero,
}

/// Turns bytes into items, however the bytes are cut.
#[derive(Debug)]
pub struct Decoder {
    /// Of this side.
    role: Role,
    buffer: BytesMut,
    /// Bytes that are left of the payload of a data frame, and whether they belong to the stream.
    payload: u64,
    is_binary: bool,
    error: Option<FrameError>,
}

/// The header of a frame.
struct Header {
    bytes: usize,
    opcode: u8,
    length: u64,
}

impl Decoder {
    pub fn new(role: Role) -> Decoder {
        Decoder {
            role,
            buffer: BytesMut::new(),
            payload: 0,
            is_binary: false,
            error: None,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether all that was pushed belongs to whole frames that have been returned.
    pub fn is_between_frames(&self) -> bool {
        self.payload == 0 && self.buffer.is_empty()
    }

    /// The next item; `None`: more bytes are needed. An error stays.
    #[allow(
        clippy::should_implement_trait,
        reason = "it goes on after it returned `None`"
    )]
    pub fn next(&mut self) -> Result<Option<Item>, FrameError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let next = self.advance();
        self.error = next.as_ref().err().copied();
        next
    }

    fn advance(&mut self) -> Result<Option<Item>, FrameError> {
        loop {
            if self.payload > 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                let length = self.payload.min(self.buffer.len() as u64) as usize;
                self.payload -= length as u64;
                let bytes = self.buffer.split_to(length);
                if self.is_binary {
                    return Ok(Some(Item::Data(bytes.freeze())));
                }
                continue;
            }
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            match header.opcode {
                // Control frames are returned whole, and may stand between the parts of a message.
                8.. => {
                    let end = header.bytes + header.length as usize;
                    if self.buffer.len() < end {
                        return Ok(None);
                    }
                    self.buffer.advance(header.bytes);
                    let payload = self.buffer.split_to(header.length as usize).freeze();
                    match header.opcode {
                        8 => return Ok(Some(Item::Close)),
                        9 => return Ok(Some(Item::Ping(payload))),
                        // Pongs, and what later versions may define.
                        _ => {}
                    }
                }
                opcode => {
                    self.buffer.advance(header.bytes);
                    self.payload = header.length;
                    // 0 goes on with the message before. Other messages than binary ones are not
                    // of the stream.
                    if opcode != 0 {
                        self.is_binary = opcode == Opcode::Binary as u8;
                    }
                }
            }
        }
    }

    /// The header at the start of the buffer, which is left there.
    fn header(&self) -> Result<Option<Header>, FrameError> {
        let &[first, second, ref rest @ ..] = &self.buffer[..] else {
            return Ok(None);
        };
        if first & RESERVED != 0 {
            return Err(FrameError::Reserved);
        }
        let (is_final, opcode) = (first & FINAL != 0, first & 0x0f);
        let (length, after) = match second & !MASKED {
            126 => match rest.split_first_chunk() {
                Some((length, after)) => (u64::from(u16::from_be_bytes(*length)), after),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((length, after)) => (u64::from_be_bytes(*length), after),
                None => return Ok(None),
            },
            length => (u64::from(length), rest),
        };
        if length >> 63 != 0 {
            return Err(FrameError::Length);
        }
        if opcode >= 8 && (!is_final || length > CONTROL_MAX as u64) {
            return Err(FrameError::Control);
        }
        let is_masked = second & MASKED != 0;
        let after = match (self.role, is_masked) {
            (Role::Client, false) => after,
            (Role::Client, true) => return Err(FrameError::Masked),
            (Role::Server, false) => return Err(FrameError::NotMaskedWithZero),
            (Role::Server, true) => match after.split_first_chunk::<4>() {
                Some((&[0, 0, 0, 0], after)) => after,
                Some(_) => return Err(FrameError::NotMaskedWithZero),
                None => return Ok(None),
            },
        };
        Ok(Some(Header {
            bytes: self.buffer.len() - after.len(),
            opcode,
            length,
        }))
    }
}

/// Appends a final frame.
pub(super) fn write_frame(out: &mut BytesMut, role: Role, opcode: Opcode, payload: &[u8]) {
    let mask = match role {
        Role::Client => MASKED,
        Role::Server => 0,
    };
    let length = payload.len();
    out.extend_from_slice(&[FINAL | opcode as u8]);
    match length {
        0..126 => out.extend_from_slice(&[mask | length as u8]),
        126..0x1_0000 => {
            out.extend_from_slice(&[mask | 126]);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[mask | 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if role == Role::Client {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All items, with neighbouring data joined, and how it ended.
    fn items(role: Role, pieces: &[&[u8]]) -> (Vec<Item>, Result<bool, FrameError>) {
        let mut decoder = Decoder::new(role);
        let mut items: Vec<Item> = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next() {
                    Ok(Some(Item::Data(more))) => match items.last_mut() {
                        Some(Item::Data(data)) => *data = [&data[..], &more].concat().into(),
                        _ => items.push(Item::Data(more)),
                    },
                    Ok(Some(item)) => items.push(item),
                    Ok(None) => break,
                    Err(error) => return (items, Err(error)),
                }
            }
        }
        (items, Ok(decoder.is_between_frames()))
    }

    fn data(bytes: &'static [u8]) -> Item {
        Item::Data(Bytes::from_static(bytes))
    }

    #[test]
    fn frames_of_a_server_are_read() {
        for (bytes, expected, ended) in [
            (&[0x82, 2, b'h', b'i'][..], vec![data(b"hi")], Ok(true)),
            // In two parts, with a ping between them.
            (
                &[0x02, 1, b'h', 0x89, 1, b'p', 0x80, 1, b'i'],
                vec![data(b"h"), Item::Ping("p".into()), data(b"i")],
                Ok(true),
            ),
            // Text, its second part and a pong are not of the stream.
            (
                &[0x01, 1, b't', 0x80, 1, b't', 0x8a, 1, b'p', 0x82, 1, b'x'],
                vec![data(b"x")],
                Ok(true),
            ),
            (&[0x88, 2, 3, 0xe8], vec![Item::Close], Ok(true)),
            (&[0x82, 126, 0, 2, b'h', b'i'], vec![data(b"hi")], Ok(true)),
            (
                &[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, b'x'],
                vec![data(b"x")],
                Ok(true),
            ),
            (&[0x82, 3, b'h'], vec![data(b"h")], Ok(false)),
            (&[0x82, 0], vec![], Ok(true)),
            (&[0xc2, 0], vec![], Err(FrameError::Reserved)),
            (&[0x09, 0], vec![], Err(FrameError::Control)),
            (&[0x89, 126, 0, 126], vec![], Err(FrameError::Control)),
            (
                &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
                vec![],
                Err(FrameError::Length),
            ),
            (
                &[0x82, 0x81, 0, 0, 0, 0, b'x'],
                vec![],
                Err(FrameError::Masked),
            ),
        ] {
            assert_eq!(
                items(Role::Client, &[bytes]),
                (expected, ended),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_server_takes_a_key_of_zero_alone() {
        for (bytes, expected, ended) in [
            (
                &[0x82, 0x81, 0, 0, 0, 0, b'x'][..],
                vec![data(b"x")],
                Ok(true),
            ),
            (
                &[0x82, 0x81, 1, 2, 3, 4, b'x'],
                vec![],
                Err(FrameError::NotMaskedWithZero),
            ),
            (&[0x82, 1, b'x'], vec![], Err(FrameError::NotMaskedWithZero)),
        ] {
            assert_eq!(
                items(Role::Server, &[bytes]),
                (expected, ended),
                "{bytes:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_one_side_writes_the_other_reads_however_it_is_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
            long in prop_oneof![9 => Just(0usize), 1 => 60_000..70_000usize],
            cut in 1..400usize,
            is_client: bool,
        ) {
            let (from, to) = match is_client {
                true => (Role::Client, Role::Server),
                false => (Role::Server, Role::Client),
            };
            let mut wire = BytesMut::new();
            let payloads = [payloads, vec![vec![7; long]]].concat();
            for payload in &payloads {
                write_frame(&mut wire, from, Opcode::Binary, payload);
                write_frame(&mut wire, from, Opcode::Pong, b"ignored");
            }
            let pieces: Vec<&[u8]> = wire.chunks(cut).collect();
            let (items, ended) = items(to, &pieces);
            prop_assert_eq!(ended, Ok(true));
            let bytes: Vec<u8> = items.iter().flat_map(|item| match item {
                Item::Data(bytes) => bytes.to_vec(),
                _ => panic!("{item:?}"),
            }).collect();
            prop_assert_eq!(bytes, payloads.concat());
        }

        #[test]
        fn any_bytes_mean_the_same_however_they_are_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cut in 1..20usize,
        ) {
            let whole = items(Role::Client, &[&bytes]);
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(items(Role::Client, &pieces), whole);
        }
    }
}
