//! Checks Kibana's saved objects: that they can be imported, and that the template has their
//! fields.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::panels;
use crate::template::{Template, Type};

const FILE: &str = "dashboard.ndjson";

fn objects() -> Vec<Value> {
    crate::asset(FILE)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The only object of a type.
fn object(kind: &str) -> Value {
    let mut found: Vec<Value> = objects()
        .into_iter()
        .filter(|object| object["type"] == kind)
        .collect();
    assert_eq!(found.len(), 1, "objects of the type `{kind}`");
    found.remove(0)
}

/// Parses JSON in a string.
fn inner(value: &Value) -> Value {
    serde_json::from_str(value.as_str().expect("JSON in a text"))
        .unwrap_or_else(|error| panic!("{error}: {value}"))
}

fn panels() -> Vec<Value> {
    inner(&object("dashboard")["attributes"]["panelsJSON"])
        .as_array()
        .unwrap()
        .clone()
}

/// Every value under a key, at any depth.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| all(value, key, found)),
        Value::Object(object) => {
            for (name, value) in object {
                if name == key {
                    found.push(value);
                }
                all(value, key, found);
            }
        }
        _ => {}
    }
}

fn layers() -> Vec<(Value, Value)> {
    let lens = panels().into_iter().filter(|panel| panel["type"] == "lens");
    let layers = lens.flat_map(|panel| {
        let layers = panel["embeddableConfig"]["attributes"]["state"]["datasourceStates"]["formBased"]["layers"].clone();
        layers.as_object().unwrap().values().map(|layer| (panel.clone(), layer.clone())).collect::<Vec<_>>()
    });
    layers.collect()
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the file is written on demand")]
fn the_file_matches_the_table_of_panels() {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../assets/elasticsearch")
            .join(FILE);
        fs::write(path, panels::ndjson()).unwrap();
    }
    let same = panels::ndjson() == crate::asset(FILE);
    assert!(
        same,
        "`{FILE}` differs from `panels.rs`; update it: UPDATE_EXPECT=1 cargo test --manifest-path plugins/Cargo.toml -p lockgate-plugin-ecs --test assets"
    );
}

#[test]
fn every_reference_finds_its_object() {
    let objects = objects();
    let ids: BTreeSet<(String, String)> = objects
        .iter()
        .map(|object| (object["type"].to_string(), object["id"].to_string()))
        .collect();
    assert_eq!(ids.len(), objects.len(), "ids are unique");
    for object in &objects {
        let mut lists = vec![];
        all(object, "references", &mut lists);
        let inside = panels();
        inside
            .iter()
            .for_each(|panel| all(panel, "references", &mut lists));
        let mut count = 0;
        for reference in lists.into_iter().flat_map(|list| list.as_array().unwrap()) {
            count += 1;
            assert!(
                ids.contains(&(reference["type"].to_string(), reference["id"].to_string())),
                "{reference} finds nothing"
            );
        }
        assert!(count > 0);
    }
}

#[test]
fn every_panel_has_the_references_that_it_names() {
    let dashboard = object("dashboard");
    let names: Vec<&str> = dashboard["references"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reference| reference["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names.iter().collect::<BTreeSet<_>>().len(),
        names.len(),
        "names are unique"
    );
    let mut used = vec![];
    for panel in panels() {
        let id = panel["panelIndex"].as_str().unwrap();
        match panel["panelRefName"].as_str() {
            Some(name) => used.push(format!("{id}:{name}")),
            None => {
                let layers = panel["embeddableConfig"]["attributes"]["state"]["datasourceStates"]["formBased"]["layers"].clone();
                used.extend(
                    layers
                        .as_object()
                        .unwrap()
                        .keys()
                        .map(|layer| format!("{id}:indexpattern-datasource-layer-{layer}")),
                );
            }
        }
    }
    assert_eq!(used, names);

    let map = object("map");
    let layers = inner(&map["attributes"]["layerListJSON"]);
    let mut wanted = vec![];
    all(&layers, "indexPatternRefName", &mut wanted);
    let names: Vec<&Value> = map["references"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reference| &reference["name"])
        .collect();
    assert_eq!(wanted, names);
    assert!(wanted.len() > 1, "the map has layers of events");
    for state in ["mapStateJSON", "uiStateJSON"] {
        assert!(inner(&map["attributes"][state]).is_object());
    }
}

/// Kibana's schema of a dashboard refuses any other attribute.
#[test]
fn the_dashboard_has_only_attributes_that_kibana_knows() {
    const KNOWN: [&str; 12] = [
        "title",
        "description",
        "kibanaSavedObjectMeta",
        "timeRestore",
        "timeFrom",
        "timeTo",
        "refreshInterval",
        "controlGroupInput",
        "panelsJSON",
        "optionsJSON",
        "hits",
        "version",
    ];
    let attributes = object("dashboard")["attributes"].clone();
    assert!(
        attributes
            .as_object()
            .unwrap()
            .keys()
            .all(|key| KNOWN.contains(&key.as_str())),
        "{:?}",
        attributes.as_object().unwrap().keys()
    );
    assert!(inner(&attributes["optionsJSON"]).is_object());
    assert_eq!(
        inner(&attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]["language"],
        "kuery"
    );
}

#[test]
fn panels_do_not_overlap() {
    let panels = panels();
    let mut taken = BTreeSet::new();
    for panel in &panels {
        let grid = &panel["gridData"];
        let side = |name: &str| grid[name].as_u64().unwrap();
        assert_eq!(grid["i"], panel["panelIndex"]);
        assert!(
            side("x") + side("w") <= 48 && side("w") > 0 && side("h") > 0,
            "{grid}"
        );
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(
                    taken.insert((x, y)),
                    "two panels lie at {x}/{y}: {}",
                    panel["title"]
                );
            }
        }
    }
    let height = taken.iter().map(|(_, y)| y + 1).max().unwrap();
    assert_eq!(taken.len() as u64, height * 48, "there are no gaps");
    assert_eq!(
        panels
            .iter()
            .map(|panel| panel["panelIndex"].to_string())
            .collect::<BTreeSet<_>>()
            .len(),
        panels.len()
    );
}

#[test]
fn every_displayed_column_exists() {
    for (panel, layer) in layers() {
        let title = &panel["title"];
        let columns = layer["columns"].as_object().unwrap();
        let order: BTreeSet<&str> = layer["columnOrder"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap())
            .collect();
        assert_eq!(
            order,
            columns.keys().map(String::as_str).collect(),
            "{title}"
        );
        let state = &panel["embeddableConfig"]["attributes"]["state"];
        let mut shown = vec![];
        for key in [
            "metricAccessor",
            "xAccessor",
            "splitAccessor",
            "accessors",
            "primaryGroups",
            "metrics",
            "columnId",
        ] {
            let mut values = vec![];
            all(&state["visualization"], key, &mut values);
            shown.extend(values.into_iter().flat_map(|value| {
                value
                    .as_array()
                    .cloned()
                    .unwrap_or_else(|| vec![value.clone()])
            }));
        }
        let shown: BTreeSet<&str> = shown.iter().map(|id| id.as_str().unwrap()).collect();
        assert_eq!(shown, order, "{title}: all columns are displayed");
        let mut ordering = vec![];
        all(&layer, "orderBy", &mut ordering);
        assert!(
            ordering
                .iter()
                .all(|by| columns.contains_key(by["columnId"].as_str().unwrap())),
            "{title}"
        );
        let mut ids = vec![];
        all(&state["visualization"], "layerId", &mut ids);
        assert!(
            ids.iter()
                .all(|id| state["datasourceStates"]["formBased"]["layers"]
                    .get(id.as_str().unwrap())
                    .is_some()),
            "{title}"
        );
    }
}

#[test]
fn every_field_is_in_the_template_and_can_be_aggregated() {
    let template = Template::read();
    let mut fields = 0;
    for (panel, layer) in layers() {
        for column in layer["columns"].as_object().unwrap().values() {
            let name = column["sourceField"].as_str().unwrap();
            if name == "___records___" {
                continue;
            }
            fields += 1;
            let field = template
                .fields
                .get(name)
                .unwrap_or_else(|| panic!("`{name}` of {} is not in the template", panel["title"]));
            assert!(
                field.aggregatable,
                "`{name}` of {} cannot be aggregated",
                panel["title"]
            );
            let kind = match field.kind {
                Type::Keyword | Type::Constant(_) => "string",
                Type::Ip => "ip",
                Type::Date => "date",
                _ => "number",
            };
            assert_eq!(column["dataType"], kind, "`{name}`");
        }
    }
    assert!(fields > 20);
    let layers = inner(&object("map")["attributes"]["layerListJSON"]);
    let mut places = vec![];
    all(&layers, "geoField", &mut places);
    assert!(!places.is_empty());
    for place in places {
        assert_eq!(
            template.fields[place.as_str().unwrap()].kind,
            Type::GeoPoint
        );
    }
}

/// `field: "value"`, `field: ("a" or "b")`, `and`: the part of Kibana's query language that the
/// panels use.
#[test]
fn every_query_asks_for_fields_and_values_that_the_mapper_writes() {
    let template = Template::read();
    let dashboard = serde_json::json!([
        panels(),
        inner(&object("map")["attributes"]["layerListJSON"])
    ]);
    let mut queries = vec![];
    all(&dashboard, "query", &mut queries);
    let documents = include_str!("../golden/documents.ndjson").to_owned()
        + include_str!("../golden/editions.ndjson");
    let mut seen = BTreeSet::new();
    for query in queries
        .iter()
        .filter_map(|query| query.as_str())
        .filter(|query| !query.is_empty())
    {
        for part in query.split(" and ") {
            let (field, values) = part.split_once(": ").unwrap_or_else(|| panic!("{part}"));
            assert!(
                template
                    .fields
                    .get(field)
                    .is_some_and(|field| field.aggregatable),
                "`{field}` of `{query}`"
            );
            for value in values.trim_matches(['(', ')']).split(" or ") {
                assert!(
                    value.starts_with('"') && value.ends_with('"') && value.len() > 2,
                    "{value} of `{query}`"
                );
                assert!(documents.contains(value), "no document has {value}");
                seen.insert(value.to_owned());
            }
        }
    }
    assert!(seen.len() > 6, "{seen:?}");
}

#[test]
fn the_data_view_shows_the_data_stream_of_the_template() {
    let view = object("index-pattern");
    assert_eq!(view["id"], panels::DATA_VIEW);
    assert_eq!(
        view["attributes"]["title"],
        crate::json("index-template.json")["index_patterns"][0]
    );
    assert_eq!(view["attributes"]["timeFieldName"], "@timestamp");
}
