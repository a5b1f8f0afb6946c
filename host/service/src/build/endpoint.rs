//! The endpoint of a pipeline, checked, with its certificates read.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use lockgate_config::{
    Auth, ClientCredentials, Compression, Files, HmacAlgorithm, HmacEncoding, Issue, Issues,
    Pipeline, Rotate, Sink,
};
use lockgate_egress::{
    ClientCertificate, ConnectionBudget, Endpoint, EndpointClient, EndpointError, Pem, Step,
    Workers,
};
use lockgate_files::{FileSettings, FileWriter, Rotation, examine};
use lockgate_model::{FileTarget, Masks};
use lockgate_registry::Digest;
use lockgate_runtime::Queue;

use crate::blocking::blocking;
use crate::build::Unbuilt;
use crate::client::{Client, FileClient};
use crate::clock::now;
use crate::reader::report_validity;

/// A client for a pipeline's endpoint.
pub(crate) struct CheckedEndpoint {
    pub(crate) client: Client,
    /// The content of its certificates and keys.
    pub(crate) certificates: Vec<Digest>,
}

/// Compresses bodies on the threads for components, as if a component of the pipeline did it.
#[derive(Debug)]
struct ComponentThreads(Queue);

impl Workers for ComponentThreads {
    fn work(&self, step: Step) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if let Err(error) = self.0.work(step).await {
                tracing::error!(
                    pipeline = self.0.name(),
                    "a body was not compressed: {error}"
                );
            }
        })
    }
}

/// A client for the pipeline's endpoint, or all of its problems among the issues.
pub(super) async fn client(
    pipeline: &Pipeline,
    masks: &Masks,
    budget: &ConnectionBudget,
    queue: &Queue,
    issues: &mut Issues,
) -> Result<CheckedEndpoint, Unbuilt> {
    let (of, masks, budget) = (pipeline.clone(), masks.clone(), budget.clone());
    let queue = queue.clone();
    let opened = blocking(move || open(&of, &masks, &budget, Some(&queue))).await;
    opened.map_err(|errors| {
        for error in &errors {
            issues.push(issue(&pipeline.sink, error));
        }
        unbuilt(&errors)
    })
}

/// What keeps the files of the pipeline's endpoint from being used; `None`: nothing.
pub(super) fn unusable_files(pipeline: &Pipeline, masks: &Masks) -> Option<String> {
    let errors = open(pipeline, masks, &ConnectionBudget::default(), None).err()?;
    match unbuilt(&errors) {
        Unbuilt::Files(why) => Some(why),
        _ => None,
    }
}

/// `queue`: what the pipeline works on. `None`: nothing is sent. The error has all problems. Blocks
/// while it reads files.
pub(crate) fn open(
    pipeline: &Pipeline,
    masks: &Masks,
    budget: &ConnectionBudget,
    queue: Option<&Queue>,
) -> Result<CheckedEndpoint, Vec<EndpointError>> {
    if let Some(files) = &pipeline.sink.files {
        return Ok(CheckedEndpoint {
            client: Client::Files(Arc::new(file_client(&pipeline.sink, files, masks))),
            certificates: Vec::new(),
        });
    }
    let mut endpoint = endpoint(&pipeline.name, &pipeline.sink, masks)?;
    endpoint.budget = budget.clone();
    endpoint.workers = queue.map(|queue| Arc::new(ComponentThreads(queue.clone())) as _);
    let certificates = certificates(&endpoint);
    let client = EndpointClient::new(endpoint).map_err(|error| vec![error])?;
    Ok(CheckedEndpoint {
        client: Client::Server(Arc::new(client)),
        certificates,
    })
}

/// Opens nothing.
fn file_client(sink: &Sink, files: &Files, masks: &Masks) -> FileClient {
    let writer = |target: &FileTarget| {
        FileWriter::new(FileSettings {
            target: target.clone(),
            rotation: rotation(files),
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

fn rotation(files: &Files) -> Rotation {
    let Rotate { bytes, age } = files.rotate;
    Rotation { bytes, age }
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
            if let Err(error) = examine(target, rotation(files), now()) {
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
    use EndpointError::{Fragment, LinkLocal, Scheme, TlsWithoutHttps, Url, Userinfo};
    let of_url = matches!(
        error,
        LinkLocal(..) | Url(..) | Scheme(..) | Userinfo(..) | Fragment(..) | TlsWithoutHttps(..)
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

/// Digests of its certificates and keys.
pub(crate) fn certificates(endpoint: &Endpoint) -> Vec<Digest> {
    let client = endpoint.client_certificate.iter();
    let client = client.flat_map(|client| [&client.cert, &client.key]);
    let files = endpoint.ca.iter().chain(client);
    files.map(|pem| Digest::of(pem.text())).collect()
}

/// The endpoint with its files read; `pipeline`: its name.
pub(crate) fn endpoint(
    pipeline: &str,
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
    let mut endpoint = Endpoint::new(pipeline, sink.url.clone());
    endpoint.session_url = sink.session_url.clone();
    endpoint.ca = ca;
    endpoint.client_certificate = client.and_then(|(cert, key)| {
        Some(ClientCertificate {
            cert: cert?,
            key: key?,
        })
    });
    endpoint.proxy = sink.proxy.clone();
    endpoint.allow_link_local = sink.allow_link_local;
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
        Some(Auth::Hmac(auth)) => lockgate_egress::Auth::Hmac(lockgate_egress::HmacAuth {
            header: auth.header.clone(),
            algorithm: match auth.algorithm {
                HmacAlgorithm::Sha256 => lockgate_egress::HmacAlgorithm::Sha256,
                HmacAlgorithm::Sha512 => lockgate_egress::HmacAlgorithm::Sha512,
            },
            encoding: match auth.encoding {
                HmacEncoding::Hex => lockgate_egress::HmacEncoding::Hex,
                HmacEncoding::Base64 => lockgate_egress::HmacEncoding::Base64,
            },
            prefix: auth.prefix.clone(),
            secret: auth.secret.clone(),
        }),
        Some(Auth::Aws(auth)) => lockgate_egress::Auth::Aws(lockgate_egress::AwsAuth {
            region: auth.region.clone(),
            service: auth.service.clone(),
            access_key: auth.access_key.clone(),
            secret_key: auth.secret_key.clone(),
            session_token: auth.session_token.clone(),
        }),
        Some(Auth::OAuth2(auth)) => lockgate_egress::Auth::OAuth2(lockgate_egress::OAuth2Auth {
            token_url: auth.token_url.clone(),
            client_id: auth.client_id.clone(),
            client_secret: auth.client_secret.clone(),
            scopes: auth.scopes.clone(),
            credentials: match auth.credentials {
                ClientCredentials::Basic => lockgate_egress::ClientCredentials::Basic,
                ClientCredentials::Body => lockgate_egress::ClientCredentials::Body,
            },
        }),
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
