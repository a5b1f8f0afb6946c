//! Which streams are being asked for entries that an operator sent back.

use lockgate_engine::StreamIndex;

/// For each stream: it has one redrive in flight at a time.
pub(super) struct Redrives(Vec<Redriving>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redriving {
    No,
    Yes,
    /// Entries were sent back since the ledger was asked: it may have answered without them.
    Again,
}

impl Redrives {
    /// Every stream has been asked.
    pub(super) fn asked_all(streams: usize) -> Redrives {
        Redrives(vec![Redriving::Yes; streams])
    }

    /// Entries were sent back. Answers the streams to be asked now.
    pub(super) fn retried(&mut self) -> Vec<StreamIndex> {
        let mut ask = Vec::new();
        for (index, redriving) in self.0.iter_mut().enumerate() {
            *redriving = match redriving {
                Redriving::No => {
                    ask.push(StreamIndex::new(index));
                    Redriving::Yes
                }
                Redriving::Yes | Redriving::Again => Redriving::Again,
            };
        }
        ask
    }

    /// A redrive has ended: the stream is asked for the next one.
    pub(super) fn asked_again(&mut self, stream: StreamIndex) {
        self.0[stream.get()] = Redriving::Yes;
    }

    /// The ledger had no entries. True if the stream is to be asked again.
    pub(super) fn had_none(&mut self, stream: StreamIndex) -> bool {
        let redriving = &mut self.0[stream.get()];
        let again = *redriving == Redriving::Again;
        *redriving = match again {
            true => Redriving::Yes,
            false => Redriving::No,
        };
        again
    }
}
