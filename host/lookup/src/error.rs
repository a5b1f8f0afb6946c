//! The errors of granted databases.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// The kind of a granted database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DatabaseKind {
    /// `city`: places.
    City,
    /// `asn`: networks.
    Asn,
}

impl DatabaseKind {
    /// The key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            DatabaseKind::City => "city",
            DatabaseKind::Asn => "asn",
        }
    }

    pub(crate) fn holds(self) -> &'static str {
        match self {
            DatabaseKind::City => "places (`continent`, `country`, `city`, `location`)",
            DatabaseKind::Asn => "networks (`autonomous_system_number`)",
        }
    }
}

impl fmt::Display for DatabaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// A granted database cannot be used.
#[derive(Debug, Error)]
#[error("`{}` {reason}", path.display())]
pub struct DatabaseError {
    pub database: DatabaseKind,
    pub path: PathBuf,
    pub reason: DatabaseFault,
}

/// Why a file cannot be used as this database.
#[derive(Debug, Error)]
pub enum DatabaseFault {
    /// Missing, unreadable, or not a file.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// Another process is writing it.
    #[error("changed while it was read")]
    Unstable,
    /// Not in MaxMind's format, cut short, or damaged.
    #[error("is not a MaxMind database (`.mmdb`) or is damaged: {0}")]
    Format(String),
    /// Another kind of database.
    #[error("is a database of type `{kind}`: its first {looked_at} networks contain no {wanted}")]
    WrongKind {
        kind: String,
        looked_at: usize,
        wanted: &'static str,
    },
}
