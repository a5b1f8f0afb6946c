//! `[lookup]`: the databases that filters and mappers may use.

use std::ops::Range;
use std::path::PathBuf;

use crate::reading::Reading;
use crate::table::Table;

/// The databases that components may look up. Without a database, look-ups find nothing; they do
/// not fail.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    /// `city`: a database of places in MaxMind's format.
    pub city: Option<Database>,
    /// `asn`: a database of networks in MaxMind's format.
    pub asn: Option<Database>,
    /// `user-agents`: by patterns that are built in. Default true.
    pub user_agents: bool,
}

/// A MaxMind database file.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    pub path: PathBuf,
    /// The span of the path in the TOML text.
    pub span: Range<usize>,
}

impl Default for Lookup {
    fn default() -> Lookup {
        Lookup {
            city: None,
            asn: None,
            user_agents: true,
        }
    }
}

pub(crate) fn read(r: &mut Reading<'_>, root: &mut Table<'_>) -> Lookup {
    let Some(mut table) = root.optional("lookup").and_then(|value| value.table(r)) else {
        return Lookup::default();
    };
    let mut database = |r: &mut Reading<'_>, key| {
        let value = table.optional(key)?;
        value.path(r).map(|path| Database {
            path,
            span: value.span(),
        })
    };
    let (city, asn) = (database(r, "city"), database(r, "asn"));
    let user_agents = table
        .optional("user-agents")
        .and_then(|value| value.flag(r))
        .unwrap_or(true);
    table.finish(r);
    Lookup {
        city,
        asn,
        user_agents,
    }
}
