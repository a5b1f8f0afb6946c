//! The body of `/readyz`.

use jiff::Timestamp;
use lockgate_model::Millis;
use serde::{Serialize, Serializer};

/// Whether the host delivers, and if not, why. The body of `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    pub reasons: Vec<Reason>,
}

/// One thing that keeps the host or a pipeline from working.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reason {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Stable, for alert rules: `store` and `stop` of the host; `start`, `endpoint`, `documents`,
    /// `plugin`, `brake` and `stalled` of a pipeline; `connection`, `credentials`, `reading`,
    /// `recordings` and `retention` of a source.
    pub kind: String,
    /// Its subject: an endpoint, a stage, a file.
    pub subject: String,
    /// A sentence.
    pub message: String,
    /// Milliseconds since the epoch; in JSON, RFC 3339.
    #[serde(serialize_with = "rfc3339")]
    pub since: Millis,
    /// Milliseconds since the epoch; in JSON, RFC 3339. `None` if the next attempt depends on
    /// something else than time.
    #[serde(
        serialize_with = "optional_rfc3339",
        skip_serializing_if = "Option::is_none"
    )]
    pub next_attempt: Option<Millis>,
}

fn rfc3339<S: Serializer>(at: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
    match Timestamp::from_millisecond(*at) {
        Ok(time) => serializer.collect_str(&format_args!("{time:.3}")),
        // Outside of the years that RFC 3339 can write.
        Err(_) => serializer.serialize_none(),
    }
}

fn optional_rfc3339<S: Serializer>(at: &Option<Millis>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, serializer),
        None => serializer.serialize_none(),
    }
}
