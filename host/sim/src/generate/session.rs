//! Sessions: what stays the same from a session's first event to its last. Made of the position of
//! its `session.start` alone, so that its recording can be written without looking anything up.

use lockgate_model::Millis;

use super::ids::Kind;
use super::lists::{APPLICATIONS, LOGINS};
use super::rng::Rng;
use super::scribe;
use super::text::Short;
use super::world::{Database, Node, Person, World};

#[derive(Clone, Debug)]
pub(crate) struct SshSession {
    pub(crate) id: Short,
    pub(crate) started_at: u64,
    pub(crate) start: Millis,
    pub(crate) login: &'static str,
    pub(crate) remote: Short,
    person: usize,
    node: usize,
    /// Teleport's `ei` of the next event.
    pub(crate) index: u32,
    pub(crate) participants: Vec<&'static str>,
}

impl SshSession {
    pub(crate) fn new(world: &World, position: u64, start: Millis) -> SshSession {
        let mut rng = Rng::new(world.seed ^ Kind::Ssh as u64, position);
        let person = rng.below(world.people.len() as u64) as usize;
        SshSession {
            id: world.ids.encode(Kind::Ssh, position),
            started_at: position,
            start,
            login: rng.pick(&LOGINS),
            remote: scribe::address(&mut rng),
            person,
            node: rng.below(world.nodes.len() as u64) as usize,
            index: 0,
            participants: vec![world.people[person].name],
        }
    }

    pub(crate) fn person<'w>(&self, world: &'w World) -> &'w Person {
        &world.people[self.person]
    }

    pub(crate) fn node<'w>(&self, world: &'w World) -> &'w Node {
        &world.nodes[self.node]
    }
}

#[derive(Clone, Debug)]
pub(crate) struct DatabaseSession {
    pub(crate) id: Short,
    person: usize,
    database: usize,
    server: usize,
    pub(crate) index: u32,
}

impl DatabaseSession {
    pub(crate) fn new(world: &World, position: u64) -> DatabaseSession {
        let mut rng = Rng::new(world.seed ^ Kind::Database as u64, position);
        DatabaseSession {
            id: world.ids.encode(Kind::Database, position),
            person: rng.below(world.people.len() as u64) as usize,
            database: rng.below(world.databases.len() as u64) as usize,
            server: rng.below(world.nodes.len() as u64) as usize,
            index: 0,
        }
    }

    pub(crate) fn person<'w>(&self, world: &'w World) -> &'w Person {
        &world.people[self.person]
    }

    pub(crate) fn database<'w>(&self, world: &'w World) -> &'w Database {
        &world.databases[self.database]
    }

    pub(crate) fn server(&self, world: &World) -> Short {
        world.nodes[self.server].id
    }
}

#[derive(Clone, Debug)]
pub(crate) struct ApplicationSession {
    pub(crate) id: Short,
    pub(crate) application: &'static str,
    pub(crate) chunk: Short,
    pub(crate) remote: Short,
    person: usize,
    server: usize,
    pub(crate) index: u32,
}

impl ApplicationSession {
    pub(crate) fn new(world: &World, position: u64) -> ApplicationSession {
        let mut rng = Rng::new(world.seed ^ Kind::Application as u64, position);
        ApplicationSession {
            id: world.ids.encode(Kind::Application, position),
            application: rng.pick(&APPLICATIONS),
            chunk: rng.uuid(),
            remote: scribe::address(&mut rng),
            person: rng.below(world.people.len() as u64) as usize,
            server: rng.below(world.nodes.len() as u64) as usize,
            index: 0,
        }
    }

    pub(crate) fn person<'w>(&self, world: &'w World) -> &'w Person {
        &world.people[self.person]
    }

    pub(crate) fn server(&self, world: &World) -> Short {
        world.nodes[self.server].id
    }
}
