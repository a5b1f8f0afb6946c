//! `builtin:logstash`: sends documents to Logstash's HTTP input. See its README.

use std::num::NonZeroU32;

use lockgate_plugin::{
    Access, Batch, ConfigIssue, Document, Encoded, Failure, HttpSink, Request, RequestBody,
    SinkSetup, group,
};
use serde::Deserialize;

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub max_events: Option<NonZeroU32>,
}

/// The configured sink.
#[derive(Debug)]
pub struct Logstash {
    max_events: usize,
}

impl HttpSink for Logstash {
    type Config = Config;

    fn configure(config: Config) -> Result<(Logstash, SinkSetup), Vec<ConfigIssue>> {
        let max_events = config
            .max_events
            .map_or(usize::MAX, |max| max.get() as usize);
        Ok((Logstash { max_events }, SinkSetup::new(Access::Metadata)))
    }

    /// Always arrays as `application/json`: Logstash makes one event of an array's element. Lines
    /// of JSON, or another type, become one event with all of the text.
    fn encode(&self, _: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let all = (0..).take(documents.len()).map(|index| (index, ()));
        let requests = group(all, self.max_events)
            .into_iter()
            .map(|((), carries)| {
                let body = RequestBody::array(&carries);
                Request::post("application/json", body, carries)
            });
        Ok(Encoded {
            requests: requests.collect(),
            rejected: vec![],
        })
    }
}

lockgate_plugin::http_sink!(Logstash);

#[cfg(test)]
mod tests {
    use lockgate_plugin::test;

    use super::*;

    #[test]
    fn documents_are_arrays() {
        let documents = [1, 2, 3].map(|n| test::document(&format!(r#"{{"uid":"{n}"}}"#)));
        let bodies = |with: &str| -> Vec<String> {
            let encoded = test::encode::<Logstash>(with, &documents);
            let requests = encoded.requests.iter();
            requests.map(|it| test::body_text(it, &documents)).collect()
        };
        assert_eq!(bodies("{}"), [r#"[{"uid":"1"},{"uid":"2"},{"uid":"3"}]"#]);
        assert_eq!(
            bodies(r#"{"max-events":2}"#),
            [r#"[{"uid":"1"},{"uid":"2"}]"#, r#"[{"uid":"3"}]"#]
        );
        assert_eq!(test::encode::<Logstash>("{}", &[]).requests, []);
    }
}
