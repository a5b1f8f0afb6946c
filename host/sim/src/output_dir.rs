//! The directory to which a simulator writes its clients' credentials.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::SimError;

/// A directory of mode 0700 with files of mode 0600.
pub(crate) struct OutputDir(PathBuf);

impl OutputDir {
    pub(crate) fn create(path: &Path) -> Result<OutputDir, SimError> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path);
        made.map_err(|source| SimError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(OutputDir(path.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn holds(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.0.join(name).is_file())
    }

    /// Replaces the file atomically.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<(), SimError> {
        let path = self.0.join(name);
        let new = self.0.join(format!(".{name}.new"));
        let written = (|| -> io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(content.as_bytes())?;
            fs::rename(&new, &path)
        })();
        written.map_err(|source| SimError::Io { path, source })
    }

    pub(crate) fn read(&self, name: &str) -> Result<String, SimError> {
        let path = self.0.join(name);
        fs::read_to_string(&path).map_err(|source| SimError::Io { path, source })
    }

    pub(crate) fn certificate(&self, name: &str) -> Result<CertificateDer<'static>, SimError> {
        CertificateDer::from_pem_slice(self.read(name)?.as_bytes())
            .map_err(|error| self.damaged(name, error))
    }

    pub(crate) fn key(&self, name: &str) -> Result<PrivateKeyDer<'static>, SimError> {
        PrivateKeyDer::from_pem_slice(self.read(name)?.as_bytes())
            .map_err(|error| self.damaged(name, error))
    }

    pub(crate) fn damaged(&self, name: &str, reason: impl ToString) -> SimError {
        SimError::Damaged {
            path: self.0.clone(),
            reason: format!("`{name}`: {}", reason.to_string()),
        }
    }
}
