//! The endpoint of a pipeline, checked, with its certificates read.

use std::path::PathBuf;

use lockgate_config::{Auth, Issue, Pipeline, Report, Sink};
use lockgate_egress::{ClientCertificate, Endpoint, EndpointClient, EndpointError, Pem};
use lockgate_model::Masks;

/// A client for the pipeline's endpoint, or its problems in the report.
pub(super) fn client(
    pipeline: &Pipeline,
    masks: &Masks,
    report: &mut Report,
) -> Option<EndpointClient> {
    let sink = &pipeline.sink;
    let client = endpoint(pipeline, sink, masks).and_then(EndpointClient::new);
    client
        .map_err(|error| {
            use EndpointError::{Fragment, Scheme, TlsWithoutHttps, Url, Userinfo};
            let of_url = matches!(
                error,
                Url(..) | Scheme(..) | Userinfo(..) | Fragment(..) | TlsWithoutHttps(..)
            );
            let (span, hint) = if of_url {
                (
                    &sink.url_span,
                    "write `https://logs.example.com:8443/audit`, for example",
                )
            } else {
                (
                    &sink.tls_span,
                    "`ca`, `cert` and `key` name PEM files that Lockgate may read; relative \
                     paths begin at this file's directory",
                )
            };
            let message = format!("The endpoint cannot be used: {error}.");
            report.push(Issue::new(span.clone(), message, "this endpoint", hint));
        })
        .ok()
}

fn endpoint(pipeline: &Pipeline, sink: &Sink, masks: &Masks) -> Result<Endpoint, EndpointError> {
    let pem = |file: &Option<PathBuf>| file.as_ref().map(Pem::read).transpose();
    let certificate = match &sink.tls.client {
        Some(client) => Some(ClientCertificate {
            cert: Pem::read(&client.cert)?,
            key: Pem::read(&client.key)?,
        }),
        None => None,
    };
    let mut endpoint = Endpoint::new(&pipeline.name, sink.url.clone());
    endpoint.session_url = sink.session_url.clone();
    endpoint.ca = pem(&sink.tls.ca)?;
    endpoint.client_certificate = certificate;
    endpoint.headers = sink.headers.clone();
    endpoint.auth = match &sink.auth {
        None => lockgate_egress::Auth::None,
        Some(Auth::Bearer(token)) => lockgate_egress::Auth::Bearer(token.clone()),
        Some(Auth::Basic { user, password }) => lockgate_egress::Auth::Basic {
            user: user.clone(),
            password: password.clone(),
        },
        Some(Auth::Header { name, value }) => lockgate_egress::Auth::Header {
            name: name.clone(),
            value: value.clone(),
        },
        Some(Auth::Query { name, value }) => lockgate_egress::Auth::Query {
            name: name.clone(),
            value: value.clone(),
        },
    };
    endpoint.timeout = sink.timeout;
    endpoint.connections = sink.rate.in_flight;
    endpoint.masks = masks.clone();
    Ok(endpoint)
}
