//! One channel (RFC 4254, section 5), without I/O: windows, and what its messages mean.

use crate::Error;
use crate::message::{
    CHANNEL_CLOSE, CHANNEL_DATA, CHANNEL_EOF, CHANNEL_EXTENDED_DATA, CHANNEL_FAILURE,
    CHANNEL_REQUEST, CHANNEL_SUCCESS, CHANNEL_WINDOW_ADJUST,
};
use crate::wire::{Put, Reader};

/// Our number of the only channel.
pub(crate) const OURS: u32 = 0;
/// How many bytes the other side may send before they are used.
pub(crate) const WINDOW: u32 = 2 << 20;
/// Largest piece of data that we take.
pub(crate) const PIECE: u32 = 32 * 1024;

/// What a message of the channel means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    Data(&'a [u8]),
    /// What the other side says of an error.
    Stderr(&'a [u8]),
    /// The other side sends no more.
    Eof,
    /// The other side has closed the channel.
    Closed,
    /// The answer to a request.
    Answer(bool),
    Request {
        name: &'a [u8],
        wants_reply: bool,
        payload: &'a [u8],
    },
    /// The window has grown.
    Adjusted,
}

#[derive(Debug)]
pub(crate) struct Channel {
    /// Its number at the other side.
    pub theirs: u32,
    /// How much may be sent.
    window: u32,
    /// The largest piece that may be sent.
    piece: u32,
    /// How much may still come.
    allowed: u32,
    /// Used since the other side was told.
    used: u32,
}

impl Channel {
    pub fn new(theirs: u32, window: u32, piece: u32) -> Result<Channel, Error> {
        if piece == 0 {
            return Err(Error::Protocol("a channel that takes nothing"));
        }
        Ok(Channel {
            theirs,
            window,
            piece: piece.min(PIECE),
            allowed: WINDOW,
            used: 0,
        })
    }

    /// Reads a message. `None`: it is none of a channel.
    pub fn read<'a>(&mut self, message: &'a [u8]) -> Result<Option<Item<'a>>, Error> {
        if !(CHANNEL_WINDOW_ADJUST..=CHANNEL_FAILURE).contains(&message[0]) {
            return Ok(None);
        }
        let malformed = Error::Protocol("a malformed message of a channel");
        self.item(message).ok_or(malformed)?.map(Some)
    }

    fn item<'a>(&mut self, message: &'a [u8]) -> Option<Result<Item<'a>, Error>> {
        let mut reader = Reader(&message[1..]);
        if reader.number()? != OURS {
            return Some(Err(Error::Protocol("a message of another channel")));
        }
        Some(Ok(match message[0] {
            CHANNEL_WINDOW_ADJUST => {
                let Some(window) = self.window.checked_add(reader.number()?) else {
                    return Some(Err(Error::Protocol("too large a window")));
                };
                self.window = window;
                Item::Adjusted
            }
            CHANNEL_DATA | CHANNEL_EXTENDED_DATA => {
                let is_stderr = message[0] == CHANNEL_EXTENDED_DATA;
                if is_stderr {
                    reader.number()?;
                }
                let data = reader.string()?;
                let length = u32::try_from(data.len()).ok()?;
                let Some(allowed) = self.allowed.checked_sub(length) else {
                    return Some(Err(Error::Protocol("more data than its window allows")));
                };
                self.allowed = allowed;
                if is_stderr {
                    Item::Stderr(data)
                } else {
                    Item::Data(data)
                }
            }
            CHANNEL_EOF => Item::Eof,
            CHANNEL_CLOSE => Item::Closed,
            CHANNEL_SUCCESS => Item::Answer(true),
            CHANNEL_FAILURE => Item::Answer(false),
            CHANNEL_REQUEST => Item::Request {
                name: reader.string()?,
                wants_reply: reader.flag()?,
                payload: reader.0,
            },
            _ => return None,
        }))
    }

    /// How many bytes may be sent at once.
    pub fn room(&self) -> usize {
        self.window.min(self.piece) as usize
    }

    /// A piece of data, of at most [`room`](Self::room) bytes.
    pub fn data(&mut self, data: &[u8]) -> Vec<u8> {
        self.window -= data.len() as u32;
        let mut message = self.message(CHANNEL_DATA);
        message.put_string(data);
        message
    }

    /// Data has been used. If much has, the message that lets the other side send more.
    pub fn use_up(&mut self, bytes: usize) -> Option<Vec<u8>> {
        self.used += bytes as u32;
        (self.used >= WINDOW / 2).then(|| {
            let mut message = self.message(CHANNEL_WINDOW_ADJUST);
            message.put_number(self.used);
            self.allowed += self.used;
            self.used = 0;
            message
        })
    }

    /// A message that has nothing but the number of the channel, so far.
    pub fn message(&self, kind: u8) -> Vec<u8> {
        let mut message = vec![kind];
        message.put_number(self.theirs);
        message
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::string;

    fn of(kind: u8, rest: &[u8]) -> Vec<u8> {
        [&[kind][..], &OURS.to_be_bytes(), rest].concat()
    }

    #[test]
    fn windows_are_kept() {
        let mut channel = Channel::new(7, 10, PIECE).expect("a channel");
        assert_eq!(channel.room(), 10);
        let sent = channel.data(b"0123456789");
        assert_eq!(sent[..5], [CHANNEL_DATA, 0, 0, 0, 7]);
        assert_eq!(channel.room(), 0);
        let more = of(CHANNEL_WINDOW_ADJUST, &5u32.to_be_bytes());
        assert_eq!(channel.read(&more), Ok(Some(Item::Adjusted)));
        assert_eq!(channel.room(), 5);
        let too_much = of(CHANNEL_WINDOW_ADJUST, &u32::MAX.to_be_bytes());
        assert!(channel.read(&too_much).is_err());

        // The other side may send what was used, and no more.
        let piece = of(CHANNEL_DATA, &string(&[0; PIECE as usize]));
        for _ in 0..WINDOW / PIECE {
            assert!(matches!(channel.read(&piece), Ok(Some(Item::Data(_)))));
        }
        assert!(channel.read(&piece).is_err());
        assert_eq!(channel.use_up(5), None);
        let adjust = channel.use_up(WINDOW as usize - 5).expect("a message");
        assert_eq!(adjust[5..], WINDOW.to_be_bytes());
        assert!(channel.read(&piece).is_ok());
    }

    proptest! {
        #[test]
        fn any_message_is_read_or_refused(kind in 85..105u8, rest: Vec<u8>) {
            let mut channel = Channel::new(0, 1, 1).expect("a channel");
            let _ = channel.read(&of(kind, &rest));
            let _ = channel.read(&[&[kind], &rest[..]].concat());
        }
    }
}
