use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::database::{Answer, Database};
use crate::error::{OpenError, Reason, Which};
use crate::file::Stamp;
use crate::lookups::Lookups;
use crate::network::Network;
use crate::place::Place;

/// What the operator lets components look up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// A database of places in MaxMind's format, such as GeoLite2 City.
    pub city: Option<PathBuf>,
    /// A database of networks in MaxMind's format, such as GeoLite2 ASN.
    pub asn: Option<PathBuf>,
    /// User agents, by patterns that are built in.
    pub user_agents: bool,
}

/// The granted files, opened.
#[derive(Debug)]
pub struct Databases {
    city: Option<Held<Place>>,
    asn: Option<Held<Network>>,
    user_agents: bool,
}

/// What a look at the files found.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// Now answered by a new content.
    pub replaced: Vec<Replaced>,
    /// Cannot be used, so that the content before stays. Told once for each change of the file.
    pub failed: Vec<OpenError>,
}

/// A database that another one took the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    pub which: Which,
    /// Such as `GeoLite2-City`.
    pub kind: String,
    /// When it was made, in seconds since 1970.
    pub built: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
}

#[derive(Debug)]
struct Held<A: Answer> {
    path: PathBuf,
    database: Arc<Database<A>>,
    /// Of the content that is open, or that was refused.
    stamp: Option<Stamp>,
    /// What stood there at the last look, where it is something else. Taken once it has kept still
    /// from one look to the next.
    pending: Option<Option<Stamp>>,
}

impl Databases {
    /// Opens all that is granted, or says of each file why it cannot be used.
    pub fn open(grant: &Grant) -> Result<Databases, Vec<OpenError>> {
        let mut errors = Vec::new();
        let city = grant
            .city
            .as_deref()
            .and_then(|path| Held::open(path).map_err(|error| errors.push(error)).ok());
        let asn = grant
            .asn
            .as_deref()
            .and_then(|path| Held::open(path).map_err(|error| errors.push(error)).ok());
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

    /// What they say now.
    pub fn lookups(&self) -> Lookups {
        Lookups {
            places: self.city.as_ref().map(|held| held.database.clone()),
            networks: self.asn.as_ref().map(|held| held.database.clone()),
            agents: self.user_agents,
        }
    }

    /// There is no file that could change.
    pub fn is_fixed(&self) -> bool {
        self.city.is_none() && self.asn.is_none()
    }

    /// Looks at the files, and opens again what has changed and kept still since the last look.
    /// Blocks while it reads.
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

impl<A: Answer> Held<A> {
    fn open(path: &Path) -> Result<Held<A>, OpenError> {
        let (database, stamp) = Database::open(path)?;
        Ok(Held {
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
            Err(error) => Err(OpenError {
                which: A::WHICH,
                path: self.path.clone(),
                reason: Reason::Read(error),
            }),
        };
        match opened {
            Ok((database, stamp)) => {
                self.stamp = Some(stamp);
                // Written anew, with the same content: nothing to tell.
                if database.digest() != self.database.digest() {
                    self.database = Arc::new(database);
                    let database = &self.database;
                    let (kind, digest) = (database.kind().to_owned(), database.digest().to_owned());
                    refreshed.replaced.push(Replaced {
                        which: A::WHICH,
                        kind,
                        built: database.built(),
                        digest,
                    });
                }
            }
            // It is being written: the next look sees another stamp, or the same once more.
            Err(OpenError {
                reason: Reason::Unstable,
                ..
            }) => {}
            Err(error) => {
                self.stamp = now;
                refreshed.failed.push(error);
            }
        }
    }
}
