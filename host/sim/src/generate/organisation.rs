//! An imaginary organisation: its nodes, databases and people. It depends only on the seed.
//!
//! Fields that recur in many events are encoded once, as Struct entries that events copy.

use super::ids::Ids;
use super::lists::{ENVS, LOGINS, REGIONS, ROLES, TEAMS, USERS};
use super::rng::Rng;
use super::text::ShortText;
use super::wire::Fields;

pub(crate) struct Organisation {
    pub(crate) seed: u64,
    pub(crate) cluster: String,
    pub(crate) ids: Ids,
    pub(crate) nodes: Vec<Node>,
    pub(crate) databases: Vec<Database>,
    /// In the order of [`USERS`].
    pub(crate) people: Vec<Person>,
}

pub(crate) struct Node {
    pub(crate) id: ShortText,
    pub(crate) host: String,
    /// Encoded `server_*` entries, and `namespace`.
    pub(crate) server: Vec<u8>,
}

pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) protocol: &'static str,
    /// The `db_*` entries, and `namespace`.
    pub(crate) entries: Vec<u8>,
}

pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) roles: Vec<&'static str>,
    pub(crate) logins: Vec<&'static str>,
    /// `user`, `user_kind`, `user_cluster_name`.
    pub(crate) identity: Vec<u8>,
    /// `user_roles`, `user_traits`.
    pub(crate) grants: Vec<u8>,
    /// The entries inside `traits`.
    pub(crate) traits: Vec<u8>,
    /// The entries inside `trusted_device` or `device`.
    pub(crate) device: Vec<u8>,
}

impl Organisation {
    pub(crate) fn new(seed: u64, cluster: &str) -> Organisation {
        let mut rng = Rng::new(seed, u64::MAX);
        Organisation {
            seed,
            cluster: cluster.to_owned(),
            ids: Ids::new(seed),
            nodes: (0..60).map(|_| node(&mut rng)).collect(),
            databases: (0..8).map(|number| database(&mut rng, number)).collect(),
            people: USERS
                .iter()
                .map(|name| person(&mut rng, name, cluster))
                .collect(),
        }
    }
}

fn node(rng: &mut Rng) -> Node {
    let id = rng.uuid();
    let (env, team, region) = (rng.pick(&ENVS), rng.pick(&TEAMS), rng.pick(&REGIONS));
    let name = format!(
        "ip-10-{}-{}-{}",
        rng.below(256),
        rng.below(256),
        rng.below(256)
    );
    let host = format!("{name}.{region}.compute.internal");
    let mut server = Vec::new();
    let mut fields = Fields::new(&mut server);
    fields.text("namespace", "default");
    fields.text("server_id", id);
    fields.text("server_hostname", &host);
    fields.text("server_addr", "[::]:3022");
    fields.object("server_labels", |labels| {
        labels.text("env", env);
        labels.text("team", team);
        labels.text("region", region);
        labels.text("teleport.internal/resource-id", rng.uuid());
        labels.text("hostname", &name);
    });
    fields.text("server_version", "17.4.2");
    fields.text("server_sub_kind", "teleport");
    Node { id, host, server }
}

fn database(rng: &mut Rng, number: usize) -> Database {
    let (protocol, port) = rng.pick(&[
        ("postgres", 5432),
        ("postgres", 5432),
        ("mysql", 3306),
        ("mongodb", 27017),
    ]);
    let env = rng.pick(&ENVS);
    let name = format!("{protocol}-{env}-{number}");
    let uri = format!(
        "{name}.cluster-{}.{}.rds.amazonaws.com:{port}",
        rng.hex(12).as_str(),
        rng.pick(&REGIONS)
    );
    let mut entries = Vec::new();
    let mut fields = Fields::new(&mut entries);
    fields.text("namespace", "default");
    fields.text("db_service", &name);
    fields.text("db_protocol", protocol);
    fields.text("db_uri", uri);
    fields.text("db_name", "app");
    fields.text("db_user", "reader");
    fields.text("db_type", "rds");
    fields.text("db_origin", "cloud");
    fields.object("db_labels", |labels| {
        labels.text("env", env);
        labels.text("teleport.dev/origin", "cloud");
        labels.text("engine", protocol);
    });
    Database {
        name,
        protocol,
        entries,
    }
}

fn person(rng: &mut Rng, name: &'static str, cluster: &str) -> Person {
    let mut identity = Vec::new();
    let mut fields = Fields::new(&mut identity);
    fields.text("user", name);
    fields.number(
        "user_kind",
        if name.starts_with("bot-") { 2.0 } else { 1.0 },
    );
    fields.text("user_cluster_name", cluster);

    let mut device = Vec::new();
    let mut fields = Fields::new(&mut device);
    fields.text(
        "asset_tag",
        format!("C02{}", rng.hex(7).as_str().to_uppercase()),
    );
    fields.text("credential_id", rng.uuid());
    fields.text("device_id", rng.uuid());
    fields.number("device_origin", 1.0);
    fields.number("os_type", rng.range(1, 4) as f64);

    let count = rng.range(2, 6) as usize;
    let mut roles = rng.sample(&ROLES, count);
    roles.sort_unstable();
    let logins = rng.sample(&LOGINS, 2);
    let mut traits = Vec::new();
    let mut fields = Fields::new(&mut traits);
    fields.texts("logins", &logins);
    fields.texts("team", [rng.pick(&TEAMS)]);
    match rng.chance(0.6) {
        true => fields.texts("kubernetes_groups", ["viewers", "developers"]),
        false => fields.null("kubernetes_groups"),
    }
    match rng.chance(0.5) {
        true => fields.texts("db_users", ["reader", "writer"]),
        false => fields.null("db_users"),
    }

    let mut grants = Vec::new();
    let mut fields = Fields::new(&mut grants);
    fields.texts("user_roles", &roles);
    fields.object("user_traits", |inner| inner.entries(&traits));
    Person {
        name,
        roles,
        logins,
        identity,
        grants,
        traits,
        device,
    }
}
