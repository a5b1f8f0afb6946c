//! Standard output.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::FileError;

/// Writes to standard output, without a buffer.
pub(crate) struct StandardOutput {
    file: File,
    /// A write has failed, perhaps in the middle of a line.
    is_broken: bool,
}

impl StandardOutput {
    pub(crate) fn open() -> Result<StandardOutput, FileError> {
        let file = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        Ok(StandardOutput::of(file.into()))
    }

    fn of(file: File) -> StandardOutput {
        StandardOutput {
            file,
            is_broken: false,
        }
    }

    /// Writes a body, with a line break at its end. What was left of a line is ended first.
    pub(crate) fn write(&mut self, body: &[u8]) -> Result<(), FileError> {
        let is_broken = std::mem::replace(&mut self.is_broken, true);
        if is_broken {
            self.file.write_all(b"\n").map_err(failed)?;
        }
        self.file.write_all(body).map_err(failed)?;
        if !body.ends_with(b"\n") {
            self.file.write_all(b"\n").map_err(failed)?;
        }
        match rustix::fs::fdatasync(&self.file) {
            // A pipe or a terminal.
            Ok(()) | Err(Errno::INVAL | Errno::ROFS | Errno::NOTSUP) => {}
            Err(error) => return Err(failed(error.into())),
        }
        self.is_broken = false;
        Ok(())
    }
}

fn failed(error: io::Error) -> FileError {
    FileError::StandardOutput(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn what_was_left_of_a_line_is_ended_before_the_next() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = StandardOutput::of(File::from(OwnedFd::from(writer)));
        output.write(b"one\n").unwrap();
        output.write(b"two").unwrap();
        // As after an error in the middle.
        output.is_broken = true;
        output.file.write_all(b"thr").unwrap();
        output.write(b"three").unwrap();
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\nthr\nthree\n");
    }
}
