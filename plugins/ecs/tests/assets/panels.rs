//! The dashboard, as a table of panels. `UPDATE_EXPECT=1 cargo test --manifest-path
//! plugins/Cargo.toml -p lockgate-plugin-ecs --test assets` writes
//! `assets/elasticsearch/dashboard.ndjson` from it, in the form of Kibana 8.11's saved objects,
//! which later versions migrate.

use serde_json::{Value, json};

pub const DATA_VIEW: &str = "lockgate-teleport-audit";
const DASHBOARD: &str = "lockgate-teleport-audit-overview";
const MAP: &str = "lockgate-teleport-audit-map";

const LOGIN: &str = r#"event.action: ("user.login" or "auth")"#;
const LOGGED_IN: &str = r#"event.action: "user.login" and event.outcome: "success""#;
const FAILED: &str = r#"event.action: ("user.login" or "auth") and event.outcome: "failure""#;
const SESSIONS: &str = r#"event.action: ("session.start" or "app.session.start" or "db.session.start" or "windows.desktop.session.start")"#;
const CERTIFICATES: &str = r#"event.action: "cert.create""#;
const NOT_MAPPED: &str = r#"event.kind: "pipeline_error""#;

/// Left, top, width and height, of 48 columns.
type Grid = [u32; 4];

struct Panel {
    title: &'static str,
    grid: Grid,
    query: &'static str,
    show: Show,
}

enum Show {
    /// The number of events.
    Number,
    /// The number of events over time, by the values of a field.
    OverTime(&'static str),
    /// Shares of the values of a field.
    Donut(&'static str),
    /// The number of events and the last one, by the values of fields. The first number of each is
    /// its number of rows.
    Table(&'static [(u32, &'static str, &'static str)]),
    Map,
}

use Show::*;

const PANELS: &[Panel] = &[
    Panel {
        title: "Logins",
        grid: [0, 0, 10, 6],
        query: LOGGED_IN,
        show: Number,
    },
    Panel {
        title: "Failed logins",
        grid: [10, 0, 10, 6],
        query: FAILED,
        show: Number,
    },
    Panel {
        title: "Sessions",
        grid: [20, 0, 10, 6],
        query: SESSIONS,
        show: Number,
    },
    Panel {
        title: "Certificates",
        grid: [30, 0, 9, 6],
        query: CERTIFICATES,
        show: Number,
    },
    Panel {
        title: "Events not mapped",
        grid: [39, 0, 9, 6],
        query: NOT_MAPPED,
        show: Number,
    },
    Panel {
        title: "Failed logins over time, by user",
        grid: [0, 6, 24, 12],
        query: FAILED,
        show: OverTime("user.name"),
    },
    Panel {
        title: "Failed logins",
        grid: [24, 6, 24, 12],
        query: FAILED,
        show: Table(&[
            (20, "user.name", "User"),
            (3, "client.ip", "Address"),
            (1, "client.geo.country_name", "Country"),
        ]),
    },
    Panel {
        title: "Sessions over time, by kind",
        grid: [0, 18, 24, 12],
        query: SESSIONS,
        show: OverTime("event.action"),
    },
    Panel {
        title: "Sessions",
        grid: [24, 18, 24, 12],
        query: SESSIONS,
        show: Table(&[
            (20, "user.name", "User"),
            (3, "host.hostname", "Host"),
            (1, "orchestrator.cluster.name", "Cluster"),
        ]),
    },
    Panel {
        title: "Certificates over time, by use",
        grid: [0, 30, 18, 12],
        query: CERTIFICATES,
        show: OverTime("teleport.audit.certificate.type"),
    },
    Panel {
        title: "Certificates",
        grid: [18, 30, 18, 12],
        query: CERTIFICATES,
        show: Table(&[
            (20, "teleport.audit.certificate.identity.user", "User"),
            (3, "teleport.audit.certificate.identity.roles", "Role"),
        ]),
    },
    Panel {
        title: "Certificates of bots",
        grid: [36, 30, 12, 12],
        query: CERTIFICATES,
        show: Donut("teleport.audit.certificate.identity.bot_name"),
    },
    Panel {
        title: "Where clients are",
        grid: [0, 42, 32, 18],
        query: "",
        show: Map,
    },
    Panel {
        title: "Logins by country",
        grid: [32, 42, 16, 18],
        query: LOGIN,
        show: Table(&[
            (15, "client.geo.country_name", "Country"),
            (1, "event.outcome", "Outcome"),
        ]),
    },
    Panel {
        title: "Events over time, by type",
        grid: [0, 60, 32, 12],
        query: "",
        show: OverTime("event.action"),
    },
    Panel {
        title: "Outcomes",
        grid: [32, 60, 16, 12],
        query: "",
        show: Donut("event.outcome"),
    },
];

/// The data view, the map and the dashboard, one per line, as Kibana imports them.
pub fn ndjson() -> String {
    let mut panels = vec![];
    let mut references = vec![];
    for (number, panel) in PANELS.iter().enumerate() {
        let id = format!("panel-{number}");
        let [x, y, w, h] = panel.grid;
        let mut saved = json!({
            "version": "8.11.0", "title": panel.title, "panelIndex": id, "gridData": { "x": x, "y": y, "w": w, "h": h, "i": id },
        });
        if matches!(panel.show, Map) {
            saved["type"] = "map".into();
            saved["panelRefName"] = format!("panel_{id}").into();
            saved["embeddableConfig"] =
                json!({ "enhancements": {}, "hiddenLayers": [], "isLayerTOCOpen": false });
            references
                .push(json!({ "type": "map", "id": MAP, "name": format!("{id}:panel_{id}") }));
        } else {
            let layer = format!("layer-{number}");
            let reference = format!("indexpattern-datasource-layer-{layer}");
            references.push(json!({ "type": "index-pattern", "id": DATA_VIEW, "name": format!("{id}:{reference}") }));
            saved["type"] = "lens".into();
            saved["embeddableConfig"] =
                json!({ "enhancements": {}, "attributes": lens(panel, &layer, &reference) });
        }
        panels.push(saved);
    }
    let objects = [
        object(
            "index-pattern",
            DATA_VIEW,
            "8.0.0",
            vec![],
            json!({
                "title": "logs-teleport.audit-*", "name": "Teleport audit log", "timeFieldName": "@timestamp",
            }),
        ),
        object("map", MAP, "8.4.0", map_references(), map()),
        object(
            "dashboard",
            DASHBOARD,
            "8.9.0",
            references,
            json!({
                "title": "Teleport audit log",
                "description": "Failed logins, sessions, certificates and where clients are, of the documents that Lockgate's `builtin:ecs` makes.",
                "panelsJSON": text(&json!(panels)),
                "optionsJSON": text(&json!({ "useMargins": true, "hidePanelTitles": false, "syncColors": false, "syncCursor": true, "syncTooltips": false })),
                "kibanaSavedObjectMeta": { "searchSourceJSON": text(&json!({ "query": kuery(""), "filter": [] })) },
                "timeRestore": true,
                "timeFrom": "now-7d",
                "timeTo": "now",
                "refreshInterval": { "pause": true, "value": 60000 },
                "version": 1,
            }),
        ),
    ];
    objects.iter().map(|object| format!("{object}\n")).collect()
}

fn object(
    kind: &str,
    id: &str,
    migrated: &str,
    references: Vec<Value>,
    attributes: Value,
) -> Value {
    json!({
        "type": kind, "id": id, "attributes": attributes, "references": references,
        "coreMigrationVersion": "8.8.0", "typeMigrationVersion": migrated,
    })
}

fn text(value: &Value) -> String {
    value.to_string()
}

fn kuery(query: &str) -> Value {
    json!({ "language": "kuery", "query": query })
}

fn lens(panel: &Panel, layer: &str, reference: &str) -> Value {
    let (kind, columns, visualization) = match panel.show {
        Number => (
            "lnsMetric",
            vec![("count", count())],
            json!({ "layerId": layer, "layerType": "data", "metricAccessor": "count" }),
        ),
        OverTime(field) => (
            "lnsXY",
            vec![
                ("by", top(8, field, field, true)),
                ("time", time()),
                ("count", count()),
            ],
            json!({
                "preferredSeriesType": "bar_stacked",
                "legend": { "isVisible": true, "position": "right" },
                "valueLabels": "hide",
                "fittingFunction": "None",
                "axisTitlesVisibilitySettings": { "x": false, "yLeft": false, "yRight": false },
                "layers": [{
                    "layerId": layer, "layerType": "data", "seriesType": "bar_stacked", "position": "top", "showGridlines": false,
                    "xAccessor": "time", "splitAccessor": "by", "accessors": ["count"],
                }],
            }),
        ),
        Donut(field) => (
            "lnsPie",
            vec![("by", top(10, field, field, true)), ("count", count())],
            json!({
                "shape": "donut",
                "layers": [{
                    "layerId": layer, "layerType": "data", "primaryGroups": ["by"], "metrics": ["count"],
                    "numberDisplay": "value", "categoryDisplay": "default", "legendDisplay": "default", "nestedLegend": false,
                }],
            }),
        ),
        Table(fields) => {
            const IDS: [&str; 4] = ["by-0", "by-1", "by-2", "by-3"];
            let groups = fields
                .iter()
                .zip(IDS)
                .map(|((rows, field, label), id)| (id, top(*rows, field, label, false)));
            let columns: Vec<_> = groups
                .chain([("count", count()), ("last", last())])
                .collect();
            let shown: Vec<_> = columns
                .iter()
                .map(|(id, _)| json!({ "columnId": id }))
                .collect();
            let state = json!({
                "layerId": layer, "layerType": "data", "columns": shown,
                "sorting": { "columnId": "count", "direction": "desc" }, "paging": { "enabled": true, "size": 10 },
            });
            ("lnsDatatable", columns, state)
        }
        Map => unreachable!("a map is a separate object"),
    };
    let order: Vec<&str> = columns.iter().map(|(id, _)| *id).collect();
    let columns: serde_json::Map<String, Value> = columns
        .into_iter()
        .map(|(id, column)| (id.to_owned(), column))
        .collect();
    json!({
        "title": "",
        "type": "lens",
        "visualizationType": kind,
        "references": [{ "type": "index-pattern", "id": DATA_VIEW, "name": reference }],
        "state": {
            "query": kuery(panel.query),
            "filters": [],
            "internalReferences": [],
            "adHocDataViews": {},
            "visualization": visualization,
            "datasourceStates": {
                "formBased": { "layers": { layer: { "columns": columns, "columnOrder": order, "incompleteColumns": {}, "sampling": 1 } } },
                "textBased": { "layers": {} },
            },
        },
    })
}

fn count() -> Value {
    json!({
        "label": "Events", "customLabel": true, "dataType": "number", "operationType": "count", "sourceField": "___records___",
        "isBucketed": false, "scale": "ratio", "params": { "emptyAsNull": false },
    })
}

fn last() -> Value {
    json!({
        "label": "Last", "customLabel": true, "dataType": "date", "operationType": "max", "sourceField": "@timestamp",
        "isBucketed": false, "scale": "ratio", "params": { "emptyAsNull": true },
    })
}

fn time() -> Value {
    json!({
        "label": "@timestamp", "dataType": "date", "operationType": "date_histogram", "sourceField": "@timestamp",
        "isBucketed": true, "scale": "interval", "params": { "interval": "auto", "includeEmptyRows": true, "dropPartials": false },
    })
}

fn top(rows: u32, field: &str, label: &str, others: bool) -> Value {
    let kind = if field.ends_with(".ip") {
        "ip"
    } else {
        "string"
    };
    json!({
        "label": label, "customLabel": true, "dataType": kind, "operationType": "terms", "sourceField": field,
        "isBucketed": true, "scale": "ordinal",
        "params": {
            "size": rows, "orderBy": { "type": "column", "columnId": "count" }, "orderDirection": "desc",
            "otherBucket": others, "missingBucket": false, "parentFormat": { "id": "terms" },
            "include": [], "exclude": [], "includeIsRegex": false, "excludeIsRegex": false,
        },
    })
}

/// Two layers over the world: all clients, and those whose logins failed.
const LAYERS: [(&str, &str, &str, &str); 2] = [
    ("clients", "Clients", "", "#2a6fb0"),
    ("failed", "Failed logins", FAILED, "#c4302b"),
];

fn map_references() -> Vec<Value> {
    let name = |at: usize| format!("layer_{}_source_index_pattern", at + 1);
    (0..LAYERS.len())
        .map(|at| json!({ "type": "index-pattern", "id": DATA_VIEW, "name": name(at) }))
        .collect()
}

fn map() -> Value {
    let mut layers = vec![json!({
        "id": "world", "type": "EMS_VECTOR_TILE", "label": null, "minZoom": 0, "maxZoom": 24, "alpha": 1, "visible": true,
        "includeInFitToBounds": true,
        "sourceDescriptor": { "type": "EMS_TMS", "isAutoSelect": true, "lightModeDefault": "road_map_desaturated" },
        "style": { "type": "EMS_VECTOR_TILE", "color": "" },
    })];
    for (at, (id, label, query, color)) in LAYERS.into_iter().enumerate() {
        layers.push(json!({
            "id": id, "type": "GEOJSON_VECTOR", "label": label, "minZoom": 0, "maxZoom": 24, "alpha": 0.75, "visible": true,
            "includeInFitToBounds": true, "joins": [], "query": kuery(query), "style": circles(color),
            "sourceDescriptor": {
                "id": format!("{id}-source"), "type": "ES_GEO_GRID", "requestType": "point", "resolution": "COARSE",
                "geoField": "client.geo.location", "metrics": [{ "type": "count" }],
                "applyGlobalQuery": true, "applyGlobalTime": true, "applyForceRefresh": true,
                "indexPatternRefName": format!("layer_{}_source_index_pattern", at + 1),
            },
        }));
    }
    let state = json!({
        "zoom": 1.4, "center": { "lon": 10, "lat": 25 }, "timeFilters": { "from": "now-7d", "to": "now" },
        "refreshConfig": { "isPaused": true, "interval": 60000 }, "query": kuery(""), "filters": [],
    });
    json!({
        "title": "Teleport audit log: where clients are",
        "description": "Circles grow with the number of events. Red: failed logins.",
        "layerListJSON": text(&json!(layers)),
        "mapStateJSON": text(&state),
        "uiStateJSON": text(&json!({ "isLayerTOCOpen": true, "openTOCDetails": [] })),
    })
}

/// Circles that grow with the number of events.
fn circles(color: &str) -> Value {
    let fixed = |options: Value| json!({ "type": "STATIC", "options": options });
    let grows = json!({
        "minSize": 5, "maxSize": 26, "field": { "name": "doc_count", "origin": "source" }, "fieldMetaOptions": { "isEnabled": false, "sigma": 3 },
    });
    json!({
        "type": "VECTOR",
        "isTimeAware": true,
        "properties": {
            "symbolizeAs": { "options": { "value": "circle" } },
            "icon": fixed(json!({ "value": "marker" })),
            "fillColor": fixed(json!({ "color": color })),
            "lineColor": fixed(json!({ "color": "#ffffff" })),
            "lineWidth": fixed(json!({ "size": 1 })),
            "iconSize": { "type": "DYNAMIC", "options": grows },
            "iconOrientation": fixed(json!({ "orientation": 0 })),
            "labelText": fixed(json!({ "value": "" })),
            "labelColor": fixed(json!({ "color": "#000000" })),
            "labelSize": fixed(json!({ "size": 14 })),
            "labelZoomRange": { "options": { "useLayerZoomRange": true, "minZoom": 0, "maxZoom": 24 } },
            "labelBorderColor": fixed(json!({ "color": "#ffffff" })),
            "labelBorderSize": { "options": { "size": "SMALL" } },
            "labelPosition": { "options": { "position": "CENTER" } },
        },
    })
}
