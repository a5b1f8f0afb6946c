//! `builtin:elasticsearch`: creates documents by the bulk API of Elasticsearch and OpenSearch. See
//! its README.

mod answer;

use std::num::NonZeroU32;

use lockgate_plugin::template::Template;
use lockgate_plugin::time::Rfc3339;
use lockgate_plugin::{
    Access, Batch, ConfigIssue, Delivery, Document, Encoded, Failure, HttpSink, Inspect, Part,
    Rejection, Request, Response, Sent, SinkSetup, json,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Longest `_id` that the servers take, in bytes.
const ID_MAX: usize = 512;
/// Longest name of an index or a data stream, in bytes.
const NAME_MAX: usize = 255;
const TIMESTAMP: &str = "@timestamp";
/// What is needed of an answer. A success of a thousand documents is then about 30 KB.
const FILTER_PATH: &str = "errors,items.*.status,items.*.error.type,items.*.error.reason";

/// The operator's `with` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub data_stream: Template,
    #[serde(default)]
    pub timestamp: Timestamp,
    #[serde(default)]
    pub pipeline: Option<String>,
    #[serde(default)]
    pub max_events: Option<NonZeroU32>,
}

/// What happens to documents without `@timestamp`, which a data stream refuses.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Timestamp {
    #[default]
    Keep,
    Add,
}

/// The configured sink.
#[derive(Debug)]
pub struct Elasticsearch {
    data_stream: Template,
    timestamp: Timestamp,
    pipeline: Option<String>,
    max_events: usize,
}

impl HttpSink for Elasticsearch {
    type Config = Config;

    fn configure(config: Config) -> Result<(Elasticsearch, SinkSetup), Vec<ConfigIssue>> {
        let mut issues = vec![];
        let constant: String = config.data_stream.literals().collect();
        if let Some(problem) = name_problem(&constant, config.data_stream.is_constant()) {
            let help = "such as `logs-teleport.audit-default`";
            issues.push(ConfigIssue::new("data-stream", problem).help(help));
        }
        if config.pipeline.as_deref() == Some("") {
            let message = "`pipeline` is empty.";
            issues.push(ConfigIssue::new("pipeline", message).help("leave it out"));
        }
        if !issues.is_empty() {
            return Err(issues);
        }
        let sink = Elasticsearch {
            data_stream: config.data_stream,
            timestamp: config.timestamp,
            pipeline: config.pipeline,
            max_events: config
                .max_events
                .map_or(usize::MAX, |max| max.get() as usize),
        };
        let access = match sink.timestamp {
            Timestamp::Keep => Access::Metadata,
            Timestamp::Add => Access::Payload,
        };
        let setup = SinkSetup::new(access)
            .inspect(Inspect::Always)
            .max_response_bytes(4 << 20);
        Ok((sink, setup))
    }

    fn encode(&self, _: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let mut encoded = Encoded::default();
        let mut parts = vec![];
        let mut carries: Vec<u32> = vec![];
        for (index, document) in (0..).zip(&documents) {
            let name = self.data_stream.render(document);
            if let Some(problem) = name_problem(&name, true) {
                let reason = format!("its data stream cannot be `{name}`: {problem}");
                encoded.rejected.push(Rejection::new(index, reason));
                continue;
            }
            if carries.len() == self.max_events {
                let body = std::mem::take(&mut parts);
                encoded
                    .requests
                    .push(self.request(body, std::mem::take(&mut carries)));
            }
            let mut line = String::from(if carries.is_empty() { "" } else { "\n" });
            line.push_str(r#"{"create":{"_index":"#);
            json::write_text(&mut line, &name);
            line.push_str(r#","_id":"#);
            json::write_text(&mut line, &id(&document.key));
            line.push_str("}}\n");
            if let Some(rest) = self.stamped(document) {
                line.push_str(&rest);
                parts.push(Part::Text(line));
            } else {
                parts.push(Part::Text(line));
                parts.push(Part::Document(index));
            }
            carries.push(index);
        }
        if !carries.is_empty() {
            encoded.requests.push(self.request(parts, carries));
        }
        Ok(encoded)
    }

    fn classify(&self, _: &Batch, sent: &Sent, response: &Response) -> Delivery {
        answer::classify(sent, response)
    }
}

impl Elasticsearch {
    fn request(&self, mut parts: Vec<Part>, carries: Vec<u32>) -> Request {
        parts.push(Part::Text("\n".into()));
        let request = Request::post("application/x-ndjson", parts, carries)
            .path_suffix("/_bulk")
            .query("filter_path", FILTER_PATH);
        match &self.pipeline {
            Some(pipeline) => request.query("pipeline", pipeline),
            None => request,
        }
    }

    /// The document with `@timestamp`, if it is to have one and has none.
    fn stamped(&self, document: &Document) -> Option<String> {
        if self.timestamp == Timestamp::Keep {
            return None;
        }
        let payload = document.payload.as_str();
        let mut fields = json::fields(payload);
        if fields.any(|field| field.is_ok_and(|field| field.key() == TIMESTAMP)) {
            return None;
        }
        let inside = payload.trim_start().strip_prefix('{')?;
        let comma = if inside.trim_start().starts_with('}') {
            ""
        } else {
            ","
        };
        let time = Rfc3339(document.time);
        Some(format!("{{\"{TIMESTAMP}\":\"{time}\"{comma}{inside}"))
    }
}

/// The `_id` of a document: its key or, if that is too long, the key's digest.
fn id(key: &str) -> String {
    use std::fmt::Write;
    if (1..=ID_MAX).contains(&key.len()) {
        return key.to_owned();
    }
    Sha256::digest(key)
        .iter()
        .fold(String::from("sha256-"), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        })
}

/// Why a data stream cannot have this name, by the rules for names of indices. With placeholders
/// left out, `is_whole` is false.
fn name_problem(name: &str, is_whole: bool) -> Option<&'static str> {
    if is_whole && name.is_empty() {
        return Some("The name is empty.");
    }
    if name.len() > NAME_MAX {
        return Some("The name has more than 255 bytes.");
    }
    if name.chars().any(char::is_uppercase) {
        return Some("The name must be in lower case.");
    }
    if name.contains(['\\', '/', '*', '?', '"', '<', '>', '|', ' ', ',', '#', ':'])
        || name.chars().any(char::is_control)
    {
        return Some(r#"The name contains one of `\/*?"<>| ,#:` or a control character."#);
    }
    if is_whole && (name.starts_with(['-', '_', '+', '.'])) {
        return Some("The name begins with `-`, `_`, `+` or `.`.");
    }
    None
}

lockgate_plugin::http_sink!(Elasticsearch);

#[cfg(test)]
mod tests;
