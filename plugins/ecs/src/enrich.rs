//! What the document says about itself in other words: places and networks of its addresses, and `related.*`, by which analysts search.

use crate::document::{Document, Fault, INSIDE};
use crate::lookup::Lookup;
use crate::parse::{address, text_form};
use crate::rules::Rules;
use crate::value::{Object, Value};

/// Who takes part in what happened, and whether an address that is neither an IP nor a host name ends the enrichment.
const ROLES: [(&str, [&str; 2], bool); 4] = [
    ("client", ["client.address", "client.ip"], true),
    ("server", ["server.address", "server.ip"], true),
    ("source", ["source.address", "source.ip"], false),
    ("destination", ["destination.address", "destination.ip"], false),
];

/// `related.ip`.
const IPS: [&str; 5] = ["client.ip", "destination.ip", "server.ip", "source.ip", ".certificate.identity.client_ip"];

/// Most events have nothing there, and need no more than one look for all its paths.
const CERTIFICATE: &str = ".certificate";

/// `related.hosts`.
const HOSTS: [&str; 7] =
    ["host.hostname", "client.domain", "destination.domain", "server.domain", "source.domain", "url.domain", ".app.public_address"];

/// `related.user`, with what the event type must begin with.
const USERS: [(&str, &str); 7] = [
    ("user.name", ""),
    ("user.email", ""),
    (".resource.name", "user."),
    ("process.user.name", ""),
    (".database.user", ""),
    (".database.user_change.username", ""),
    (".certificate.identity.user", ""),
];

/// Lists whose elements go to `related.user`.
const USER_LISTS: [&str; 3] =
    [".certificate.identity.logins", ".certificate.identity.participants", ".certificate.identity.database_users"];

/// The first thing that cannot be done ends it, and nobody is told: what was written until then stays.
pub fn enrich<L: Lookup>(document: &mut Document<'_>, rules: &Rules, lookup: &L, action: Option<&str>) -> Result<(), Fault> {
    for (role, paths, strict) in ROLES {
        locate(document, rules, lookup, role, paths, strict)?;
    }
    if rules.later {
        split_email(document, rules)?;
    }
    let certificate = document.at(CERTIFICATE).is_some();
    let worth = |path: &&str| certificate || !path.starts_with(CERTIFICATE);
    for path in IPS.iter().copied().filter(worth) {
        relate(document, rules, path, "related.ip")?;
    }
    for path in HOSTS {
        relate(document, rules, path, "related.hosts")?;
    }
    for (path, start) in USERS.iter().copied().filter(|(path, _)| worth(path)) {
        if start.is_empty() || action.ok_or(INSIDE)?.starts_with(start) {
            relate(document, rules, path, "related.user")?;
        }
    }
    if rules.mended && action.is_some_and(|action| action.starts_with("user.")) {
        // Q12: `name` has gone where every event's `name` goes, so `.resource.name` is never there.
        relate(document, rules, "orchestrator.resource.name", "related.user")?;
    }
    for path in USER_LISTS.iter().copied().filter(worth) {
        let Some(value) = document.present(path)? else { continue };
        let users = value.as_list().ok_or("this is no list")?.clone();
        if document.at("related.user").is_none() && !rules.mended {
            return Err("no user is known yet");
        }
        for user in users {
            // Q13: without looking whether it is there already.
            document.add(rules, "related.user", user, rules.mended)?;
        }
    }
    if certificate {
        relate(document, rules, ".certificate.identity.impersonator", "related.user")?;
    }
    relate(document, rules, ".server.labels.hostname", "related.hosts")
}

fn relate(document: &mut Document<'_>, rules: &Rules, from: &str, to: &'static str) -> Result<(), Fault> {
    let Some(value) = document.present(from)? else { return Ok(()) };
    let text = text_form::rendered(value);
    document.add(rules, to, Value::Text(text), true)
}

fn locate<L: Lookup>(
    document: &mut Document<'_>,
    rules: &Rules,
    lookup: &L,
    role: &'static str,
    [address, ip]: [&'static str; 2],
    strict: bool,
) -> Result<(), Fault> {
    if document.root.position(role).is_none() {
        return Ok(());
    }
    if let Some(value) = document.present(address)? {
        let text = value.as_text().unwrap_or_default();
        let object = document.root.get(role).and_then(Value::as_object).ok_or(INSIDE)?;
        if address::is_ip(&text) {
            object.put("ip", Value::Text(text));
        } else if address::is_host_name(&text, rules.mended) {
            object.put("domain", Value::Text(text));
        } else if strict {
            return Err("this is neither an address nor the name of a host");
        }
    }
    let Some(ip) = document.present(ip)?.and_then(|ip| ip.as_text()) else { return Ok(()) };
    let (geo, network) = (place(lookup, &ip), network(lookup, &ip));
    let object = document.root.get(role).and_then(Value::as_object).ok_or(INSIDE)?;
    if let Some(geo) = geo {
        object.put("geo", Value::Object(geo));
    }
    if let Some(network) = network {
        object.put("as", Value::Object(network));
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
            geo.put(name, Value::text(text));
        }
    }
    if let (Some(latitude), Some(longitude)) = (place.latitude, place.longitude)
        && latitude.is_finite()
        && longitude.is_finite()
    {
        let members = vec![("lat".into(), Value::number(format!("{latitude:?}"))), ("lon".into(), Value::number(format!("{longitude:?}")))];
        geo.put("location", Value::Object(Object { members }));
    }
    Some(geo)
}

fn network<'a, L: Lookup>(lookup: &L, ip: &str) -> Option<Object<'a>> {
    let found = lookup.network_of(ip)?;
    let mut network = Object::default();
    if let Some(number) = found.number {
        network.put("number", Value::number(number));
    }
    if let Some(name) = found.organization {
        network.put("organization", Value::Object(Object { members: vec![("name".into(), Value::text(name))] }));
    }
    Some(network)
}

/// V3: a user's name that is an e-mail address.
fn split_email(document: &mut Document<'_>, rules: &Rules) -> Result<(), Fault> {
    if document.present("user.email")?.is_some() {
        return Ok(());
    }
    let Some(email) = document.present("user.name")?.and_then(|name| name.as_text()) else { return Ok(()) };
    let Some((name, domain)) = email.split_once('@').filter(|(name, _)| !name.is_empty()) else { return Ok(()) };
    document.put(rules, "user.name", Value::text(name.to_owned()))?;
    document.put(rules, "user.domain", Value::text(domain.to_owned()))?;
    document.put(rules, "user.email", Value::Text(email))
}
