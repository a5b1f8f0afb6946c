//! Appends what sinks encode to files, or to standard output. No other crate does.
//!
//! - A request is on disk before it is answered: [`FileWriter::append`] writes all of it and calls
//!   `fdatasync`. What cannot be written completely is taken back.
//! - A line is never split. A crash may leave a part of one at the end of the file; whoever opens
//!   the file next cuts it off. It was not answered, so its documents are sent again.
//! - One writer per file: it is locked (`flock`) as long as it is open.
//! - Each file has a thread of its own, so that a disk that hangs holds up nothing else.
//! - Closed files are compressed in another thread, and removed only once that is on disk.

mod appender;
mod archive;
mod error;
mod examine;
mod names;
mod output;
mod writer;

pub use appender::Rotation;
pub use archive::Compression;
pub use error::FileError;
pub use examine::examine;
pub use writer::{Appended, FileSettings, FileWriter};
