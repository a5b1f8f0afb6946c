//! Enriches a document: places and networks of its addresses, and `related.*`, which analysts
//! search.

use crate::document::{Document, Fault, INSIDE};
use crate::keys::{Key, Name, Path};
use crate::lookup::Lookup;
use crate::parse::{address, text_form};
use crate::rules::Rules;
use crate::value::{Object, Value, part_of};

/// A role of an address in an event.
struct Role {
    key: Key,
    address: Path,
    ip: Path,
    /// Whether an address that is neither an IP address nor a host name ends the enrichment.
    strict: bool,
}

const ROLES: [Role; 4] = [
    Role {
        key: Key::of("client"),
        address: Path::of("client.address"),
        ip: Path::of("client.ip"),
        strict: true,
    },
    Role {
        key: Key::of("server"),
        address: Path::of("server.address"),
        ip: Path::of("server.ip"),
        strict: true,
    },
    Role {
        key: Key::of("source"),
        address: Path::of("source.address"),
        ip: Path::of("source.ip"),
        strict: false,
    },
    Role {
        key: Key::of("destination"),
        address: Path::of("destination.address"),
        ip: Path::of("destination.ip"),
        strict: false,
    },
];

/// The sources of `related.ip`.
static IPS: [Path; 5] = [
    Path::of("client.ip"),
    Path::of("destination.ip"),
    Path::of("server.ip"),
    Path::of("source.ip"),
    Path::of(".certificate.identity.client_ip"),
];

/// Most events do not have it, so one check replaces those of all its paths.
const CERTIFICATE: Key = Key::of("certificate");

/// The sources of `related.hosts`.
static HOSTS: [Path; 7] = [
    Path::of("host.hostname"),
    Path::of("client.domain"),
    Path::of("destination.domain"),
    Path::of("server.domain"),
    Path::of("source.domain"),
    Path::of("url.domain"),
    Path::of(".app.public_address"),
];

/// The sources of `related.user`, each with a prefix of the event types to which it applies.
static USERS: [(Path, &str); 7] = [
    (USER_NAME, ""),
    (USER_EMAIL, ""),
    (Path::of(".resource.name"), "user."),
    (Path::of("process.user.name"), ""),
    (Path::of(".database.user"), ""),
    (Path::of(".database.user_change.username"), ""),
    (Path::of(".certificate.identity.user"), ""),
];

/// Lists whose elements go to `related.user`.
static USER_LISTS: [Path; 3] = [
    Path::of(".certificate.identity.logins"),
    Path::of(".certificate.identity.participants"),
    Path::of(".certificate.identity.database_users"),
];

const IP: Key = Key::of("ip");
const DOMAIN: Key = Key::of("domain");
const GEO: Key = Key::of("geo");
const AS: Key = Key::of("as");
const USER_NAME: Path = Path::of("user.name");
const USER_EMAIL: Path = Path::of("user.email");
const USER_DOMAIN: Path = Path::of("user.domain");
static RESOURCE_NAME: Path = Path::of("orchestrator.resource.name");
static IMPERSONATOR: Path = Path::of(".certificate.identity.impersonator");
static LABELLED_HOST: Path = Path::of(".server.labels.hostname");
static RELATED_IP: Path = Path::of("related.ip");
static RELATED_HOSTS: Path = Path::of("related.hosts");
static RELATED_USER: Path = Path::of("related.user");

/// Enriches the document. The first failure ends it without a message, and keeps what has been
/// written so far.
pub fn enrich<L: Lookup>(
    document: &mut Document<'_>,
    rules: &Rules,
    lookup: &L,
    action: Option<&str>,
) -> Result<(), Fault> {
    for role in &ROLES {
        locate(document, lookup, role, rules.corrected)?;
    }
    if rules.later {
        split_email(document, rules)?;
    }
    let certificate = document.audit.get(CERTIFICATE).is_some();
    let worth = |path: &&Path| certificate || !path.inside || path.first() != Some(CERTIFICATE);
    for path in IPS.iter().filter(worth) {
        relate(document, rules, path, &RELATED_IP)?;
    }
    for path in &HOSTS {
        relate(document, rules, path, &RELATED_HOSTS)?;
    }
    for (path, start) in USERS.iter().filter(|(path, _)| worth(&path)) {
        if start.is_empty() || action.ok_or(INSIDE)?.starts_with(start) {
            relate(document, rules, path, &RELATED_USER)?;
        }
    }
    if rules.corrected && action.is_some_and(|action| action.starts_with("user.")) {
        // Q12: the `name` of every event has been moved, so `.resource.name` never exists.
        relate(document, rules, &RESOURCE_NAME, &RELATED_USER)?;
    }
    for path in USER_LISTS.iter().filter(worth) {
        let Some(value) = document.present(path)? else {
            continue;
        };
        let users = value.as_list().ok_or("this is not a list")?.clone();
        if document.at(&RELATED_USER).is_none() && !rules.corrected {
            return Err("no user is known yet");
        }
        for user in users {
            // Q13: appended even if the list already contains it.
            document.add(rules, &RELATED_USER, user, rules.corrected)?;
        }
    }
    if certificate {
        relate(document, rules, &IMPERSONATOR, &RELATED_USER)?;
    }
    relate(document, rules, &LABELLED_HOST, &RELATED_HOSTS)
}

fn relate(document: &mut Document<'_>, rules: &Rules, from: &Path, to: &Path) -> Result<(), Fault> {
    let Some(value) = document.present(from)? else {
        return Ok(());
    };
    let text = text_form::rendered(value);
    document.add(rules, to, Value::Text(text), true)
}

fn locate<L: Lookup>(
    document: &mut Document<'_>,
    lookup: &L,
    role: &Role,
    corrected: bool,
) -> Result<(), Fault> {
    if document.root.position(role.key).is_none() {
        return Ok(());
    }
    if let Some(value) = document.present(&role.address)? {
        let text = value.as_text().unwrap_or_default();
        let object = document
            .root
            .get(role.key)
            .and_then(Value::as_object)
            .ok_or(INSIDE)?;
        if address::is_ip(&text) {
            object.put(IP, Value::Text(text));
        } else if address::is_host_name(&text, corrected) {
            object.put(DOMAIN, Value::Text(text));
        } else if role.strict {
            return Err("this is neither an IP address nor a host name");
        }
    }
    let Some(ip) = document.present(&role.ip)?.and_then(|ip| ip.as_text()) else {
        return Ok(());
    };
    let (geo, network) = (place(lookup, &ip), network(lookup, &ip));
    let object = document
        .root
        .get(role.key)
        .and_then(Value::as_object)
        .ok_or(INSIDE)?;
    if let Some(geo) = geo {
        object.put(GEO, Value::Object(geo));
    }
    if let Some(network) = network {
        object.put(AS, Value::Object(network));
    }
    Ok(())
}

fn place<'a, L: Lookup>(lookup: &L, ip: &str) -> Option<Object<'a>> {
    let place = lookup.place_of(ip)?;
    let mut geo = Object::default();
    for (name, text) in [
        ("continent_name", place.continent_name),
        ("country_iso_code", place.country_iso_code),
        ("country_name", place.country_name),
        ("region_iso_code", place.region_iso_code),
        ("region_name", place.region_name),
        ("city_name", place.city_name),
    ] {
        if let Some(text) = text {
            geo.put_named(Name::of(name), Value::text(text));
        }
    }
    if let (Some(latitude), Some(longitude)) = (place.latitude, place.longitude)
        && latitude.is_finite()
        && longitude.is_finite()
    {
        let members = vec![
            ("lat".into(), Value::number(format!("{latitude:?}"))),
            ("lon".into(), Value::number(format!("{longitude:?}"))),
        ];
        geo.put_named("location".into(), Value::Object(Object { members }));
    }
    Some(geo)
}

fn network<'a, L: Lookup>(lookup: &L, ip: &str) -> Option<Object<'a>> {
    let found = lookup.network_of(ip)?;
    let mut network = Object::default();
    if let Some(number) = found.number {
        network.put_named("number".into(), Value::number(number));
    }
    if let Some(name) = found.organization {
        network.put_named(
            "organization".into(),
            Value::Object(Object {
                members: vec![("name".into(), Value::text(name))],
            }),
        );
    }
    Some(network)
}

/// V3: splits a user name that is an e-mail address.
fn split_email(document: &mut Document<'_>, rules: &Rules) -> Result<(), Fault> {
    if document.present(&USER_EMAIL)?.is_some() {
        return Ok(());
    }
    let Some(email) = document
        .present(&USER_NAME)?
        .and_then(|name| name.as_text())
    else {
        return Ok(());
    };
    let Some((name, domain)) = email.split_once('@').filter(|(name, _)| !name.is_empty()) else {
        return Ok(());
    };
    document.put(rules, &USER_NAME, Value::Text(part_of(&email, name)))?;
    document.put(rules, &USER_DOMAIN, Value::Text(part_of(&email, domain)))?;
    document.put(rules, &USER_EMAIL, Value::Text(email))
}
