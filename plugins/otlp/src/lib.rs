//! `builtin:otlp`: exports documents as OpenTelemetry logs. See its README.

mod proto;

use std::collections::BTreeMap;

use lockgate_plugin::template::Template;
use lockgate_plugin::{
    Access, Batch, ConfigIssue, Delivery, Document, Encoded, Failure, HttpSink, Inspect, Request,
    Response, ResponseBody, Sent, SinkSetup,
};
use serde::Deserialize;

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Attributes of the resource, the same for all records.
    pub resource: BTreeMap<String, String>,
    /// Further attributes of each record.
    pub attributes: BTreeMap<String, Template>,
}

/// The configured sink.
#[derive(Debug)]
pub struct Otlp {
    resource: BTreeMap<String, String>,
    attributes: BTreeMap<String, Template>,
}

impl HttpSink for Otlp {
    type Config = Config;

    fn configure(config: Config) -> Result<(Otlp, SinkSetup), Vec<ConfigIssue>> {
        let mut resource = config.resource;
        let name = resource.entry("service.name".to_owned());
        name.or_insert_with(|| "teleport".to_owned());
        let sink = Otlp {
            resource,
            attributes: config.attributes,
        };
        Ok((
            sink,
            SinkSetup::new(Access::Payload).inspect(Inspect::Always),
        ))
    }

    fn encode(&self, batch: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let mut encoded = Encoded::default();
        if !documents.is_empty() {
            let body = proto::request(&self.resource, &self.attributes, batch.read_at, &documents);
            let carries = (0..).take(documents.len()).collect();
            let request = Request::post("application/x-protobuf", body, carries);
            encoded.requests.push(request);
        }
        Ok(encoded)
    }

    fn classify(&self, _: &Batch, sent: &Sent, response: &Response) -> Delivery {
        if !response.is_success() {
            return Delivery::ByStatus;
        }
        let body = match &response.body {
            ResponseBody::Bytes(bytes) => bytes.as_slice(),
            ResponseBody::Text(text) => text.as_bytes(),
        };
        // A server may answer in another form; then its status counts.
        let Some((rejected, message)) = proto::partial_success(body) else {
            return Delivery::ByStatus;
        };
        if rejected == 0 {
            return Delivery::ByStatus;
        }
        let reason = format!("the receiver rejected {rejected} log records: {message}");
        // It does not say which, so they are looked for. Those that it accepted come again.
        match sent.carries.len() {
            1 => Delivery::Rejected(reason),
            _ => Delivery::Split(reason),
        }
    }
}

lockgate_plugin::http_sink!(Otlp);

#[cfg(test)]
mod tests;
