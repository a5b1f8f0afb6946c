//! `builtin:datadog`: sends documents to Datadog's log intake. See its README.

use lockgate_plugin::template::{Field, Template};
use lockgate_plugin::{
    Access, Batch, ConfigIssue, Document, Encoded, Failure, HttpSink, Part, Rejection, Request,
    SinkSetup, json,
};
use serde::Deserialize;

/// Most logs in an array.
const DOCUMENTS_MAX: u32 = 1000;
/// Datadog cuts a log that is longer, and answers as if it had not: a megabyte, less what is added.
const DOCUMENT_MAX: usize = 1_000_000 - 4096;
/// Most bytes of payload in a request: of five megabytes, what quotes and escapes may add is left.
const BYTES_MAX: u32 = 3 << 20;

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub service: Option<Template>,
    pub source: Option<Template>,
    pub hostname: Option<Template>,
    pub tags: Vec<Template>,
}

/// The configured sink.
#[derive(Debug)]
pub struct Datadog {
    members: Vec<(&'static str, Template)>,
    tags: Vec<Template>,
}

impl HttpSink for Datadog {
    type Config = Config;

    fn configure(config: Config) -> Result<(Datadog, SinkSetup), Vec<ConfigIssue>> {
        let default = |text: &str| text.parse().expect("a text without placeholders");
        let members = [
            (
                "ddsource",
                config.source.or_else(|| Some(default("teleport"))),
            ),
            (
                "service",
                config.service.or_else(|| Some(default("teleport"))),
            ),
            ("hostname", config.hostname),
        ];
        let sink = Datadog {
            members: members
                .into_iter()
                .filter_map(|(name, template)| Some((name, template?)))
                .collect(),
            tags: config.tags,
        };
        // The length of a document is known only if it is passed.
        let setup = SinkSetup::new(Access::Payload)
            .max_documents(DOCUMENTS_MAX)
            .max_bytes(BYTES_MAX);
        Ok((sink, setup))
    }

    fn encode(&self, _: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let mut encoded = Encoded::default();
        let mut parts = vec![];
        let mut carries = vec![];
        for (index, document) in (0..).zip(&documents) {
            let mut message = String::new();
            json::write_text(&mut message, &document.payload);
            if message.len() > DOCUMENT_MAX {
                let reason = "it is longer than the megabyte at which Datadog cuts logs off";
                encoded.rejected.push(Rejection::new(index, reason));
                continue;
            }
            let mut text = String::from(if carries.is_empty() { "[{" } else { "},{" });
            text.push_str("\"timestamp\":");
            Field::Millis.write_json(&mut text, document);
            for (name, template) in &self.members {
                let value = template.render(document);
                if !value.is_empty() {
                    text.push_str(",\"");
                    text.push_str(name);
                    text.push_str("\":");
                    json::write_text(&mut text, &value);
                }
            }
            let tags: Vec<String> = self.tags.iter().map(|tag| tag.render(document)).collect();
            if !tags.is_empty() {
                text.push_str(",\"ddtags\":");
                json::write_text(&mut text, &tags.join(","));
            }
            text.push_str(",\"message\":");
            parts.push(Part::Text(text));
            parts.push(Part::DocumentAsString(index));
            carries.push(index);
        }
        if !carries.is_empty() {
            parts.push(Part::Text("}]".into()));
            let request = Request::post("application/json", parts, carries);
            encoded.requests.push(request);
        }
        Ok(encoded)
    }
}

lockgate_plugin::http_sink!(Datadog);

#[cfg(test)]
mod tests {
    use lockgate_plugin::test;
    use serde_json::{Value, json};

    use super::*;

    fn logs(with: &str, documents: &[Document]) -> Value {
        let encoded = test::encode::<Datadog>(with, documents);
        let body = test::body_text(&encoded.requests[0], documents);
        serde_json::from_str(&body).unwrap()
    }

    #[test]
    fn each_document_is_the_message_of_a_log() {
        let documents = [1, 2].map(|n| {
            test::document(&format!(
                r#"{{"uid":"k-{n}","event":"user.login","s":"\"\n"}}"#
            ))
        });
        let message = |n: usize| documents[n].payload.as_str();
        assert_eq!(
            logs("{}", &documents),
            json!([0, 1].map(|n| json!({
                "timestamp": 1_767_600_000_000_i64, "ddsource": "teleport", "service": "teleport",
                "message": message(n),
            })))
        );
        let with = r#"{"service":"access","hostname":"h","tags":["env:prod","type:{event-type}"]}"#;
        assert_eq!(
            logs(with, &documents[..1]),
            json!([{
                "timestamp": 1_767_600_000_000_i64, "ddsource": "teleport", "service": "access",
                "hostname": "h", "ddtags": "env:prod,type:user.login", "message": message(0),
            }])
        );
        assert_eq!(test::encode::<Datadog>("{}", &[]).requests, []);
    }

    #[test]
    fn a_log_that_datadog_would_cut_is_rejected() {
        let long = format!(r#"{{"uid":"k","text":"{}"}}"#, "x".repeat(DOCUMENT_MAX));
        // Quotes are escaped.
        let quotes = format!(
            r#"{{"uid":"k","text":"{}"}}"#,
            "\\\"".repeat(DOCUMENT_MAX / 4 + 1)
        );
        let documents = [long, "{}".to_owned(), quotes].map(|payload| test::document(&payload));
        let encoded = test::encode::<Datadog>("{}", &documents);
        let rejected: Vec<u32> = encoded.rejected.iter().map(|it| it.index).collect();
        assert_eq!(rejected, [0, 2]);
        assert_eq!(encoded.requests[0].carries, [1]);
        assert_eq!(logs("{}", &documents)[0]["message"], "{}");
    }
}
