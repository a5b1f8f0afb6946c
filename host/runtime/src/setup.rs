//! What a component says of itself when it is configured.

use lockgate_model::FeedRef;

use crate::bindings::filter::lockgate::plugin::types;
use crate::error::CallError;
use crate::interface::Kind;
use crate::limits::{CONFIG_ISSUES_MAX, REASON_BYTES_MAX};
use crate::log::line;

/// Reasons that a component may declare.
pub const REASONS_MAX: usize = 64;

/// Bytes of a response that `classify` may ask for.
pub const RESPONSE_MAX: u32 = 4 << 20;

/// Bytes of a response that `classify` gets where it does not say.
pub const RESPONSE_MAX_DEFAULT: u32 = 64 << 10;

/// The one key of `setup.extra` that is known: an event type not wanted from session recordings.
const SKIP_SESSION_TYPE: &str = "skip-session-type";

/// What a configured component asks of the host. The contract's limits have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Event types wanted. None: all. Applied by the host, before any call.
    pub only: Option<Vec<String>>,
    /// Event types not wanted; wins over `only`.
    pub skip: Vec<String>,
    /// Event types not wanted from session recordings.
    pub skip_sessions: Vec<String>,
    pub needs: Needs,
    /// What `drop(n)` means, escaped and short.
    pub reasons: Vec<String>,
    /// Sinks: wishes for the size of a batch.
    pub batch: Option<BatchWish>,
    /// Sinks.
    pub inspect: Inspect,
    /// Sinks: bytes of a response that `classify` needs. Never 0.
    pub response_max: u32,
}

/// How much of an event the component wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// `only` and `skip` say it all: a filter is then never called.
    Nothing,
    /// Everything but the payload.
    Heads,
    Payloads,
}

/// Which responses `classify` is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspect {
    /// Everything but a 2xx.
    Failures,
    Always,
}

/// A sink's wish: the host takes the smaller of this and the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchWish {
    pub max_documents: u32,
    pub max_bytes: u32,
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
    /// True where the type lists let an event of this type and feed through.
    pub fn wants(&self, event_type: &str, feed: FeedRef<'_>) -> bool {
        let among = |types: &[String]| types.iter().any(|name| name == event_type);
        let skipped = among(&self.skip)
            || (matches!(feed, FeedRef::Session(_)) && among(&self.skip_sessions));
        !skipped && self.only.as_deref().is_none_or(among)
    }

    pub(crate) fn check(kind: Kind, setup: types::Setup) -> Result<Setup, CallError> {
        let types::Setup {
            only,
            skip,
            needs,
            reasons,
            batch,
            inspect,
            response_max,
            extra,
        } = setup;
        if reasons.len() > REASONS_MAX {
            return Err(CallError::contract(format!(
                "{} reasons are more than {REASONS_MAX}",
                reasons.len()
            )));
        }
        if let Some(long) = reasons
            .iter()
            .find(|reason| reason.len() > REASON_BYTES_MAX)
        {
            return Err(CallError::contract(format!(
                "the reason `{long}` is longer than {REASON_BYTES_MAX} bytes"
            )));
        }
        if response_max > RESPONSE_MAX {
            return Err(CallError::contract(format!(
                "`response-max` = {response_max} is more than {RESPONSE_MAX} bytes"
            )));
        }
        if batch.is_some_and(|wish| wish.max_documents == 0 || wish.max_bytes == 0) {
            return Err(CallError::contract("a `batch` of nothing was wished for"));
        }
        let needs = match needs {
            types::Needs::Nothing => Needs::Nothing,
            types::Needs::Heads => Needs::Heads,
            types::Needs::Payloads => Needs::Payloads,
        };
        if needs == Needs::Nothing && kind != Kind::Filter {
            return Err(CallError::contract(format!(
                "`needs` = `nothing` is for filters, this is of the world `{kind}`"
            )));
        }
        Ok(Setup {
            only,
            skip,
            skip_sessions: extra
                .into_iter()
                .filter(|pair| pair.name == SKIP_SESSION_TYPE)
                .map(|pair| pair.value)
                .collect(),
            needs,
            reasons: reasons.iter().map(|reason| line(reason)).collect(),
            batch: batch.map(|wish| BatchWish {
                max_documents: wish.max_documents,
                max_bytes: wish.max_bytes,
            }),
            inspect: match inspect {
                types::Inspect::Failures => Inspect::Failures,
                types::Inspect::Always => Inspect::Always,
            },
            response_max: if response_max == 0 {
                RESPONSE_MAX_DEFAULT
            } else {
                response_max
            },
        })
    }
}

/// Issues as they may be shown. None at all becomes one that says so: some languages' tools turn
/// any error into an empty list.
pub(crate) fn issues(issues: Vec<types::ConfigIssue>) -> Vec<ConfigIssue> {
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
    use super::*;

    fn setup() -> types::Setup {
        types::Setup {
            only: None,
            skip: vec![],
            needs: types::Needs::Payloads,
            reasons: vec!["noise".into()],
            batch: None,
            inspect: types::Inspect::Failures,
            response_max: 0,
            extra: vec![],
        }
    }

    #[test]
    fn a_setup_beyond_the_contract_is_refused() {
        let check = |kind, change: fn(&mut types::Setup)| {
            let mut setup = setup();
            change(&mut setup);
            Setup::check(kind, setup)
                .map(|setup| setup.response_max)
                .map_err(|error| error.to_string())
        };
        for (kind, change, expected) in [
            (Kind::Filter, (|_| {}) as fn(&mut types::Setup), Ok(65_536)),
            (
                Kind::HttpSink,
                |setup| setup.response_max = 4 << 20,
                Ok(4_194_304),
            ),
            (
                Kind::HttpSink,
                |setup| setup.response_max = (4 << 20) + 1,
                Err("`response-max` = 4194305 is more than 4194304 bytes"),
            ),
            (
                Kind::Filter,
                |setup| setup.reasons = vec!["r".into(); 65],
                Err("65 reasons are more than 64"),
            ),
            (
                Kind::Filter,
                |setup| setup.needs = types::Needs::Nothing,
                Ok(65_536),
            ),
            (
                Kind::Mapper,
                |setup| setup.needs = types::Needs::Nothing,
                Err("`needs` = `nothing` is for filters, this is of the world `mapper`"),
            ),
            (
                Kind::HttpSink,
                |setup| {
                    setup.batch = Some(types::BatchWish {
                        max_documents: 0,
                        max_bytes: 1,
                    })
                },
                Err("a `batch` of nothing was wished for"),
            ),
        ] {
            assert_eq!(
                check(kind, change),
                expected.map_err(|text| format!("it broke the contract: {text}"))
            );
        }
    }

    #[test]
    fn type_lists_say_what_is_wanted() {
        let mut setup = Setup::check(Kind::Filter, setup()).unwrap();
        assert!(setup.wants("print", FeedRef::Audit));
        setup.only = Some(vec!["print".into(), "exec".into()]);
        setup.skip = vec!["print".into()];
        assert_eq!(
            ["print", "exec", "other"].map(|name| setup.wants(name, FeedRef::Audit)),
            [false, true, false]
        );
    }

    #[test]
    fn issues_are_explained_escaped_and_not_too_many() {
        assert!(issues(vec![])[0].message.contains("without an explanation"));
        let issue = |n: usize| types::ConfigIssue {
            path: format!("p{n}"),
            message: "a\nb".into(),
            help: None,
        };
        let shown = issues((0..150).map(issue).collect());
        assert_eq!((shown.len(), shown[0].message.as_str()), (101, "a\\nb"));
        assert_eq!(shown[100].message, "The plugin reports 50 more problems.");
    }
}
