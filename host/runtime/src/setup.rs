//! Checks the setup that a component returns from `configure` against the limits of the contract.

use lockgate_model::contract::{Access, CallError, SinkSetup, StageSetup};

use crate::contract::broken;
use crate::interface::Kind;
use crate::limits::{
    CONFIG_ISSUES_MAX, MEMBER_BYTES_MAX, REASON_BYTES_MAX, REASONS_MAX, RESPONSE_MAX,
};
use crate::log::line;

/// The setup of a stage or a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    Stage(StageSetup),
    Sink(SinkSetup),
}

/// A problem that a component found in its configuration. Texts are escaped and short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigIssue {
    /// Dotted path inside the plugin's `with` table, such as `fields.user`. Empty: the table
    /// itself.
    pub path: String,
    pub message: String,
    pub help: Option<String>,
}

impl Setup {
    pub(crate) fn check(self, kind: Kind) -> Result<Setup, CallError> {
        match self {
            Setup::Stage(setup) => check_stage(kind, setup).map(Setup::Stage),
            Setup::Sink(setup) => check_sink(setup).map(Setup::Sink),
        }
    }
}

fn check_stage(kind: Kind, setup: StageSetup) -> Result<StageSetup, CallError> {
    let reasons = &setup.reasons;
    if reasons.len() > REASONS_MAX {
        return Err(broken(format!(
            "it declares {} reasons; the limit is {REASONS_MAX}",
            reasons.len()
        )));
    }
    if let Some(long) = reasons
        .iter()
        .find(|reason| reason.len() > REASON_BYTES_MAX)
    {
        return Err(broken(format!(
            "the reason `{long}` is longer than {REASON_BYTES_MAX} bytes"
        )));
    }
    if setup.access == Access::Types && kind != Kind::Filter {
        return Err(only_for_filters(kind));
    }
    Ok(StageSetup {
        reasons: reasons.iter().map(|reason| line(reason)).collect(),
        ..setup
    })
}

fn check_sink(setup: SinkSetup) -> Result<SinkSetup, CallError> {
    if setup.access == Access::Types {
        return Err(only_for_filters(Kind::HttpSink));
    }
    for (name, most) in [
        ("max-documents", setup.max_documents),
        ("max-bytes", setup.max_bytes),
        ("max-response-bytes", Some(setup.max_response_bytes)),
    ] {
        if most == Some(0) {
            return Err(broken(format!("`{name}` is 0")));
        }
    }
    if setup.max_response_bytes > RESPONSE_MAX {
        return Err(broken(format!(
            "`max-response-bytes` is {}; the limit is {RESPONSE_MAX}",
            setup.max_response_bytes
        )));
    }
    if let Some(member) = &setup.time_member
        && !is_member_name(member)
    {
        return Err(broken(format!(
            "`time-member` is `{member}`, not 1 to {MEMBER_BYTES_MAX} bytes that need no escape in \
             JSON"
        )));
    }
    Ok(setup)
}

fn is_member_name(name: &str) -> bool {
    (1..=MEMBER_BYTES_MAX).contains(&name.len())
        && !name
            .bytes()
            .any(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\'))
}

fn only_for_filters(kind: Kind) -> CallError {
    broken(format!(
        "`access` is `types`, which only filters may use; its world is `{kind}`"
    ))
}

/// Makes issues safe to show. An empty list becomes one issue, because the tools of some languages
/// turn any error into an empty list.
pub(crate) fn issues(issues: Vec<ConfigIssue>) -> Vec<ConfigIssue> {
    if issues.is_empty() {
        let message = "The plugin refuses its configuration without an explanation.".to_owned();
        return vec![ConfigIssue {
            path: String::new(),
            message,
            help: None,
        }];
    }
    let left_out = issues.len().saturating_sub(CONFIG_ISSUES_MAX);
    let mut shown: Vec<ConfigIssue> = issues
        .into_iter()
        .take(CONFIG_ISSUES_MAX)
        .map(|issue| ConfigIssue {
            path: line(&issue.path),
            message: line(&issue.message),
            help: issue.help.as_deref().map(line),
        })
        .collect();
    if left_out > 0 {
        shown.push(ConfigIssue {
            path: String::new(),
            message: format!("The plugin reports {left_out} more problems."),
            help: None,
        });
    }
    shown
}

#[cfg(test)]
mod tests {
    use lockgate_model::contract::{Inspect, TypeLists};

    use super::*;

    fn stage() -> StageSetup {
        StageSetup {
            types: TypeLists::default(),
            access: Access::Payload,
            reasons: vec!["noise".into()],
        }
    }

    fn sink() -> SinkSetup {
        SinkSetup {
            types: TypeLists::default(),
            access: Access::Metadata,
            time_member: Some("time".into()),
            max_documents: Some(1),
            max_bytes: None,
            inspect: Inspect::Failures,
            max_response_bytes: RESPONSE_MAX,
        }
    }

    #[test]
    fn a_setup_beyond_the_contract_is_refused() {
        let stage = |kind, change: fn(&mut StageSetup)| {
            let mut setup = stage();
            change(&mut setup);
            Setup::Stage(setup).check(kind)
        };
        let sink = |change: fn(&mut SinkSetup)| {
            let mut setup = sink();
            change(&mut setup);
            Setup::Sink(setup).check(Kind::HttpSink)
        };
        for (result, expected) in [
            (stage(Kind::Filter, |_| {}), None),
            (
                stage(Kind::Filter, |setup| setup.access = Access::Types),
                None,
            ),
            (
                stage(Kind::Mapper, |setup| setup.access = Access::Types),
                Some("`access` is `types`, which only filters may use; its world is `mapper`"),
            ),
            (
                stage(Kind::Filter, |setup| setup.reasons = vec!["r".into(); 65]),
                Some("it declares 65 reasons; the limit is 64"),
            ),
            (sink(|_| {}), None),
            (
                sink(|setup| setup.access = Access::Types),
                Some("`access` is `types`, which only filters may use; its world is `http-sink`"),
            ),
            (
                sink(|setup| setup.max_response_bytes += 1),
                Some("`max-response-bytes` is 4194305; the limit is 4194304"),
            ),
            (
                sink(|setup| setup.max_response_bytes = 0),
                Some("`max-response-bytes` is 0"),
            ),
            (
                sink(|setup| setup.max_documents = Some(0)),
                Some("`max-documents` is 0"),
            ),
            (
                sink(|setup| setup.max_bytes = Some(0)),
                Some("`max-bytes` is 0"),
            ),
            (
                sink(|setup| setup.time_member = Some("a\"".into())),
                Some("`time-member` is `a\"`, not 1 to 200 bytes that need no escape in JSON"),
            ),
        ] {
            let expected = expected.map(|text| format!("it broke the contract: {text}"));
            assert_eq!(result.err().map(|error| error.to_string()), expected);
        }
    }

    #[test]
    fn issues_are_explained_escaped_and_limited() {
        assert!(issues(vec![])[0].message.contains("without an explanation"));
        let issue = |n: usize| ConfigIssue {
            path: format!("p{n}"),
            message: "a\nb".into(),
            help: None,
        };
        let shown = issues((0..150).map(issue).collect());
        assert_eq!((shown.len(), shown[0].message.as_str()), (101, "a\\nb"));
        assert_eq!(shown[100].message, "The plugin reports 50 more problems.");
    }
}
