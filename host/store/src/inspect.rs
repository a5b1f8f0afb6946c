//! Reads a store, also while a host runs on it.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;

use crate::reads::Reads;
use crate::schema::FORMAT;
use crate::{OpenError, check, directory, limits, open, rows};

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

/// The cursors of a source, in a store that a start would open, and nothing is made for that: who
/// asks may be another user than that of the host.
///
/// Not while this process has the store open.
///
/// # Errors
/// There is no store, or a start would refuse it.
pub fn cursors_of(directory: &Path, source: &str) -> Result<BTreeMap<String, String>, OpenError> {
    let database = directory::database(directory);
    if let Ok(false) = database.try_exists() {
        return Err(match open::left_log(&database) {
            Some(damaged) => damaged,
            None => OpenError::Missing { path: database },
        });
    }
    let look = || {
        check::before_open(&database)?;
        let connection =
            open::glance(&database).map_err(|error| open::failed(&database, &error))?;
        check::after_open(&connection, &database, limits::FULL_CHECK_INSPECTOR)?;
        let failed = |error: &rusqlite::Error| open::failed(&database, error);
        let format = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        let format: i64 = format.map_err(|error| failed(&error))?;
        // The next start brings an earlier one up to date.
        if format == FORMAT {
            check::progress(&connection, &database)?;
        }
        let cursors = rows::cursors(&connection, source);
        cursors.map_err(|error| open::unreadable(directory, error))
    };
    // A host that has just started may have written meanwhile: then there is a log.
    look().or_else(|_| look())
}

impl Deref for Inspector {
    type Target = Reads;

    fn deref(&self) -> &Reads {
        &self.reads
    }
}

#[cfg(test)]
mod tests {
    use lockgate_ledger::Ledger;
    use lockgate_model::{Append, BlockParts, CursorUpdate, FeedKind};

    use super::*;
    use crate::{Options, Store};

    #[tokio::test]
    async fn cursors_are_read_with_and_without_a_host_and_no_file_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("50% of #1?");
        let missing = cursors_of(&path, "teleport").unwrap_err();
        assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
        let store = Store::open(Options::new(&path)).unwrap();
        let cursor = CursorUpdate {
            key: "start".to_owned(),
            value: Some("now".to_owned()),
        };
        let append = Append {
            source: "teleport".into(),
            feed: FeedKind::Audit,
            read_at: 1,
            events: BlockParts::default(),
            cursors: vec![cursor],
            gaps: Vec::new(),
            duplicates: 0,
        };
        store.append(append).await.unwrap();
        // As another process would find it.
        let copy = dir.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for file in ["store.db", "store.db-wal", "store.db-shm"] {
            std::fs::copy(path.join(file), copy.join(file)).unwrap();
        }
        let expected = BTreeMap::from([("start".to_owned(), "now".to_owned())]);
        assert_eq!(cursors_of(&copy, "teleport").unwrap(), expected);
        // The index is missing, and is not made.
        std::fs::remove_file(copy.join("store.db-shm")).unwrap();
        let log = std::fs::read(copy.join("store.db-wal")).unwrap();
        assert_eq!(cursors_of(&copy, "teleport").unwrap(), expected);
        assert!(!copy.join("store.db-shm").exists());
        assert_eq!(std::fs::read(copy.join("store.db-wal")).unwrap(), log);
        store.close().await.unwrap();
        let files = || {
            let listed = std::fs::read_dir(&path).unwrap();
            listed
                .map(|file| file.unwrap().file_name())
                .collect::<Vec<_>>()
        };
        let before = files();
        assert_eq!(cursors_of(&path, "teleport").unwrap(), expected);
        assert_eq!(files(), before);
        std::fs::rename(path.join("store.db"), path.join("store.db-wal")).unwrap();
        let left = cursors_of(&path, "teleport").unwrap_err();
        assert!(matches!(left, OpenError::Damaged { .. }), "{left}");
    }
}
