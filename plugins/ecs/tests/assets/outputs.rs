//! Checks the mapper's possible outputs, from its tables and stages, against the fields that the
//! template declares.

use std::collections::{BTreeMap, BTreeSet};

use ecs::mapping::{GROUPS, INTAKE, LEFTOVERS};
use ecs::row::{Op, Row};

use crate::template::{Template, Type};

/// The values that a field can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Any value of the event.
    Moved,
    Text,
    Number,
    Time,
    Ip,
    Place,
}

/// The outputs of the stages without tables: envelope, categories, related, user names.
const STAGES: &[(&str, Shape)] = &[
    ("ecs.version", Shape::Text),
    ("tags", Shape::Text),
    ("error.message", Shape::Text),
    ("event.kind", Shape::Text),
    ("event.category", Shape::Text),
    ("event.type", Shape::Text),
    ("event.outcome", Shape::Text),
    ("event.original", Shape::Text),
    ("related.hosts", Shape::Text),
    ("related.ip", Shape::Ip),
    ("related.user", Shape::Text),
    ("user.domain", Shape::Text),
    ("user.email", Shape::Text),
];

/// Of `client`, `server`, `source`, `destination`.
const ROLE: &[(&str, Shape)] = &[
    ("address", Shape::Text),
    ("domain", Shape::Text),
    ("ip", Shape::Ip),
    ("port", Shape::Number),
    ("as.number", Shape::Number),
    ("as.organization.name", Shape::Text),
    ("geo.city_name", Shape::Text),
    ("geo.continent_name", Shape::Text),
    ("geo.country_iso_code", Shape::Text),
    ("geo.country_name", Shape::Text),
    ("geo.location", Shape::Place),
    ("geo.region_iso_code", Shape::Text),
    ("geo.region_name", Shape::Text),
];

const URL: &[&str] = &[
    "domain",
    "extension",
    "fragment",
    "original",
    "password",
    "path",
    "query",
    "scheme",
    "user_info",
    "username",
];

const USER_AGENT: &[&str] = &[
    "device.name",
    "name",
    "original",
    "os.full",
    "os.name",
    "os.version",
    "version",
];

/// Fields whose keys users choose, so that the keys must not become fields. Teleport's protocol has
/// a map or a struct there, and other values would be rejected. A new entry needs an equally good
/// reason.
pub const MAPS: &[&str] = &[
    ".access_list.membership_requirements_changed.traits",
    ".access_request.annotations",
    ".access_request.resource_search.labels",
    ".app.labels",
    ".certificate.identity.traits",
    ".database.labels",
    ".desktop.labels",
    ".join.attributes",
    ".kubernetes.labels",
    ".login.identity_attributes",
    ".saml_idp_service_provider.attribute_mapping",
    ".server.labels",
    ".user_traits",
    "http.request.headers",
];

/// Declared fields that no row writes.
const OTHERS: &[(&str, &str)] = &[
    ("data_stream.type", "a constant of the data stream"),
    (
        "data_stream.dataset",
        "a constant of the data stream, by which Elastic's dashboards filter",
    ),
    ("data_stream.namespace", "a constant of the data stream"),
    ("event.module", "a constant, by which detections filter"),
    ("event.dataset", "a constant, by which detections filter"),
    (
        ".access_list.membership_requirements_changed.traits",
        NESTED,
    ),
    (".access_list.review_message", NESTED),
    (".okta.assignment.user", NESTED),
    (
        ".user_traits",
        "no row names it; Teleport sends it with an event's user, and users name the keys",
    ),
];

/// Declared by Elastic's integration; an event can contain it in this form.
const NESTED: &str = "an event can contain it in its own object";

pub fn full(path: &str) -> String {
    if path.starts_with('.') {
        format!("teleport.audit{path}")
    } else {
        path.to_owned()
    }
}

fn outputs(row: &Row) -> Vec<(String, Shape)> {
    let at = |shape| vec![(full(row.to), shape)];
    let below = |parts: &[(&str, Shape)]| {
        parts
            .iter()
            .map(|(part, shape)| (format!("{}.{part}", full(row.to)), *shape))
            .collect()
    };
    let texts = |parts: &[&str]| {
        parts
            .iter()
            .map(|part| (format!("{}.{part}", full(row.to)), Shape::Text))
            .collect::<Vec<_>>()
    };
    match row.op {
        Op::Move | Op::TryMove | Op::Claim | Op::Undot | Op::Json => at(Shape::Moved),
        Op::Delete => vec![],
        Op::Set(_)
        | Op::Add(_)
        | Op::AddText
        | Op::Copy
        | Op::Str
        | Op::Base64
        | Op::Label(_)
        | Op::LabelList(_) => at(Shape::Text),
        Op::Int | Op::TryInt => at(Shape::Number),
        Op::Time | Op::Timestamp => at(Shape::Time),
        Op::Address => below(ROLE),
        Op::HostPort => below(&[("domain", Shape::Text), ("port", Shape::Number)]),
        Op::Size => below(&[("columns", Shape::Number), ("rows", Shape::Number)]),
        Op::Uri => {
            let mut outputs = texts(URL);
            outputs.push((format!("{}.port", full(row.to)), Shape::Number));
            outputs
        }
        Op::UserAgent => texts(USER_AGENT),
    }
}

fn rows() -> impl Iterator<Item = &'static Row> {
    INTAKE.iter().chain(GROUPS).chain(LEFTOVERS)
}

/// Paths to which rows write values that other rows move again.
fn intermediate_paths() -> BTreeSet<String> {
    let takes = |row: &&Row| {
        matches!(
            row.op,
            Op::Move | Op::TryMove | Op::Claim | Op::Delete | Op::Uri
        )
    };
    rows().filter(takes).map(|row| full(row.from)).collect()
}

/// Every field that the mapper can write, with the rules that do.
fn all() -> BTreeMap<String, Vec<(String, Shape)>> {
    let mut all: BTreeMap<String, Vec<(String, Shape)>> = BTreeMap::new();
    let mut add = |field: String, rule: &str, shape| {
        all.entry(field).or_default().push((rule.to_owned(), shape))
    };
    for row in rows() {
        outputs(row)
            .into_iter()
            .for_each(|(field, shape)| add(field, row.id, shape));
    }
    STAGES.iter().for_each(|(field, shape)| {
        add((*field).to_owned(), "src/mapper.rs, src/enrich.rs", *shape)
    });
    for role in ["client", "server", "source", "destination"] {
        ROLE.iter()
            .for_each(|(part, shape)| add(format!("{role}.{part}"), "src/enrich.rs", *shape));
    }
    all
}

#[test]
fn every_possible_output_is_declared_with_a_suitable_type() {
    let (template, stations) = (Template::read(), intermediate_paths());
    let mut missing = vec![];
    for (field, rules) in all() {
        let Some(declared) = template.fields.get(&field) else {
            if !template.declares(&field) && !stations.contains(&field) {
                let line = format!(r#""{field}": {{ "type": "keyword", "ignore_above": 1024 }},"#);
                let rule = &rules[0].0;
                missing.push(format!("`{field}` of `{rule}` is not declared. Add to `component-mappings.json`, with its type:\n  {line}"));
            }
            continue;
        };
        for (rule, shape) in rules {
            let takes = match shape {
                Shape::Moved => true,
                Shape::Text => matches!(declared.kind, Type::Keyword | Type::Text | Type::Ip),
                Shape::Number => matches!(declared.kind, Type::Keyword | Type::Long),
                Shape::Time => declared.kind == Type::Date,
                Shape::Ip => declared.kind == Type::Ip,
                Shape::Place => declared.kind == Type::GeoPoint,
            };
            if !takes {
                missing.push(format!(
                    "`{field}` of `{rule}` is {shape:?}, but declared as {:?}. Correct its line in `component-mappings.json`.",
                    declared.kind
                ));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_declared_field_is_a_possible_output() {
    let (template, outputs) = (Template::read(), all());
    let others: BTreeMap<String, &str> = OTHERS
        .iter()
        .map(|(field, why)| (full(field), *why))
        .collect();
    let inside_of_moved = |field: &str| {
        let parents = field.match_indices('.').map(|(at, _)| &field[..at]);
        parents
            .filter_map(|parent| outputs.get(parent))
            .flatten()
            .any(|(_, shape)| *shape == Shape::Moved)
    };
    let lost: Vec<_> = template
        .fields
        .keys()
        .filter(|field| !outputs.contains_key(*field) && !inside_of_moved(field) && !others.contains_key(*field))
        .map(|field| format!("`{field}` is declared in `component-mappings.json`, but no row writes it. Remove its line, or add it to `OTHERS` with a reason."))
        .collect();
    assert!(lost.is_empty(), "{}", lost.join("\n"));
    for field in others.keys() {
        assert!(
            template.fields.contains_key(field),
            "`{field}` is in `OTHERS`, but not declared"
        );
        assert!(
            !outputs.contains_key(field),
            "`{field}` is in `OTHERS`, but a row writes it"
        );
    }
}

#[test]
fn only_fields_with_keys_of_users_require_objects() {
    let maps: BTreeSet<String> = MAPS.iter().map(|field| full(field)).collect();
    let template = Template::read();
    let flattened = template
        .fields
        .iter()
        .filter(|(_, field)| matches!(field.kind, Type::Flattened(_)));
    assert_eq!(
        flattened
            .map(|(name, _)| name.clone())
            .collect::<BTreeSet<_>>(),
        maps
    );
}
