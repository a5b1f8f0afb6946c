//! The endpoint of a pipeline, checked, with its certificates read.

use std::path::PathBuf;

use lockgate_config::{Auth, Compression, Files, Issue, Issues, Pipeline, Sink};
use lockgate_egress::{
    ClientCertificate, ConnectionBudget, Endpoint, EndpointClient, EndpointError, Pem,
};
use lockgate_files::{FileSettings, FileWriter, Rotation, examine};
use lockgate_model::{FileTarget, Masks};
use lockgate_registry::Digest;

use crate::build::Unbuilt;
use crate::client::{Client, FileClient};
use crate::clock::now;
use crate::reader::report_validity;

/// A client for a pipeline's endpoint.
pub(crate) struct CheckedEndpoint {
    pub(crate) client: Client,
    /// The content of the files that it uses, as in [`PipelineIdentity`].
    ///
    /// [`PipelineIdentity`]: crate::identity::PipelineIdentity
    pub(crate) certificates: Vec<Option<Digest>>,
}

/// A client for the pipeline's endpoint, or all of its problems among the issues.
pub(super) fn client(
    pipeline: &Pipeline,
    masks: &Masks,
    budget: &ConnectionBudget,
    issues: &mut Issues,
) -> Result<CheckedEndpoint, Unbuilt> {
    let sink = &pipeline.sink;
    open(pipeline, masks, budget).map_err(|errors| {
        for error in &errors {
            issues.push(issue(sink, error));
        }
        unbuilt(&errors)
    })
}

/// What keeps the files of the pipeline's endpoint from being used; `None`: nothing.
pub(super) fn unusable_files(pipeline: &Pipeline, masks: &Masks) -> Option<String> {
    let errors = open(pipeline, masks, &ConnectionBudget::default()).err()?;
    match unbuilt(&errors) {
        Unbuilt::Files(why) => Some(why),
        _ => None,
    }
}

/// The error has all of its problems.
pub(crate) fn open(
    pipeline: &Pipeline,
    masks: &Masks,
    budget: &ConnectionBudget,
) -> Result<CheckedEndpoint, Vec<EndpointError>> {
    if let Some(files) = &pipeline.sink.files {
        return Ok(CheckedEndpoint {
            client: Client::Files(Box::new(file_client(&pipeline.sink, files, masks))),
            certificates: Vec::new(),
        });
    }
    let mut endpoint = endpoint(pipeline, &pipeline.sink, masks)?;
    endpoint.budget = budget.clone();
    let client = endpoint.client_certificate.iter();
    let client = client.flat_map(|client| [&client.cert, &client.key]);
    let files = endpoint.ca.iter().chain(client);
    let certificates = files.map(|pem| Some(Digest::of(pem.text()))).collect();
    let client = EndpointClient::new(endpoint).map_err(|error| vec![error])?;
    Ok(CheckedEndpoint {
        client: Client::Server(Box::new(client)),
        certificates,
    })
}

/// Opens nothing.
fn file_client(sink: &Sink, files: &Files, masks: &Masks) -> FileClient {
    let writer = |target: &FileTarget| {
        FileWriter::new(FileSettings {
            target: target.clone(),
            rotation: Rotation {
                bytes: files.rotate.bytes,
                age: files.rotate.age,
            },
            compression: sink.compression.map(|compression| match compression {
                Compression::Gzip => lockgate_files::Compression::Gzip,
                Compression::Zstd => lockgate_files::Compression::Zstd,
            }),
            timeout: sink.timeout,
            clock: now,
        })
    };
    FileClient {
        url: writer(&files.url),
        session_url: files.session_url.as_ref().map(writer),
        in_flight: sink.rate.in_flight,
        masks: masks.clone(),
    }
}

/// What becomes of a pipeline with these problems of its endpoint.
fn unbuilt(errors: &[EndpointError]) -> Unbuilt {
    if !errors.iter().all(EndpointError::is_of_a_file) {
        return Unbuilt::Reported;
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Unbuilt::Files(texts.join("; "))
}

/// Reports what will keep the pipeline from delivering, now or soon: a file that cannot be written
/// to, a client certificate that expires.
pub fn check_endpoint(pipeline: &Pipeline, masks: &Masks, issues: &mut Issues) {
    let sink = &pipeline.sink;
    if let Some(files) = &sink.files {
        for target in files.targets() {
            if let Err(error) = examine(target, now()) {
                issues.push(Issue::warning(
                    sink.url_span.clone(),
                    masks.mask(&format!("Nothing can be written: {error}.")),
                    "this file",
                    error
                        .hint()
                        .unwrap_or("run this command as the user that the host runs as"),
                ));
            }
        }
    }
    let Some(client) = &sink.tls.client else {
        return;
    };
    // Files that cannot be read are reported when the pipeline is built.
    let Some(validity) = Pem::read(&client.cert).ok().and_then(|pem| pem.validity()) else {
        return;
    };
    let what = format!("The client certificate `{}`", client.cert.display());
    let renew = "have the certificate renewed by the authority that the receiver trusts";
    let label = "presented to this receiver";
    report_validity(&what, validity, sink.tls_span.clone(), label, renew, issues);
}

fn issue(sink: &Sink, error: &EndpointError) -> Issue {
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
            "`ca`, `cert` and `key` name PEM files that Lockgate may read; relative paths begin at \
             this file's directory",
        )
    };
    let message = format!("The endpoint cannot be used: {error}.");
    Issue::new(span.clone(), message, "this endpoint", hint)
}

fn endpoint(
    pipeline: &Pipeline,
    sink: &Sink,
    masks: &Masks,
) -> Result<Endpoint, Vec<EndpointError>> {
    let mut errors = Vec::new();
    let mut pem = |file: &PathBuf| match Pem::read(file) {
        Ok(pem) => Some(pem),
        Err(error) => {
            errors.push(error);
            None
        }
    };
    let ca = sink.tls.ca.as_ref().and_then(&mut pem);
    let client = sink.tls.client.as_ref();
    let client = client.map(|client| (pem(&client.cert), pem(&client.key)));
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut endpoint = Endpoint::new(&pipeline.name, sink.url.clone());
    endpoint.session_url = sink.session_url.clone();
    endpoint.ca = ca;
    endpoint.client_certificate = client.and_then(|(cert, key)| {
        Some(ClientCertificate {
            cert: cert?,
            key: key?,
        })
    });
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
    endpoint.compression = sink.compression.map(|compression| match compression {
        Compression::Gzip => lockgate_egress::Compression::Gzip,
        Compression::Zstd => lockgate_egress::Compression::Zstd,
    });
    endpoint.timeout = sink.timeout;
    endpoint.connections = sink.rate.in_flight;
    endpoint.masks = masks.clone();
    Ok(endpoint)
}
