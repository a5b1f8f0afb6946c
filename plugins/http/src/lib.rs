//! `builtin:http`: sends documents to any HTTP endpoint that takes JSON. See its README.

mod body;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use lockgate_plugin::template::Template;
use lockgate_plugin::{
    Access, Batch, ConfigIssue, Delivery, Document, Encoded, Failure, HttpSink, Inspect, Part,
    Rejection, Request, Response, Sent, SinkSetup, config, group, json, path,
};
use serde::Deserialize;
use serde_json::Value;

use body::{Envelope, Wrapping};

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub format: Format,
    pub method: Method,
    pub content_type: Option<String>,
    pub document: Option<String>,
    pub envelope: Option<String>,
    pub text: Option<String>,
    pub path: Option<Template>,
    pub max_events: Option<NonZeroU32>,
    pub success: BTreeMap<String, Value>,
    pub otherwise: Option<Otherwise>,
}

/// How documents become a body.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    #[default]
    Array,
    Lines,
    Object,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    #[default]
    Post,
    Put,
    Patch,
}

/// What happens if a success does not say what `success` asks for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Otherwise {
    #[default]
    Retry,
    Split,
}

/// The configured sink.
#[derive(Debug)]
pub struct Http {
    format: Format,
    method: Method,
    content_type: String,
    document: Wrapping,
    envelope: Envelope,
    /// The member whose text is the line of a document.
    text: Option<String>,
    path: Option<Template>,
    max_events: usize,
    success: BTreeMap<String, Value>,
    otherwise: Otherwise,
}

impl HttpSink for Http {
    type Config = Config;

    fn configure(config: Config) -> Result<(Http, SinkSetup), Vec<ConfigIssue>> {
        let issues = problems(&config);
        if !issues.is_empty() {
            return Err(issues);
        }
        let content_type = match config.format {
            Format::Lines if config.text.is_some() => "text/plain; charset=utf-8",
            Format::Array | Format::Object => "application/json",
            Format::Lines => "application/x-ndjson",
        };
        // Each was parsed by `problems`.
        let document = config.document.as_deref().map(Wrapping::parse);
        let envelope = config.envelope.as_deref().map(Envelope::parse);
        let sink = Http {
            format: config.format,
            method: config.method,
            content_type: config.content_type.unwrap_or_else(|| content_type.into()),
            document: document.and_then(Result::ok).unwrap_or_default(),
            envelope: envelope.and_then(Result::ok).unwrap_or_default(),
            path: config.path,
            text: config.text,
            max_events: match config.format {
                Format::Object => 1,
                _ => config
                    .max_events
                    .map_or(usize::MAX, |max| max.get() as usize),
            },
            success: config.success,
            otherwise: config.otherwise.unwrap_or_default(),
        };
        let mut setup = SinkSetup::new(match sink.text {
            Some(_) => Access::Payload,
            None => Access::Metadata,
        });
        if !sink.success.is_empty() {
            setup = setup.inspect(Inspect::Always);
        }
        Ok((sink, setup))
    }

    fn encode(&self, _: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let mut encoded = Encoded::default();
        let mut paths = vec![];
        let mut lines = vec![String::new(); documents.len()];
        for (index, document) in (0..).zip(&documents) {
            if let Some(member) = &self.text {
                match line(&document.payload, member) {
                    Ok(line) => lines[index as usize] = line,
                    Err(reason) => {
                        encoded.rejected.push(Rejection::new(index, reason));
                        continue;
                    }
                }
            }
            let suffix = self.path.as_ref().map(|path| path::suffix(path, document));
            match suffix.unwrap_or(Ok(String::new())) {
                Ok(suffix) => paths.push((index, suffix)),
                Err(reason) => encoded.rejected.push(Rejection::new(index, reason)),
            }
        }
        for (suffix, carries) in group(paths, self.max_events) {
            let parts = self.envelope.around(match self.format {
                Format::Array => self.document.array(&documents, &carries),
                Format::Lines if self.text.is_some() => {
                    let lines = carries.iter().map(|&index| lines[index as usize].as_str());
                    vec![Part::Text(lines.collect())]
                }
                Format::Lines => self.document.lines(&documents, &carries),
                Format::Object => self.document.object(&documents, carries[0]),
            });
            let mut request = Request::post(&self.content_type, parts, carries).path_suffix(suffix);
            request.method = match self.method {
                Method::Post => "POST",
                Method::Put => "PUT",
                Method::Patch => "PATCH",
            }
            .into();
            encoded.requests.push(request);
        }
        Ok(encoded)
    }

    fn classify(&self, _: &Batch, _: &Sent, response: &Response) -> Delivery {
        if !response.is_success() || self.is_success(&response.body.text()) {
            return Delivery::ByStatus;
        }
        match self.otherwise {
            Otherwise::Retry => Delivery::retry(response),
            Otherwise::Split => Delivery::Split(response.summary()),
        }
    }
}

/// The text of a member of a document, with a line break at its end.
fn line(payload: &str, member: &str) -> Result<String, String> {
    let value = json::find(payload, member).map_err(|malformed| malformed.to_string())?;
    let Some(text) = value.and_then(json::text) else {
        return Err(format!("the document has no text in `{member}`"));
    };
    if text.contains(['\n', '\r']) {
        return Err(format!("the text in `{member}` has a line break"));
    }
    Ok(text.into_owned() + "\n")
}

impl Http {
    /// Whether a body says all that `success` asks for.
    fn is_success(&self, body: &str) -> bool {
        self.success.iter().all(|(path, expected)| {
            let found = json::find(body.trim(), path).ok().flatten();
            found.is_some_and(|found| {
                serde_json::from_str::<Value>(found).is_ok_and(|found| found == *expected)
            })
        })
    }
}

fn problems(config: &Config) -> Vec<ConfigIssue> {
    let mut issues = vec![];
    if config.format == Format::Object {
        for (key, is_set) in [
            ("max-events", config.max_events.is_some()),
            ("envelope", config.envelope.is_some()),
        ] {
            if is_set {
                let message = format!("`{key}` has no meaning with one event per request.");
                let help = match key {
                    "envelope" => "write it as `document`",
                    _ => "leave it out",
                };
                issues.push(ConfigIssue::new(key, message).help(help));
            }
        }
    }
    if config.format == Format::Lines && config.envelope.is_some() {
        let message = "Lines of JSON have no envelope.";
        issues.push(ConfigIssue::new("envelope", message).help("set `format = \"array\"`"));
    }
    if let Some(member) = &config.text {
        if member.is_empty() {
            let issue = ConfigIssue::new("text", "`text` is empty.");
            issues.push(issue.help("the name of a member, such as `cef`"));
        }
        if config.format != Format::Lines {
            let message = "`text` has no meaning without lines.";
            issues.push(ConfigIssue::new("text", message).help("set `format = \"lines\"`"));
        }
        if config.document.is_some() {
            let message = "`document` has no meaning with `text`.";
            issues.push(ConfigIssue::new("document", message).help("leave one of them out"));
        }
    }
    if let Some(Err(problem)) = config.document.as_deref().map(Wrapping::parse) {
        issues.push(problem.issue("document"));
    }
    if let Some(Err(problem)) = config.envelope.as_deref().map(Envelope::parse) {
        issues.push(problem.issue("envelope"));
    }
    if let Some(problem) = config.path.as_ref().and_then(path::problem) {
        issues.push(ConfigIssue::new("path", problem));
    }
    if let Some(value) = &config.content_type
        && (value.is_empty() || !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
    {
        let message = "`content-type` is not a media type.";
        issues.push(ConfigIssue::new("content-type", message).help("such as `application/json`"));
    }
    for (key, value) in &config.success {
        if value.is_object() || value.is_array() {
            let path = config::join("success", key);
            let message = "A value must be a text, a number, true or false.";
            issues.push(ConfigIssue::new(path, message));
        }
    }
    if config.otherwise.is_some() && config.success.is_empty() {
        let message = "`otherwise` has no meaning without `success`.";
        issues.push(ConfigIssue::new("otherwise", message).help("success = { status = \"ok\" }"));
    }
    issues
}

lockgate_plugin::http_sink!(Http);

#[cfg(test)]
mod tests;
