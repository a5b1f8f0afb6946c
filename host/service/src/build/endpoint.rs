//! The endpoint of a pipeline, checked, with its certificates read.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use lockgate_config::{Auth, Compression, Issue, Issues, Pipeline, Sink};
use lockgate_egress::{
    ClientCertificate, ConnectionBudget, Endpoint, EndpointClient, EndpointError, Pem, Step,
    Workers,
};
use lockgate_model::Masks;
use lockgate_registry::Digest;
use lockgate_runtime::Queue;

use crate::build::Unbuilt;
use crate::reader::report_validity;

/// A client for a pipeline's endpoint.
pub(crate) struct CheckedEndpoint {
    pub(crate) client: EndpointClient,
    /// The content of the files that it uses, as in [`PipelineIdentity`].
    ///
    /// [`PipelineIdentity`]: crate::identity::PipelineIdentity
    pub(crate) certificates: Vec<Option<Digest>>,
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
pub(super) fn client(
    pipeline: &Pipeline,
    masks: &Masks,
    budget: &ConnectionBudget,
    queue: &Queue,
    issues: &mut Issues,
) -> Result<CheckedEndpoint, Unbuilt> {
    let sink = &pipeline.sink;
    open(pipeline, masks, budget, Some(queue)).map_err(|errors| {
        for error in &errors {
            issues.push(issue(sink, error));
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

/// `queue`: what the pipeline works on. `None`: nothing is sent. The error has all problems.
pub(crate) fn open(
    pipeline: &Pipeline,
    masks: &Masks,
    budget: &ConnectionBudget,
    queue: Option<&Queue>,
) -> Result<CheckedEndpoint, Vec<EndpointError>> {
    let mut endpoint = endpoint(pipeline, &pipeline.sink, masks)?;
    endpoint.budget = budget.clone();
    endpoint.workers = queue.map(|queue| Arc::new(ComponentThreads(queue.clone())) as _);
    let client = endpoint.client_certificate.iter();
    let client = client.flat_map(|client| [&client.cert, &client.key]);
    let files = endpoint.ca.iter().chain(client);
    let certificates = files.map(|pem| Some(Digest::of(pem.text()))).collect();
    let client = EndpointClient::new(endpoint).map_err(|error| vec![error])?;
    Ok(CheckedEndpoint {
        client,
        certificates,
    })
}

/// What becomes of a pipeline with these problems of its endpoint.
fn unbuilt(errors: &[EndpointError]) -> Unbuilt {
    if !errors.iter().all(EndpointError::is_of_a_file) {
        return Unbuilt::Reported;
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Unbuilt::Files(texts.join("; "))
}

/// Reports a client certificate that has expired, or will soon.
pub fn check_certificate(pipeline: &Pipeline, issues: &mut Issues) {
    let sink = &pipeline.sink;
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
