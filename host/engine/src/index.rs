//! Indexes with types: an entry, a document and a stream are never confused.

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            pub fn new(index: usize) -> $name {
                $name(index as u32)
            }

            pub fn get(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index! {
    /// An entry of a batch: its first event is 0.
    EntryIndex
}
index! {
    /// A document of a batch. The first documents are the batch's events, in order; what a mapper
    /// adds follows.
    DocumentIndex
}
index! {
    /// A stream that the pipeline reads, in the order of its settings.
    StreamIndex
}
index! {
    /// An endpoint that the pipeline sends to, in the order of its settings.
    EndpointIndex
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) u64);
    };
}

id! {
    /// A batch in flight. Later batches of a pipeline have larger numbers.
    BatchId
}
id! {
    /// A request, from its encoding until its documents are final or encoded again.
    RequestId
}
id! {
    /// A call of `encode` for some documents of a batch.
    EncodingId
}
