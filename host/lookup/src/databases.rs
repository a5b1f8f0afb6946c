//! The granted databases, and their replacement while the host runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::database::{Answer, Database};
use crate::error::{DatabaseError, DatabaseFault, DatabaseKind};
use crate::file::Stamp;
use crate::lookups::Lookups;
use crate::network::Network;
use crate::place::Place;

/// The databases that the operator grants to components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// A database of places in MaxMind's format, such as GeoLite2 City.
    pub city: Option<PathBuf>,
    /// A database of networks in MaxMind's format, such as GeoLite2 ASN.
    pub asn: Option<PathBuf>,
    /// User agents, by patterns that are built in.
    pub user_agents: bool,
}

/// The granted databases, loaded.
#[derive(Debug)]
pub struct Databases {
    city: Option<Watched<Place>>,
    asn: Option<Watched<Network>>,
    user_agents: bool,
}

/// The result of [`Databases::refresh`].
#[derive(Debug, Default)]
pub struct Refreshed {
    /// Databases with new content.
    pub replaced: Vec<Replaced>,
    /// Files that cannot be used, so that the previous content stays. Reported once for each change
    /// of the file.
    pub failed: Vec<DatabaseError>,
}

/// A database with new content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    pub database: DatabaseKind,
    /// The type in the metadata, such as `GeoLite2-City`.
    pub kind: String,
    /// Build time, in seconds since 1970.
    pub built: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
}

/// A loaded database, and the file to watch for changes.
#[derive(Debug)]
struct Watched<A: Answer> {
    path: PathBuf,
    database: Arc<Database<A>>,
    /// The stamp of the loaded or refused content.
    stamp: Option<Stamp>,
    /// A different stamp that the last check found. The file is loaded once two checks in a row
    /// find the same one.
    pending: Option<Option<Stamp>>,
}

impl Databases {
    /// Loads all granted databases, or returns an error for each that cannot be used.
    pub fn open(grant: &Grant) -> Result<Databases, Vec<DatabaseError>> {
        let mut errors = Vec::new();
        let city = grant
            .city
            .as_deref()
            .and_then(|path| Watched::open(path).map_err(|error| errors.push(error)).ok());
        let asn = grant
            .asn
            .as_deref()
            .and_then(|path| Watched::open(path).map_err(|error| errors.push(error)).ok());
        if errors.is_empty() {
            Ok(Databases {
                city,
                asn,
                user_agents: grant.user_agents,
            })
        } else {
            Err(errors)
        }
    }

    /// The current content.
    pub fn lookups(&self) -> Lookups {
        Lookups {
            places: self.city.as_ref().map(|watched| watched.database.clone()),
            networks: self.asn.as_ref().map(|watched| watched.database.clone()),
            agents: self.user_agents,
        }
    }

    /// Whether there is no file that could change.
    pub fn is_fixed(&self) -> bool {
        self.city.is_none() && self.asn.is_none()
    }

    /// Checks the files, and loads those that have changed and were stable since the last check.
    /// Blocks while reading.
    pub fn refresh(&mut self) -> Refreshed {
        let mut refreshed = Refreshed::default();
        if let Some(city) = &mut self.city {
            city.refresh(&mut refreshed);
        }
        if let Some(asn) = &mut self.asn {
            asn.refresh(&mut refreshed);
        }
        refreshed
    }
}

impl<A: Answer> Watched<A> {
    fn open(path: &Path) -> Result<Watched<A>, DatabaseError> {
        let (database, stamp) = Database::open(path)?;
        Ok(Watched {
            path: path.to_owned(),
            database: Arc::new(database),
            stamp: Some(stamp),
            pending: None,
        })
    }

    fn refresh(&mut self, refreshed: &mut Refreshed) {
        let found = Stamp::of(&self.path);
        let now = found.as_ref().ok().cloned();
        if now == self.stamp {
            self.pending = None;
            return;
        }
        if self.pending.as_ref() != Some(&now) {
            self.pending = Some(now);
            return;
        }
        self.pending = None;
        let opened = match found {
            Ok(_) => Database::open(&self.path),
            Err(error) => Err(DatabaseError {
                database: A::KIND,
                path: self.path.clone(),
                reason: DatabaseFault::Read(error),
            }),
        };
        match opened {
            Ok((database, stamp)) => {
                self.stamp = Some(stamp);
                // Rewritten with the same content: nothing has changed.
                if database.digest() != self.database.digest() {
                    self.database = Arc::new(database);
                    let database = &self.database;
                    let (kind, digest) = (database.kind().to_owned(), database.digest().to_owned());
                    refreshed.replaced.push(Replaced {
                        database: A::KIND,
                        kind,
                        built: database.built(),
                        digest,
                    });
                }
            }
            // The file is being written: the next check decides.
            Err(DatabaseError {
                reason: DatabaseFault::Unstable,
                ..
            }) => {}
            Err(error) => {
                self.stamp = now;
                refreshed.failed.push(error);
            }
        }
    }
}
