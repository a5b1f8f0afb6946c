//! Whether a file could be written to, without touching it.

use std::fs;
use std::path::Path;

use lockgate_model::{FileTarget, Millis};
use rustix::fs::{Access, access};

use crate::names::directory;
use crate::{FileError, Rotation};

/// What would keep this process from appending now, or from rotating the file.
pub fn examine(target: &FileTarget, rotation: Rotation, now: Millis) -> Result<(), FileError> {
    let FileTarget::Path(template) = target else {
        return Ok(());
    };
    let path = template.at(now);
    match fs::metadata(&path) {
        Ok(metadata) if !metadata.is_file() => return Err(FileError::NotAFile(path)),
        Ok(_) => allows(&path, Access::READ_OK | Access::WRITE_OK)?,
        Err(_) => {}
    }
    // Directories with a placeholder in their path may be missing.
    let constant = template.constant_directory();
    let mut last = directory(&path);
    while last != constant && !last.exists() {
        last = directory(last);
    }
    let metadata = fs::metadata(last).map_err(|error| FileError::io(last, "used", &error))?;
    if !metadata.is_dir() {
        let error = std::io::ErrorKind::NotADirectory.into();
        return Err(FileError::io(last, "used", &error));
    }
    let makes_others = template.has_placeholders() || rotation != Rotation::default();
    if path.exists() && !makes_others {
        return Ok(());
    }
    allows(last, Access::WRITE_OK | Access::EXEC_OK)
}

fn allows(path: &Path, wanted: Access) -> Result<(), FileError> {
    access(path, wanted).map_err(|error| FileError::io(path, "written to", &error.into()))
}
