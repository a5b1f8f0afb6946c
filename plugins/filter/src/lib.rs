//! `builtin:filter`: keeps or drops events by type and by the values of their fields. See its
//! README.

mod field_test;

use std::collections::BTreeMap;

use lockgate_plugin::{Access, Batch, ConfigIssue, Event, Filter, StageSetup, Verdict, config};
use serde::Deserialize;

pub use field_test::{FieldTest, Scalar, Values};

/// Most conditions: each is a reason, of which a setup has 64.
const CONDITIONS_MAX: usize = 64;

/// The operator's `with` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    #[serde(default)]
    pub only: Option<Vec<String>>,
    #[serde(default)]
    pub skip: Vec<String>,
    #[serde(default = "session_types")]
    pub skip_session_types: Vec<String>,
    #[serde(default)]
    pub r#where: BTreeMap<String, Values>,
    #[serde(default)]
    pub except: BTreeMap<String, Values>,
}

/// The Event Handler's default for `skip-session-types`.
fn session_types() -> Vec<String> {
    vec!["print".into(), "desktop.recording".into()]
}

/// The configured filter.
#[derive(Debug)]
pub struct FieldFilter {
    /// All must hold. Each has the index of its reason to drop.
    wanted: Vec<(u32, FieldTest)>,
    /// None may hold.
    unwanted: Vec<(u32, FieldTest)>,
}

impl Filter for FieldFilter {
    type Config = Config;

    fn configure(config: Config) -> Result<(FieldFilter, StageSetup), Vec<ConfigIssue>> {
        let issues = problems(&config);
        if !issues.is_empty() {
            return Err(issues);
        }
        let mut reasons = vec![];
        let mut conditions =
            |name: &str, table: BTreeMap<String, Values>| -> Vec<(u32, FieldTest)> {
                let one = |(path, values): (String, Values)| {
                    reasons.push(format!(
                        "{name} {}",
                        path.chars().take(48).collect::<String>()
                    ));
                    (reasons.len() as u32 - 1, FieldTest { path, values })
                };
                table.into_iter().map(one).collect()
            };
        let wanted = conditions("where", config.r#where);
        let unwanted = conditions("except", config.except);
        let filter = FieldFilter { wanted, unwanted };

        let mut setup = StageSetup::new(filter.access())
            .skip(config.skip)
            .skip_in_sessions(config.skip_session_types)
            .reasons(reasons);
        setup.subscription.only = config.only;
        Ok((filter, setup))
    }

    fn verdict(&self, _: &Batch, event: &Event) -> Verdict {
        match self.drop_reason(&event.payload) {
            Some(reason) => Verdict::Drop(reason),
            None => Verdict::Keep,
        }
    }
}

impl FieldFilter {
    /// Why an event is dropped, as an index into the setup's reasons; `None` keeps it.
    ///
    /// Does not check types: the host has done so. An event whose payload cannot be parsed is kept,
    /// because a filter must not lose events.
    pub fn drop_reason(&self, payload: &str) -> Option<u32> {
        let holds = |condition: &FieldTest| condition.holds(payload).ok();
        let missed = self
            .wanted
            .iter()
            .find(|(_, condition)| holds(condition) == Some(false));
        let hit = || {
            self.unwanted
                .iter()
                .find(|(_, condition)| holds(condition) == Some(true))
        };
        missed.or_else(hit).map(|(reason, _)| *reason)
    }

    fn access(&self) -> Access {
        if self.wanted.is_empty() && self.unwanted.is_empty() {
            Access::Types
        } else {
            Access::Payload
        }
    }
}

fn problems(config: &Config) -> Vec<ConfigIssue> {
    let mut issues = vec![];
    let no_types = vec![];
    let lists = [
        ("only", config.only.as_ref().unwrap_or(&no_types)),
        ("skip", &config.skip),
        ("skip-session-types", &config.skip_session_types),
    ];
    for (name, types) in lists {
        for (index, event_type) in types.iter().enumerate() {
            if event_type.is_empty() || event_type.contains('*') {
                let message = format!(
                    "`{event_type}` is not an event type: types are matched whole, without \
                     wildcards."
                );
                issues.push(ConfigIssue::new(format!("{name}[{index}]"), message));
            }
        }
    }
    if config.only.as_ref().is_some_and(Vec::is_empty) {
        issues.push(
            ConfigIssue::new("only", "`only` is empty, so every event would be dropped.")
                .help("leave `only` out"),
        );
    }
    for (name, table) in [("where", &config.r#where), ("except", &config.except)] {
        for (path, values) in table {
            if path.is_empty() {
                issues.push(ConfigIssue::new(
                    config::join(name, path),
                    "The path of a field is empty.",
                ));
            }
            if values.is_empty() {
                let key = config::join(name, path);
                issues.push(
                    ConfigIssue::new(&key, format!("`{key}` is empty, so it never matches."))
                        .help(format!("write `{key} = [\"…\"]`")),
                );
            }
        }
    }
    if config.r#where.len() + config.except.len() > CONDITIONS_MAX {
        issues.push(ConfigIssue::new(
            "",
            format!("`where` and `except` have more than {CONDITIONS_MAX} conditions."),
        ));
    }
    issues
}

lockgate_plugin::filter!(FieldFilter);

#[cfg(test)]
mod tests {
    use lockgate_plugin::test;

    use super::*;

    fn configure(with: &str) -> (FieldFilter, StageSetup) {
        test::configure(with).unwrap()
    }

    #[test]
    fn the_setup_requests_only_what_the_configuration_needs() {
        for (with, access) in [
            (
                r#"{"skip":["print"],"skip-session-types":[]}"#,
                Access::Types,
            ),
            (r#"{}"#, Access::Types),
            (
                r#"{"skip-session-types":[],"where":{"user":"alice"}}"#,
                Access::Payload,
            ),
            (r#"{"except":{"user":"alice"}}"#, Access::Payload),
        ] {
            assert_eq!(configure(with).1.subscription.access, access, "{with}");
        }
        let (_, setup) =
            configure(r#"{"only":["a"],"skip":["b"],"where":{"x.y":[1]},"except":{"u":"v"}}"#);
        assert_eq!(
            (setup.subscription.only, setup.subscription.skip),
            (Some(vec!["a".to_owned()]), vec!["b".to_owned()])
        );
        assert_eq!(setup.reasons, ["where x.y", "except u"]);
    }

    #[test]
    fn the_host_skips_session_types_in_recordings_only() {
        for (with, types) in [
            ("{}", &["print", "desktop.recording"][..]),
            (
                r#"{"skip-session-types":["session.start"]}"#,
                &["session.start"],
            ),
            (r#"{"skip-session-types":[]}"#, &[]),
        ] {
            let skipped = configure(with).1.subscription.skip_in_sessions;
            assert_eq!(skipped, types, "{with}");
        }
    }

    #[test]
    fn conditions_choose_by_field() {
        let payload = r#"{"addr.remote":"192.0.2.7:1","code":"T1000W","roles":["access","auditor"],"server_labels":{"env":"prod"},"success":false,"user":"bob"}"#;
        let check = |with: &str, expected: Option<&str>| {
            let (filter, setup) = configure(with);
            let verdict = filter.verdict(&test::batch(), &test::event(payload));
            let reason = match verdict {
                Verdict::Keep => None,
                Verdict::Drop(reason) => Some(setup.reasons[reason as usize].as_str()),
            };
            assert_eq!(reason, expected, "{with}");
        };
        check(r#"{"where":{"server_labels.env":["dev","prod"]}}"#, None);
        check(
            r#"{"where":{"server_labels.env":["dev"]}}"#,
            Some("where server_labels.env"),
        );
        check(
            r#"{"where":{"addr.remote":"192.0.2.7:1","success":false,"roles":"auditor"}}"#,
            None,
        );
        check(
            r#"{"where":{"addr.remote":"192.0.2.7:1","success":true}}"#,
            Some("where success"),
        );
        check(r#"{"where":{"login":["root"]}}"#, Some("where login"));
        check(r#"{"except":{"login":["root"],"user":["alice"]}}"#, None);
        check(
            r#"{"except":{"login":["root"],"user":["bob"]}}"#,
            Some("except user"),
        );
        check(
            r#"{"where":{"user":"bob"},"except":{"code":"T1000W"}}"#,
            Some("except code"),
        );
    }

    #[test]
    fn an_event_that_cannot_be_parsed_is_kept() {
        let (filter, _) = configure(r#"{"where":{"user":"bob"},"except":{"code":"x"}}"#);
        assert_eq!(filter.drop_reason(r#"{"a":"#), None);
    }

    #[test]
    fn mistakes_are_all_reported() {
        assert_eq!(
            test::issues::<FieldFilter>(r#"{"only":[],"skip":["session.*"],"where":{"user":[]}}"#),
            [
                "skip[0]: `session.*` is not an event type: types are matched whole, without wildcards.",
                "only: `only` is empty, so every event would be dropped. (leave `only` out)",
                r#"where.user: `where.user` is empty, so it never matches. (write `where.user = ["…"]`)"#,
            ]
        );
        assert_eq!(
            test::issues::<FieldFilter>(r#"{"skip":"print","were":{},"where":{"a.b":{"c":"d"}}}"#),
            [
                r#"skip: `skip` must be a list, not the string `print`. (write `skip = ["print"]`)"#,
                "were: Unknown key `were`. (did you mean `where`?)",
                r#"where."a.b": `where."a.b"` must be a string, a number, true or false, or a list of those, not a table."#,
            ]
        );
        let many: Vec<String> = (0..65).map(|n| format!(r#""f{n}":1"#)).collect();
        let with = format!(r#"{{"where":{{{}}}}}"#, many.join(","));
        assert_eq!(
            test::issues::<FieldFilter>(&with),
            [": `where` and `except` have more than 64 conditions."]
        );
    }
}
