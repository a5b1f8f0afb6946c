use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Which of the granted databases, as the operator calls it.
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

/// Why a file is no database for its purpose.
#[derive(Debug, Error)]
pub enum Reason {
    /// Not there, not a file, or not to be read.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// Somebody writes to it.
    #[error("changed while it was read")]
    Unstable,
    /// Not in MaxMind's format, cut short, or damaged.
    #[error("is not a MaxMind database (`.mmdb`), or is damaged: {0}")]
    Format(String),
    /// Another kind of database.
    #[error(
        "is a database of the type `{kind}`, and none of its first {looked_at} networks holds {wanted}"
    )]
    Kind {
        kind: String,
        looked_at: usize,
        wanted: &'static str,
    },
}
