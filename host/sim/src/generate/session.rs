//! The attributes that a session keeps from its first event to its last. They depend only on the
//! position of its `session.start`, so its recording can be written without an index.

use lockgate_model::Millis;

use super::event_writer;
use super::ids::IdKind;
use super::lists::{APPLICATIONS, LOGINS};
use super::organisation::{Database, Node, Organisation, Person};
use super::rng::Rng;
use super::text::ShortText;

#[derive(Clone, Debug)]
pub(crate) struct SshSession {
    pub(crate) id: ShortText,
    pub(crate) started_at: u64,
    pub(crate) start: Millis,
    pub(crate) login: &'static str,
    pub(crate) remote: ShortText,
    person: usize,
    node: usize,
    /// Teleport's `ei` of the next event.
    pub(crate) index: u32,
    pub(crate) participants: Vec<&'static str>,
}

impl SshSession {
    pub(crate) fn new(organisation: &Organisation, position: u64, start: Millis) -> SshSession {
        let mut rng = Rng::new(organisation.seed ^ IdKind::Ssh as u64, position);
        let person = rng.below(organisation.people.len() as u64) as usize;
        SshSession {
            id: organisation.ids.encode(IdKind::Ssh, position),
            started_at: position,
            start,
            login: rng.pick(&LOGINS),
            remote: event_writer::address(&mut rng),
            person,
            node: rng.below(organisation.nodes.len() as u64) as usize,
            index: 0,
            participants: vec![organisation.people[person].name],
        }
    }

    pub(crate) fn person<'w>(&self, organisation: &'w Organisation) -> &'w Person {
        &organisation.people[self.person]
    }

    pub(crate) fn node<'w>(&self, organisation: &'w Organisation) -> &'w Node {
        &organisation.nodes[self.node]
    }
}

#[derive(Clone, Debug)]
pub(crate) struct DatabaseSession {
    pub(crate) id: ShortText,
    person: usize,
    database: usize,
    server: usize,
    pub(crate) index: u32,
}

impl DatabaseSession {
    pub(crate) fn new(organisation: &Organisation, position: u64) -> DatabaseSession {
        let mut rng = Rng::new(organisation.seed ^ IdKind::Database as u64, position);
        DatabaseSession {
            id: organisation.ids.encode(IdKind::Database, position),
            person: rng.below(organisation.people.len() as u64) as usize,
            database: rng.below(organisation.databases.len() as u64) as usize,
            server: rng.below(organisation.nodes.len() as u64) as usize,
            index: 0,
        }
    }

    pub(crate) fn person<'w>(&self, organisation: &'w Organisation) -> &'w Person {
        &organisation.people[self.person]
    }

    pub(crate) fn database<'w>(&self, organisation: &'w Organisation) -> &'w Database {
        &organisation.databases[self.database]
    }

    pub(crate) fn server(&self, organisation: &Organisation) -> ShortText {
        organisation.nodes[self.server].id
    }
}

#[derive(Clone, Debug)]
pub(crate) struct ApplicationSession {
    pub(crate) id: ShortText,
    pub(crate) application: &'static str,
    pub(crate) chunk: ShortText,
    pub(crate) remote: ShortText,
    person: usize,
    server: usize,
    pub(crate) index: u32,
}

impl ApplicationSession {
    pub(crate) fn new(organisation: &Organisation, position: u64) -> ApplicationSession {
        let mut rng = Rng::new(organisation.seed ^ IdKind::Application as u64, position);
        ApplicationSession {
            id: organisation.ids.encode(IdKind::Application, position),
            application: rng.pick(&APPLICATIONS),
            chunk: rng.uuid(),
            remote: event_writer::address(&mut rng),
            person: rng.below(organisation.people.len() as u64) as usize,
            server: rng.below(organisation.nodes.len() as u64) as usize,
            index: 0,
        }
    }

    pub(crate) fn person<'w>(&self, organisation: &'w Organisation) -> &'w Person {
        &organisation.people[self.person]
    }

    pub(crate) fn server(&self, organisation: &Organisation) -> ShortText {
        organisation.nodes[self.server].id
    }
}
