//! `builtin:runreveal`: sends documents to a webhook of RunReveal. See its README.

mod structured;

use std::num::NonZeroU32;

use lockgate_plugin::{
    Access, Batch, ConfigIssue, Document, Encoded, Failure, HttpSink, Rejection, Request,
    RequestBody, SinkSetup, group,
};
use serde::Deserialize;

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub format: Format,
    pub max_events: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Teleport's events in an array, for a source of the type Teleport.
    #[default]
    Teleport,
    /// RunReveal's own schema, an event per request, for a source of the type Structured Webhook.
    Structured,
}

/// The configured sink.
#[derive(Debug)]
pub struct RunReveal {
    format: Format,
    max_events: usize,
}

impl HttpSink for RunReveal {
    type Config = Config;

    fn configure(config: Config) -> Result<(RunReveal, SinkSetup), Vec<ConfigIssue>> {
        if config.format == Format::Structured && config.max_events.is_some() {
            let message = "`max-events` has no meaning with one event per request.";
            return Err(vec![
                ConfigIssue::new("max-events", message).help("leave it out"),
            ]);
        }
        let access = match config.format {
            Format::Teleport => Access::Metadata,
            Format::Structured => Access::Payload,
        };
        let sink = RunReveal {
            format: config.format,
            max_events: config
                .max_events
                .map_or(usize::MAX, |max| max.get() as usize),
        };
        Ok((sink, SinkSetup::new(access)))
    }

    fn encode(&self, _: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let mut encoded = Encoded::default();
        match self.format {
            Format::Teleport => {
                let all = (0..).take(documents.len()).map(|index| (index, ()));
                for ((), carries) in group(all, self.max_events) {
                    let body = RequestBody::array(&carries);
                    let request = Request::post("application/json", body, carries);
                    encoded.requests.push(request);
                }
            }
            Format::Structured => {
                for (index, document) in (0..).zip(&documents) {
                    match structured::body(index, document) {
                        Ok(body) => {
                            let request = Request::post("application/json", body, vec![index]);
                            encoded.requests.push(request);
                        }
                        Err(malformed) => {
                            let rejection = Rejection::new(index, malformed.to_string());
                            encoded.rejected.push(rejection);
                        }
                    }
                }
            }
        }
        Ok(encoded)
    }
}

lockgate_plugin::http_sink!(RunReveal);

#[cfg(test)]
mod tests {
    use lockgate_plugin::test;
    use serde_json::{Value, json};

    use super::*;

    fn bodies(with: &str, documents: &[Document]) -> Vec<Value> {
        let encoded = test::encode::<RunReveal>(with, documents);
        let body = |request| serde_json::from_str(&test::body_text(request, documents)).unwrap();
        encoded.requests.iter().map(body).collect()
    }

    #[test]
    fn teleports_events_are_arrays() {
        let documents = [1, 2, 3].map(|n| test::document(&format!(r#"{{"uid":"{n}"}}"#)));
        assert_eq!(
            bodies("{}", &documents),
            [json!([{"uid": "1"}, {"uid": "2"}, {"uid": "3"}])]
        );
        assert_eq!(bodies(r#"{"max-events":2}"#, &documents).len(), 2);
        assert_eq!(bodies("{}", &[]), <[Value; 0]>::default());
    }

    #[test]
    fn structured_events_have_the_members_of_runreveals_schema() {
        let with = r#"{"format":"structured"}"#;
        let login = r#"{"uid":"1","event":"user.login","code":"T1000I","user":"zoe@example.com","addr.remote":"192.0.2.7:52011","cluster_name":"c","success":true}"#;
        let list = r#"{"uid":"2","event":"lock.created","user":"bot","addr.remote":"[2001:db8::1]:443","sid":"s-1"}"#;
        let bare = r#"{"uid":"3","event":"x","addr.remote":"pipe","user":5}"#;
        let documents = [login, list, bare].map(test::document);
        let event = |payload: &str| serde_json::from_str::<Value>(payload).unwrap();
        let time = "2026-01-05T08:00:00.000Z";
        let service = json!({"name": "teleport"});
        assert_eq!(
            bodies(with, &documents),
            [
                json!({
                    "eventName": "user.login", "eventTime": time, "readOnly": false,
                    "actor": {"username": "zoe@example.com", "email": "zoe@example.com"},
                    "src": {"ip": "192.0.2.7", "port": 52011}, "service": service,
                    "tags": {"key": "1", "code": "T1000I", "cluster": "c"},
                    "resources": [event(login)],
                }),
                json!({
                    "eventName": "lock.created", "eventTime": time, "readOnly": false,
                    "actor": {"username": "bot"},
                    "src": {"ip": "2001:db8::1", "port": 443}, "service": service,
                    "tags": {"key": "2", "session": "s-1"},
                    "resources": [event(list)],
                }),
                json!({
                    "eventName": "x", "eventTime": time, "readOnly": false, "actor": {},
                    "service": service, "tags": {"key": "3"}, "resources": [event(bare)],
                }),
            ]
        );
        assert_eq!(
            test::issues::<RunReveal>(r#"{"format":"structured","max-events":2}"#).len(),
            1
        );
    }
}
