//! One database in MaxMind's format, in memory.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use maxminddb::{MaxMindDbError, Reader, WithinOptions, geoip2};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use crate::error::{DatabaseError, DatabaseFault, DatabaseKind};
use crate::file;
use crate::network::Network;
use crate::place::Place;

/// Cached answers per database. The events of a day come from few addresses.
const CACHED: usize = 8192;

/// Networks that are checked to recognise a database of the wrong kind.
const SAMPLE: usize = 1000;

/// A kind of answer, from the kind of database that contains it.
pub(crate) trait Answer: Clone + Send + Sync + Sized + 'static {
    const KIND: DatabaseKind;
    fn find(reader: &Reader<Vec<u8>>, ip: IpAddr) -> Result<Option<Self>, MaxMindDbError>;
}

impl Answer for Place {
    const KIND: DatabaseKind = DatabaseKind::City;

    fn find(reader: &Reader<Vec<u8>>, ip: IpAddr) -> Result<Option<Place>, MaxMindDbError> {
        Ok(reader
            .lookup(ip)?
            .decode::<geoip2::City<'_>>()?
            .as_ref()
            .and_then(Place::of))
    }
}

impl Answer for Network {
    const KIND: DatabaseKind = DatabaseKind::Asn;

    fn find(reader: &Reader<Vec<u8>>, ip: IpAddr) -> Result<Option<Network>, MaxMindDbError> {
        Ok(reader
            .lookup(ip)?
            .decode::<geoip2::Asn<'_>>()?
            .as_ref()
            .and_then(Network::of))
    }
}

/// A loaded database. Its content never changes.
pub(crate) struct Database<A> {
    reader: Reader<Vec<u8>>,
    answers: Cache<IpAddr, Option<Arc<A>>>,
    digest: String,
    warned: AtomicBool,
}

impl<A: Answer> Database<A> {
    /// Reads the file and checks that it is the right kind of database.
    pub(crate) fn open(path: &Path) -> Result<Database<A>, DatabaseError> {
        let opened = file::read(path).and_then(Database::new);
        opened.map_err(|reason| DatabaseError {
            database: A::KIND,
            path: path.to_owned(),
            reason,
        })
    }

    fn new(content: Vec<u8>) -> Result<Database<A>, DatabaseFault> {
        let digest = Sha256::digest(&content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let format = |error: MaxMindDbError| DatabaseFault::Format(error.to_string());
        let reader = Reader::from_source(content).map_err(format)?;
        let mut looked_at = 0;
        let mut answers = false;
        let mut fault = None;
        for network in reader
            .networks(WithinOptions::default())
            .map_err(format)?
            .take(SAMPLE)
        {
            let ip = network
                .and_then(|found| found.network())
                .map_err(format)?
                .ip();
            looked_at += 1;
            match A::find(&reader, ip) {
                Ok(Some(_)) => {
                    answers = true;
                    break;
                }
                Ok(None) => {}
                Err(error) => fault = Some(error),
            }
        }
        match fault {
            _ if answers => {}
            // The same names with fields of other types: another vendor's layout.
            Some(MaxMindDbError::Decoding { .. }) | None => {
                return Err(DatabaseFault::WrongKind {
                    kind: reader.metadata().database_type.clone(),
                    looked_at,
                    wanted: A::KIND.holds(),
                });
            }
            Some(error) => return Err(format(error)),
        }
        Ok(Database {
            reader,
            answers: Cache::new(CACHED),
            digest,
            warned: AtomicBool::new(false),
        })
    }

    /// `None` if the address is unknown or the text is not an address.
    pub(crate) fn find(&self, ip: &str) -> Option<Arc<A>> {
        // As in Java, an IPv4-mapped IPv6 address is the IPv4 address.
        let ip = ip.parse::<IpAddr>().ok()?.to_canonical();
        if let Some(known) = self.answers.get(&ip) {
            return known;
        }
        let answer = match A::find(&self.reader, ip) {
            Ok(answer) => answer.map(Arc::new),
            Err(error) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "the database `lookup.{}` is damaged; some look-ups find nothing (logged \
                         once): {error}",
                        A::KIND
                    );
                }
                None
            }
        };
        self.answers.insert(ip, answer.clone());
        answer
    }

    /// SHA-256 of the file, in hexadecimal.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// The type in the metadata, such as `GeoLite2-City`.
    pub(crate) fn kind(&self) -> &str {
        &self.reader.metadata().database_type
    }

    /// Build time, in seconds since 1970.
    pub(crate) fn built(&self) -> u64 {
        self.reader.metadata().build_epoch
    }
}

impl<A: Answer> fmt::Debug for Database<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("kind", &self.kind())
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}
