//! `builtin:slack`: posts a message for each document to a Slack channel. See its README.

use lockgate_plugin::template::{Piece, Template};
use lockgate_plugin::{
    Access, Batch, ConfigIssue, Document, Encoded, Failure, HttpSink, Rejection, Request,
    SinkSetup, json,
};
use serde::Deserialize;

const OWN: [&str; 1] = ["payload."];
const TEXT: &str = "`{event-type}` ({code}) by {payload.user} at {time}";
/// Slack cuts a text that is longer.
const TEXT_MAX: usize = 40_000;

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub text: Option<String>,
}

/// The configured sink.
#[derive(Debug)]
pub struct Slack {
    text: Template,
}

impl HttpSink for Slack {
    type Config = Config;

    fn configure(config: Config) -> Result<(Slack, SinkSetup), Vec<ConfigIssue>> {
        let text = config.text.as_deref().unwrap_or(TEXT);
        let issue = |message: String| {
            let help = "such as \"{event-type} by {payload.user}\"";
            vec![ConfigIssue::new("text", message).help(help)]
        };
        if text.trim().is_empty() {
            return Err(issue("`text` is empty.".to_owned()));
        }
        let text =
            Template::with(text, &OWN).map_err(|error| issue(format!("`text`: {error}.")))?;
        let needs_payload = text.pieces().iter().any(|it| matches!(it, Piece::Own(..)));
        let access = match needs_payload {
            true => Access::Payload,
            false => Access::Metadata,
        };
        Ok((Slack { text }, SinkSetup::new(access)))
    }

    fn encode(&self, _: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let mut encoded = Encoded::default();
        for (index, document) in (0..).zip(&documents) {
            match self.message(document) {
                Ok(message) => {
                    let mut body = String::from("{\"text\":");
                    json::write_text(&mut body, &message);
                    body.push('}');
                    let request = Request::post("application/json", body, vec![index]);
                    encoded.requests.push(request);
                }
                Err(reason) => encoded.rejected.push(Rejection::new(index, reason)),
            }
        }
        Ok(encoded)
    }
}

impl Slack {
    fn message(&self, document: &Document) -> Result<String, String> {
        let mut message = String::new();
        for piece in self.text.pieces() {
            match piece {
                Piece::Text(text) => message.push_str(text),
                Piece::Field(field) => escape(&mut message, &field.text(document)),
                Piece::Own(_, path) => {
                    let value = json::find(&document.payload, path);
                    let value = value.map_err(|malformed| malformed.to_string())?;
                    let value = value.filter(|value| *value != "null").unwrap_or_default();
                    match json::text(value) {
                        Some(text) => escape(&mut message, &text),
                        None => escape(&mut message, value),
                    }
                }
            }
        }
        if message.chars().count() > TEXT_MAX {
            return Err(format!(
                "its message is longer than the {TEXT_MAX} characters at which Slack cuts texts off"
            ));
        }
        if message.trim().is_empty() {
            return Err("its message is empty".to_owned());
        }
        Ok(message)
    }
}

/// Appends a value so that it is neither a link nor a mention, such as `<!channel>`.
fn escape(out: &mut String, value: &str) {
    for char in value.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            _ => out.push(char),
        }
    }
}

lockgate_plugin::http_sink!(Slack);

#[cfg(test)]
mod tests {
    use lockgate_plugin::test;
    use serde_json::Value;

    use super::*;

    fn texts(with: &str, payloads: &[&str]) -> Vec<String> {
        let documents: Vec<Document> = payloads.iter().map(|it| test::document(it)).collect();
        let encoded = test::encode::<Slack>(with, &documents);
        let text = |request: &Request| {
            let body = test::body_text(request, &documents);
            let body: Value = serde_json::from_str(&body).unwrap();
            body["text"].as_str().unwrap().to_owned()
        };
        encoded.requests.iter().map(text).collect()
    }

    #[test]
    fn each_document_is_a_message() {
        let login = r#"{"uid":"1","event":"user.login","code":"T1000W","user":"zo\u00eb","n":5}"#;
        assert_eq!(
            texts("{}", &[login, r#"{"event":"exec"}"#]),
            [
                "`user.login` (T1000W) by zoë at 2026-01-05T08:00:00.000Z",
                "`exec` () by  at 2026-01-05T08:00:00.000Z",
            ]
        );
        let with = r#"{"text":"<!here> {payload.n} {payload.labels.env}\n{feed}"}"#;
        let labelled = r#"{"event":"exec","n":5,"labels":{"env":"prod"}}"#;
        assert_eq!(texts(with, &[labelled]), ["<!here> 5 prod\naudit"]);
        assert_eq!(texts("{}", &[]), <[&str; 0]>::default());
    }

    #[test]
    fn values_of_events_mention_nobody() {
        let event = r#"{"user":"<!channel> & <https://x|y>"}"#;
        let with = r#"{"text":"{payload.user}"}"#;
        let expected = "&lt;!channel&gt; &amp; &lt;https://x|y&gt;";
        assert_eq!(texts(with, &[event]), [expected]);
    }

    #[test]
    fn a_message_that_slack_would_cut_or_refuse_is_rejected() {
        let with = r#"{"text":"{payload.user}"}"#;
        let long = format!(r#"{{"user":"{}"}}"#, "x".repeat(TEXT_MAX + 1));
        let documents = [test::document(&long), test::document("{}")];
        let encoded = test::encode::<Slack>(with, &documents);
        assert_eq!(encoded.rejected.len(), 2);
    }

    #[test]
    fn payloads_are_asked_for_only_if_they_are_needed() {
        let access = |with: &str| test::configure::<Slack>(with).unwrap().1.access;
        assert_eq!(access("{}"), Access::Payload);
        assert_eq!(access(r#"{"text":"{event-type}"}"#), Access::Metadata);
        let issues = test::issues::<Slack>(r#"{"text":"{user}"}"#);
        assert!(issues[0].contains("unknown placeholder `{user}`; there are `{payload.NAME}`"));
    }
}
