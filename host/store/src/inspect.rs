//! Reads a store, also while a host runs on it.

use std::ops::Deref;
use std::path::Path;

use crate::reads::Reads;
use crate::schema::FORMAT;
use crate::{OpenError, check, directory, limits, open};

/// Looks into a store without changing it, whether or not a host runs. Takes no lock.
/// See [`Reads`] for what can be read.
///
/// SQLite's readers need to write `store.db-shm`, so the directory has to be writable if no host
/// runs.
pub struct Inspector {
    reads: Reads,
}

impl Inspector {
    /// Opens the store in the directory. Refuses what [`Store::open`](crate::Store::open) refuses,
    /// except that it may be in use.
    pub fn open(path: impl AsRef<Path>) -> Result<Inspector, OpenError> {
        Inspector::checked(path.as_ref(), true)
    }

    /// The same to audit or verify the store, which names each row of a pipeline or a source that
    /// is not what was written, and goes on with the others. Nothing else may trust such rows.
    pub fn open_to_audit(path: impl AsRef<Path>) -> Result<Inspector, OpenError> {
        Inspector::checked(path.as_ref(), false)
    }

    fn checked(path: &Path, trusts_progress: bool) -> Result<Inspector, OpenError> {
        let database = directory::database(path);
        match database.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(OpenError::Missing { path: database }),
            Err(source) => {
                return Err(OpenError::Io {
                    doing: "open",
                    path: database,
                    source,
                });
            }
        }
        check::before_open(&database)?;
        let connection =
            open::reader(&database).map_err(|error| open::failed(&database, &error))?;
        check::after_open(&connection, &database, limits::FULL_CHECK_INSPECTOR)?;
        if trusts_progress {
            check::progress(&connection, &database)?;
        }
        let format = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        let format: i64 = format.map_err(|error| open::failed(&database, &error))?;
        if format < FORMAT {
            return Err(OpenError::Older {
                path: database,
                found: format,
                known: FORMAT,
            });
        }
        Ok(Inspector {
            reads: Reads::new(database),
        })
    }
}

impl Deref for Inspector {
    type Target = Reads;

    fn deref(&self) -> &Reads {
        &self.reads
    }
}
