//! `builtin:splunk`: sends documents to Splunk's HTTP Event Collector. See its README.

use std::collections::BTreeMap;

use lockgate_plugin::template::{Field, Template};
use lockgate_plugin::{
    Access, Batch, ConfigIssue, Delivery, Disposition, Document, Encoded, Failure, HttpSink, Part,
    Request, Response, Sent, SinkSetup, json,
};
use serde::Deserialize;

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub index: Option<Template>,
    pub source: Option<Template>,
    pub sourcetype: Option<Template>,
    pub host: Option<Template>,
    pub fields: BTreeMap<String, Template>,
}

/// The configured sink.
#[derive(Debug)]
pub struct Splunk {
    /// The members of an event beside `time`, `event` and `fields`.
    members: Vec<(&'static str, Template)>,
    fields: BTreeMap<String, Template>,
}

/// What the collector answers.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    code: u32,
    text: String,
    #[serde(default)]
    invalid_event_number: Option<u32>,
}

/// "Incorrect index": the token must not write to it, or it does not exist.
const INCORRECT_INDEX: u32 = 7;
/// "Data channel is missing" and "Invalid data channel": the token has indexer acknowledgment.
const CHANNEL: std::ops::RangeInclusive<u32> = 10..=11;

impl HttpSink for Splunk {
    type Config = Config;

    fn configure(config: Config) -> Result<(Splunk, SinkSetup), Vec<ConfigIssue>> {
        let default = |text: &str| text.parse().expect("a text without placeholders");
        let sourcetype = config
            .sourcetype
            .unwrap_or_else(|| default("teleport:audit"));
        let source = config.source.unwrap_or_else(|| default("teleport"));
        let members = [
            ("index", config.index),
            ("source", Some(source)),
            ("sourcetype", Some(sourcetype)),
            ("host", config.host),
        ];
        let sink = Splunk {
            members: members
                .into_iter()
                .filter_map(|(name, template)| Some((name, template?)))
                .collect(),
            fields: config.fields,
        };
        Ok((sink, SinkSetup::new(Access::Metadata)))
    }

    fn encode(&self, _: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let mut encoded = Encoded::default();
        if documents.is_empty() {
            return Ok(encoded);
        }
        let mut parts = vec![];
        let mut text = String::new();
        for (index, document) in (0..).zip(&documents) {
            text.push_str("{\"time\":");
            Field::Seconds.write_json(&mut text, document);
            for (name, template) in &self.members {
                let value = template.render(document);
                // An empty one, as of an attribute that is not there, is the token's default.
                if !value.is_empty() {
                    member(&mut text, name, &value);
                }
            }
            if !self.fields.is_empty() {
                text.push_str(",\"fields\":{");
                for (at, (name, template)) in self.fields.iter().enumerate() {
                    text.push_str(if at > 0 { "," } else { "" });
                    json::write_text(&mut text, name);
                    text.push(':');
                    json::write_text(&mut text, &template.render(document));
                }
                text.push('}');
            }
            text.push_str(",\"event\":");
            parts.push(Part::Text(std::mem::take(&mut text)));
            parts.push(Part::Document(index));
            text.push_str("}\n");
        }
        parts.push(Part::Text(text));
        let carries = (0..).take(documents.len()).collect();
        let request = Request::post("application/json", parts, carries);
        encoded.requests.push(request);
        Ok(encoded)
    }

    fn classify(&self, _: &Batch, sent: &Sent, response: &Response) -> Delivery {
        let Ok(answer) = serde_json::from_str::<Answer>(&response.body.text()) else {
            return Delivery::ByStatus;
        };
        let summary = format!("Splunk answers code {}, `{}`", answer.code, answer.text);
        if CHANNEL.contains(&answer.code) {
            return Delivery::Hold(format!(
                "{summary}: the token uses indexer acknowledgment. Switch it off for this token"
            ));
        }
        let has_one_index = self
            .members
            .iter()
            .all(|(name, template)| *name != "index" || template.is_constant());
        if answer.code == INCORRECT_INDEX && has_one_index {
            return Delivery::Hold(format!(
                "{summary}: allow the index for this token, or change `index`"
            ));
        }
        // Events before it may have been indexed. Sent again they are there twice, but not lost.
        let invalid = answer
            .invalid_event_number
            .filter(|_| response.status == 400);
        let Some(invalid) = invalid.and_then(|at| sent.carries.get(at as usize)) else {
            return Delivery::ByStatus;
        };
        let disposition = |index: u32| match index == *invalid {
            true => Disposition::Rejected(summary.clone()),
            false => Disposition::Retry,
        };
        let carries = sent.carries.iter().copied();
        Delivery::Mixed(carries.map(|index| (index, disposition(index))).collect())
    }
}

fn member(out: &mut String, name: &str, value: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    json::write_text(out, value);
}

lockgate_plugin::http_sink!(Splunk);

#[cfg(test)]
mod tests {
    use lockgate_plugin::{Pair, test};
    use serde_json::{Value, json};

    use super::*;

    fn document(n: u32) -> Document {
        test::document(&format!(r#"{{"uid":"k-{n}","event":"user.login"}}"#))
    }

    fn events(with: &str, documents: &[Document]) -> Vec<Value> {
        let encoded = test::encode::<Splunk>(with, documents);
        let body = test::body_text(&encoded.requests[0], documents);
        let events = serde_json::Deserializer::from_str(&body).into_iter();
        events.map(Result::unwrap).collect()
    }

    #[test]
    fn each_document_is_the_event_of_an_object() {
        let documents = [document(1), document(2)];
        assert_eq!(
            events("{}", &documents),
            [1, 2].map(|n| json!({
                "time": 1_767_600_000.0, "source": "teleport", "sourcetype": "teleport:audit",
                "event": {"uid": format!("k-{n}"), "event": "user.login"},
            }))
        );
        assert_eq!(test::encode::<Splunk>("{}", &[]).requests, []);
    }

    #[test]
    fn metadata_may_choose_index_source_and_fields() {
        let mut documents = [document(1), document(2)];
        documents[0]
            .attributes
            .push(Pair::new("index", "sec\"urity"));
        documents[0].time = 1_767_600_000_123;
        let with = r#"{"index":"{attributes.index}","sourcetype":"teleport:{feed}",
            "host":"h","fields":{"type":"{event-type}","key":"{key}"}}"#;
        let events = events(with, &documents);
        assert_eq!(
            events[0],
            json!({
                "time": 1_767_600_000.123, "index": "sec\"urity", "source": "teleport",
                "sourcetype": "teleport:audit", "host": "h",
                "fields": {"key": "k-1", "type": "user.login"},
                "event": {"uid": "k-1", "event": "user.login"},
            })
        );
        assert!(events[1].get("index").is_none());
    }

    #[test]
    fn an_answer_names_the_event_at_fault_or_what_the_operator_has_to_do() {
        let documents = [document(1), document(2), document(3)];
        let delivery = |with: &str, status, body: &str| {
            let (sink, _) = test::configure::<Splunk>(with).unwrap();
            let request = &test::encode::<Splunk>(with, &documents).requests[0];
            let response = test::response(status, body);
            sink.classify(&test::batch(), &test::sent(request), &response)
        };
        let invalid = r#"{"text":"Invalid data format","code":6,"invalid-event-number":1}"#;
        assert_eq!(
            delivery("{}", 400, invalid),
            Delivery::Mixed(vec![
                (0, Disposition::Retry),
                (
                    1,
                    Disposition::Rejected("Splunk answers code 6, `Invalid data format`".into())
                ),
                (2, Disposition::Retry),
            ])
        );
        let index = r#"{"text":"Incorrect index","code":7,"invalid-event-number":0}"#;
        let fixed = r#"{"index":"main"}"#;
        assert!(matches!(delivery(fixed, 400, index), Delivery::Hold(_)));
        let chosen = r#"{"index":"{attributes.index}"}"#;
        assert!(matches!(delivery(chosen, 400, index), Delivery::Mixed(_)));
        let channel = r#"{"text":"Data channel is missing","code":10}"#;
        assert!(matches!(delivery("{}", 400, channel), Delivery::Hold(_)));
        for (status, body) in [
            (503, r#"{"text":"Server is busy","code":9}"#),
            (403, r#"{"text":"Invalid token","code":4}"#),
            (400, r#"{"text":"No data","code":5}"#),
            (
                400,
                r#"{"text":"Invalid data format","code":6,"invalid-event-number":7}"#,
            ),
            (400, "<html>"),
        ] {
            assert_eq!(delivery("{}", status, body), Delivery::ByStatus, "{body}");
        }
    }
}
