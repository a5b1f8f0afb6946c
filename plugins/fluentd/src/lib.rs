//! `builtin:fluentd`: sends documents to Fluentd's HTTP input (and to Fluent Bit's and Vector's).
//! See its README.

mod session;
mod time;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use lockgate_plugin::template::Template;
use lockgate_plugin::{
    Access, Batch, ConfigIssue, Delivery, Document, Encoded, Failure, HttpSink, Part, Rejection,
    Request, RequestBody, Response, Sent, SinkSetup, path,
};
use serde::Deserialize;

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub format: Format,
    pub time: Time,
    pub path: Option<Template>,
    pub max_events: Option<NonZeroU32>,
    pub max_bytes: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    #[default]
    Array,
    Object,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Time {
    #[default]
    Repair,
    Keep,
}

/// The configured sink.
#[derive(Debug)]
pub struct Fluentd {
    format: Format,
    time: Time,
    path: Option<Template>,
    max_events: usize,
    max_bytes: usize,
}

/// Documents that are sent to one path in one request.
struct Group {
    path_suffix: String,
    carries: Vec<u32>,
    /// Bytes of the payloads, each with a separator.
    bytes: usize,
}

impl HttpSink for Fluentd {
    type Config = Config;

    fn configure(config: Config) -> Result<(Fluentd, SinkSetup), Vec<ConfigIssue>> {
        if config.format == Format::Object
            && let Some((key, _)) = [
                ("max-events", config.max_events),
                ("max-bytes", config.max_bytes),
            ]
            .iter()
            .find(|(_, max)| max.is_some())
        {
            let message = format!("`{key}` has no meaning with one event per request.");
            return Err(vec![
                ConfigIssue::new(*key, message).help("leave it out, or set `format = \"array\"`"),
            ]);
        }
        if let Some(problem) = config.path.as_ref().and_then(path::problem) {
            return Err(vec![ConfigIssue::new("path", problem)]);
        }
        let most = |max: Option<NonZeroU32>| max.map_or(usize::MAX, |max| max.get() as usize);
        let sink = Fluentd {
            format: config.format,
            time: config.time,
            path: config.path,
            max_events: if config.format == Format::Object {
                1
            } else {
                most(config.max_events)
            },
            max_bytes: most(config.max_bytes),
        };
        // The size of a payload is known only if the payload is passed.
        let access = if config.max_bytes.is_some() {
            Access::Payload
        } else {
            Access::Metadata
        };
        let mut setup = SinkSetup::new(access);
        if config.time == Time::Repair {
            setup = setup.time_member("time");
        }
        Ok((sink, setup))
    }

    fn encode(&self, _: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let mut rejected = vec![];
        let mut repaired = BTreeMap::new();
        if self.time == Time::Repair {
            // The host passes the payloads of documents with a `time` that is not RFC 3339.
            for (index, document) in (0..).zip(&documents) {
                if document.payload.is_empty() {
                    continue;
                }
                match time::repair(&document.payload, document.time) {
                    Ok(None) => {}
                    Ok(Some(payload)) => _ = repaired.insert(index, payload),
                    Err(malformed) => rejected.push(Rejection::new(index, malformed.to_string())),
                }
            }
        }
        let groups = self.groups(&documents, &mut rejected);
        let requests = groups.into_iter().map(|group| {
            let body = if repaired.is_empty() && self.format == Format::Array {
                RequestBody::array(&group.carries)
            } else {
                let document = |index: &u32| match repaired.remove(index) {
                    Some(payload) => Part::Text(payload),
                    None => Part::Document(*index),
                };
                let documents = group.carries.iter().map(document);
                match self.format {
                    Format::Array => array(documents),
                    Format::Object => documents.collect(),
                }
                .into()
            };
            Request::post("application/json", body, group.carries).path_suffix(group.path_suffix)
        });
        Ok(Encoded {
            requests: requests.collect(),
            rejected,
        })
    }

    fn classify(&self, _: &Batch, _: &Sent, response: &Response) -> Delivery {
        // nginx answers 400 if the client certificate is missing or not accepted, which is not the
        // fault of a document.
        if response.status == 400 && response.body.text().contains("SSL certificate") {
            return Delivery::Hold(response.summary());
        }
        Delivery::ByStatus
    }
}

impl Fluentd {
    /// Groups documents by path: recordings each have their own. Rejected documents are left out.
    fn groups(&self, documents: &[Document], rejected: &mut Vec<Rejection>) -> Vec<Group> {
        let mut groups: Vec<Group> = vec![];
        let mut open: BTreeMap<String, usize> = BTreeMap::new();
        let mut unread = rejected
            .iter()
            .map(|rejection| rejection.index)
            .collect::<Vec<_>>()
            .into_iter()
            .peekable();
        for (index, document) in documents.iter().enumerate() {
            let index = index as u32;
            if unread.next_if_eq(&index).is_some() {
                continue;
            }
            let path_suffix = match self.path_suffix(document) {
                Ok(path_suffix) => path_suffix,
                Err(reason) => {
                    rejected.push(Rejection::new(index, reason));
                    continue;
                }
            };
            let bytes = document.payload.len() + 1;
            let fits = |group: &Group| {
                group.carries.len() < self.max_events && group.bytes + bytes < self.max_bytes
            };
            match open.get(&path_suffix) {
                Some(&at) if fits(&groups[at]) => {
                    groups[at].carries.push(index);
                    groups[at].bytes += bytes;
                }
                _ => {
                    open.insert(path_suffix.clone(), groups.len());
                    groups.push(Group {
                        path_suffix,
                        carries: vec![index],
                        bytes,
                    });
                }
            }
        }
        groups
    }

    fn path_suffix(&self, document: &Document) -> Result<String, String> {
        match &self.path {
            _ if document.is_recorded() => {
                session::path_suffix(document.session.as_deref().unwrap_or_default())
            }
            Some(path) => path::suffix(path, document),
            None => Ok(String::new()),
        }
    }
}

fn array(documents: impl Iterator<Item = Part>) -> Vec<Part> {
    let mut parts = vec![Part::Text("[".into())];
    for document in documents {
        if parts.len() > 1 {
            parts.push(Part::Text(",".into()));
        }
        parts.push(document);
    }
    parts.push(Part::Text("]".into()));
    parts
}

lockgate_plugin::http_sink!(Fluentd);

#[cfg(test)]
mod tests;
