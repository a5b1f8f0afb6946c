//! The granted databases, and their replacement while the host runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockgate_stamps::{Look, Stamps, Watched};

use crate::database::{Answer, Database};
use crate::error::{DatabaseError, DatabaseFault, DatabaseKind};
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
    city: Option<CurrentDatabase<Place>>,
    asn: Option<CurrentDatabase<Network>>,
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
struct CurrentDatabase<A: Answer> {
    path: PathBuf,
    database: Arc<Database<A>>,
    watched: Watched,
}

impl Databases {
    /// Loads all granted databases, or returns an error for each that cannot be used.
    pub fn open(grant: &Grant) -> Result<Databases, Vec<DatabaseError>> {
        let mut errors = Vec::new();
        let city = grant.city.as_deref().and_then(|path| {
            CurrentDatabase::open(path)
                .map_err(|error| errors.push(error))
                .ok()
        });
        let asn = grant.asn.as_deref().and_then(|path| {
            CurrentDatabase::open(path)
                .map_err(|error| errors.push(error))
                .ok()
        });
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
            places: self.city.as_ref().map(|current| current.database.clone()),
            networks: self.asn.as_ref().map(|current| current.database.clone()),
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

impl<A: Answer> CurrentDatabase<A> {
    fn open(path: &Path) -> Result<CurrentDatabase<A>, DatabaseError> {
        // Before it is read: a change after that is seen.
        let stamps = Stamps::of([path]);
        Ok(CurrentDatabase {
            path: path.to_owned(),
            database: Arc::new(Database::open(path)?),
            watched: Watched::new(stamps),
        })
    }

    fn refresh(&mut self, refreshed: &mut Refreshed) {
        let Look::Changed(stamps) = self.watched.look() else {
            return;
        };
        match Database::open(&self.path) {
            Ok(database) => {
                self.watched.take(stamps);
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
            }) => self.watched.begin_again(),
            Err(error) => {
                self.watched.take(stamps);
                refreshed.failed.push(error);
            }
        }
    }
}
