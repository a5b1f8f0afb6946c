use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// One of the granted databases, by its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// `city`: places.
    City,
    /// `asn`: networks.
    Asn,
}

impl Which {
    /// The key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Which::City => "city",
            Which::Asn => "asn",
        }
    }

    pub(crate) fn holds(self) -> &'static str {
        match self {
            Which::City => "places (`continent`, `country`, `city`, `location`)",
            Which::Asn => "networks (`autonomous_system_number`)",
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// A granted database cannot be used.
#[derive(Debug, Error)]
#[error("`{}` {reason}", path.display())]
pub struct OpenError {
    pub which: Which,
    pub path: PathBuf,
    pub reason: Reason,
}

/// Why a file cannot be used as this database.
#[derive(Debug, Error)]
pub enum Reason {
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
    Kind {
        kind: String,
        looked_at: usize,
        wanted: &'static str,
    },
}
