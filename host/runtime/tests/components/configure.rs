//! `configure`: setups, problems and limits.

use lockgate_model::contract::{Access, Inspect};
use lockgate_runtime::{ConfigIssue, ConfigureError};
use serde_json::json;

use crate::support::{sink, try_filter};

#[test]
fn a_setup_is_returned_as_the_component_declared_it() {
    let setup = sink(json!({ "classify": "delivered" })).setup().clone();
    assert_eq!(
        (setup.access, setup.inspect, setup.max_response_bytes),
        (Access::Payload, Inspect::Always, 64 << 10)
    );
    assert!(setup.types.let_all_through());
    assert_eq!(setup.time_member.as_deref(), Some("time"));
}

#[test]
fn all_problems_in_a_configuration_are_reported_and_escaped() {
    let issue = |path: &str, message: &str, help: Option<&str>| ConfigIssue {
        path: path.into(),
        message: message.into(),
        help: help.map(str::to_owned),
    };
    assert_eq!(
        try_filter(json!({ "mode": "configure-refuse" })).unwrap_err(),
        ConfigureError::Issues(vec![
            issue(
                "mode",
                "This mode refuses its configuration.",
                Some("mode = \"keep\"")
            ),
            issue("", "The table as a whole is wrong\\u{1b}[31m.", None),
            issue("no.such[3].key", "This key is not there.", None),
        ])
    );
    assert_eq!(
        try_filter(json!({ "mode": "configure-refuse-empty" })).unwrap_err(),
        ConfigureError::Issues(vec![issue(
            "",
            "The plugin refuses its configuration without an explanation.",
            None
        )])
    );
    let ConfigureError::Issues(issues) = try_filter(json!({ "mod": "trap" })).unwrap_err() else {
        panic!("issues")
    };
    assert!(issues[0].message.contains("mod"), "{issues:?}");
}
