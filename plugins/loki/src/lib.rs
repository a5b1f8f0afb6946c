//! `builtin:loki`: pushes documents to Grafana Loki. See its README.

use std::collections::BTreeMap;

use lockgate_plugin::template::{Field, Template};
use lockgate_plugin::{
    Access, Batch, ConfigIssue, Document, Encoded, Failure, HttpSink, Part, Rejection, Request,
    SinkSetup, config, group, json,
};
use serde::Deserialize;

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub labels: Option<BTreeMap<String, Template>>,
    pub metadata: BTreeMap<String, Template>,
}

/// The configured sink.
#[derive(Debug)]
pub struct Loki {
    labels: BTreeMap<String, Template>,
    /// Structured metadata.
    metadata: BTreeMap<String, Template>,
}

impl HttpSink for Loki {
    type Config = Config;

    fn configure(config: Config) -> Result<(Loki, SinkSetup), Vec<ConfigIssue>> {
        let mut issues = vec![];
        if config.labels.as_ref().is_some_and(BTreeMap::is_empty) {
            let message = "Loki refuses a stream without labels.";
            let help = "labels = { job = \"teleport\" }";
            issues.push(ConfigIssue::new("labels", message).help(help));
        }
        let labels = config.labels.unwrap_or_else(|| {
            let job = "teleport".parse().expect("a text without placeholders");
            BTreeMap::from([("job".to_owned(), job)])
        });
        for (key, names) in [("labels", &labels), ("metadata", &config.metadata)] {
            for name in names.keys().filter(|name| !is_label(name)) {
                let message =
                    "A name consists of letters, digits and `_`, and begins with no digit.";
                issues.push(ConfigIssue::new(config::join(key, name), message));
            }
        }
        for (name, template) in &labels {
            let is_unbounded = template.fields().any(|field| {
                matches!(
                    field,
                    Field::Key
                        | Field::Index
                        | Field::Session
                        | Field::Time
                        | Field::Millis
                        | Field::Seconds
                )
            });
            if is_unbounded {
                let message = "Each value of a label is a stream of its own: this label would have \
                               about as many as there are events.";
                let help = "write it under `metadata`";
                issues.push(ConfigIssue::new(config::join("labels", name), message).help(help));
            }
        }
        if !issues.is_empty() {
            return Err(issues);
        }
        let metadata = config.metadata;
        Ok((Loki { labels, metadata }, SinkSetup::new(Access::Metadata)))
    }

    fn encode(&self, _: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let mut encoded = Encoded::default();
        let mut streams = vec![];
        for (index, document) in (0..).zip(&documents) {
            match object(&self.labels, document) {
                stream if stream == "{}" => {
                    let reason = "it would belong to a stream without labels, which Loki refuses";
                    encoded.rejected.push(Rejection::new(index, reason));
                }
                stream => streams.push((index, stream)),
            }
        }
        if streams.is_empty() {
            return Ok(encoded);
        }
        let mut parts = vec![];
        let mut text = String::from("{\"streams\":[");
        let mut carries = vec![];
        for (stream, indices) in group(streams, usize::MAX) {
            text.push_str(if carries.is_empty() { "" } else { "," });
            text.push_str("{\"stream\":");
            text.push_str(&stream);
            text.push_str(",\"values\":[");
            for (at, &index) in indices.iter().enumerate() {
                let document = &documents[index as usize];
                // Nanoseconds, as text.
                text.push_str(if at > 0 { ",[\"" } else { "[\"" });
                text.push_str(&document.time.to_string());
                text.push_str("000000\",");
                parts.push(Part::Text(std::mem::take(&mut text)));
                parts.push(Part::DocumentAsString(index));
                if !self.metadata.is_empty() {
                    text.push(',');
                    text.push_str(&object(&self.metadata, document));
                }
                text.push(']');
            }
            text.push_str("]}");
            carries.extend(indices);
        }
        text.push_str("]}");
        parts.push(Part::Text(text));
        let request = Request::post("application/json", parts, carries);
        encoded.requests.push(request);
        Ok(encoded)
    }
}

/// The values for a document as an object of texts. Empty ones are left out.
fn object(templates: &BTreeMap<String, Template>, document: &Document) -> String {
    let mut out = String::from("{");
    for (name, template) in templates {
        let value = template.render(document);
        if !value.is_empty() {
            out.push_str(if out.len() > 1 { "," } else { "" });
            json::write_text(&mut out, name);
            out.push(':');
            json::write_text(&mut out, &value);
        }
    }
    out.push('}');
    out
}

fn is_label(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

lockgate_plugin::http_sink!(Loki);

#[cfg(test)]
mod tests {
    use lockgate_plugin::test;
    use serde_json::{Value, json};

    use super::*;

    fn document(event: &str, n: u32) -> Document {
        test::document(&format!(
            r#"{{"uid":"k-{n}","event":"{event}","s":"\"\n"}}"#
        ))
    }

    fn pushed(with: &str, documents: &[Document]) -> Value {
        let encoded = test::encode::<Loki>(with, documents);
        let body = test::body_text(&encoded.requests[0], documents);
        serde_json::from_str(&body).unwrap()
    }

    #[test]
    fn documents_are_lines_of_the_streams_of_their_labels() {
        let documents = [
            document("user.login", 1),
            document("exec", 2),
            document("user.login", 3),
        ];
        let line = |n: usize| json!(["1767600000000000000", documents[n].payload]);
        assert_eq!(
            pushed("{}", &documents),
            json!({"streams": [
                {"stream": {"job": "teleport"}, "values": [line(0), line(1), line(2)]}
            ]})
        );
        let with = r#"{"labels":{"job":"t","event":"{event-type}","code":"{code}"}}"#;
        assert_eq!(
            pushed(with, &documents),
            json!({"streams": [
                {"stream": {"job": "t", "event": "user.login"}, "values": [line(0), line(2)]},
                {"stream": {"job": "t", "event": "exec"}, "values": [line(1)]}
            ]})
        );
        assert_eq!(test::encode::<Loki>("{}", &[]).requests, []);
    }

    #[test]
    fn a_document_without_labels_is_rejected() {
        let with = r#"{"labels":{"tenant":"{attributes.tenant}"}}"#;
        let encoded = test::encode::<Loki>(with, &[document("exec", 1)]);
        assert_eq!(encoded.requests, []);
        assert_eq!(encoded.rejected.len(), 1);
    }

    #[test]
    fn metadata_belongs_to_a_line() {
        let documents = [document("exec", 1)];
        let with = r#"{"metadata":{"key":"{key}","session":"{session}"}}"#;
        assert_eq!(
            pushed(with, &documents)["streams"][0]["values"][0],
            json!(["1767600000000000000", documents[0].payload, {"key": "k-1"}])
        );
    }

    #[test]
    fn labels_that_loki_refuses_or_that_would_be_too_many_are_refused() {
        for (with, expected) in [
            (
                r#"{"labels":{}}"#,
                "labels: Loki refuses a stream without labels. (labels = { job = \"teleport\" })",
            ),
            (
                r#"{"labels":{"a-b":"x"}}"#,
                "labels.a-b: A name consists of letters, digits and `_`, and begins with no digit.",
            ),
            (
                r#"{"labels":{"key":"{key}"}}"#,
                "labels.key: Each value of a label is a stream of its own: this label would have \
                 about as many as there are events. (write it under `metadata`)",
            ),
        ] {
            assert_eq!(test::issues::<Loki>(with), [expected]);
        }
    }
}
