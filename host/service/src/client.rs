//! Where the requests of a pipeline go: to a server, or into files.

use std::sync::Arc;

use bytes::Bytes;
use lockgate_egress::{Connection, Destination, EndpointClient, SendError};
use lockgate_engine::SendFailure;
use lockgate_files::{FileError, FileWriter};
use lockgate_model::request::{CheckedRequest, RequestRules, Response};
use lockgate_model::{LINE_MAX, Masks, escape};

/// The endpoints of a pipeline.
#[derive(Clone)]
pub(crate) enum Client {
    Server(Arc<EndpointClient>),
    Files(Arc<FileClient>),
}

/// The files of a pipeline.
pub(crate) struct FileClient {
    pub(crate) url: FileWriter,
    pub(crate) session_url: Option<FileWriter>,
    pub(crate) in_flight: usize,
    pub(crate) masks: Masks,
}

/// Why a request has no answer.
pub(crate) enum NotSent {
    Server(SendError),
    File(FileError),
    /// A file is to have lines of text.
    NotText,
}

impl Client {
    /// The client of a server.
    pub(crate) fn server(&self) -> Option<&Arc<EndpointClient>> {
        match self {
            Client::Server(client) => Some(client),
            Client::Files(_) => None,
        }
    }

    /// The rules for a sink's requests.
    pub(crate) fn request_rules(&self, allow_headers: &[String]) -> RequestRules {
        match self {
            Client::Server(client) => client.request_rules(allow_headers),
            Client::Files(_) => RequestRules::default(),
        }
    }

    /// The most requests at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        match self {
            Client::Server(client) => client.most_at_once(),
            Client::Files(files) => files.in_flight,
        }
    }

    /// It may have fewer connections than the operator allows, for lack of file descriptors.
    pub(crate) fn is_short_of_descriptors(&self) -> bool {
        match self {
            Client::Server(client) => client.is_short_of_descriptors(),
            Client::Files(_) => false,
        }
    }

    /// Waits for leave to have one more connection. `None`: it needs none.
    pub(crate) async fn connection(&self) -> Option<Connection<'_>> {
        match self {
            Client::Server(client) => Some(client.connection().await),
            Client::Files(_) => None,
        }
    }

    /// Sends a request once. `connection`: from [`connection`](Self::connection).
    pub(crate) async fn send(
        &self,
        connection: Option<Connection<'_>>,
        request: &CheckedRequest,
        body: impl Fn() -> Bytes,
        destination: Destination,
        response_max: usize,
    ) -> Result<Response, NotSent> {
        match self {
            Client::Server(client) => {
                let connection = match connection {
                    Some(connection) => connection,
                    None => client.connection().await,
                };
                let sent = client.send(connection, request, body, destination, response_max);
                sent.await.map_err(NotSent::Server)
            }
            Client::Files(files) => files.append(body(), destination).await,
        }
    }
}

impl FileClient {
    pub(crate) fn writer(&self, destination: Destination) -> &FileWriter {
        match (destination, &self.session_url) {
            (Destination::SessionUrl, Some(writer)) => writer,
            _ => &self.url,
        }
    }

    /// The answer of a server that has taken everything.
    async fn append(&self, body: Bytes, destination: Destination) -> Result<Response, NotSent> {
        if std::str::from_utf8(&body).is_err() {
            return Err(NotSent::NotText);
        }
        let appended = self.writer(destination).append(body).await;
        let appended = appended.map_err(NotSent::File)?;
        let place = self.masks.mask(&appended.to_string()).into_owned();
        Ok(Response {
            status: 200,
            headers: Vec::new(),
            body: Bytes::new(),
            truncated: false,
            retry_after: None,
            place: Some(escape(&place, LINE_MAX).into_owned()),
        })
    }
}

impl NotSent {
    /// As the metric of requests names it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            NotSent::Server(SendError::Timeout(_)) => "timeout",
            NotSent::Server(SendError::Tls { .. }) => "tls",
            NotSent::Server(SendError::Request(_)) => "contract",
            NotSent::Server(SendError::Descriptors { .. }) => "descriptors",
            NotSent::Server(
                SendError::Connect(_)
                | SendError::Proxy { .. }
                | SendError::Token { .. }
                | SendError::Address(_)
                | SendError::Closed
                | SendError::Flood(_)
                | SendError::Other(_),
            ) => "connection",
            NotSent::File(_) | NotSent::NotText => "file",
        }
    }

    /// What the engine is told. `masks`: the secrets that must not be shown.
    pub(crate) fn into_failure(self, masks: &Masks) -> SendFailure {
        let with_hint = |message: String, hint: Option<&str>| match hint {
            Some(hint) => format!("{message}; {hint}"),
            None => message,
        };
        match self {
            NotSent::Server(error) => {
                let message = with_hint(error.to_string(), error.hint());
                match error {
                    SendError::Timeout(_) => SendFailure::Timeout(message),
                    SendError::Tls { .. } => SendFailure::Tls(message),
                    SendError::Address(_)
                    | SendError::Proxy {
                        needs_operator: true,
                        ..
                    }
                    | SendError::Token {
                        needs_operator: true,
                        ..
                    } => SendFailure::Operator(message),
                    SendError::Proxy { .. } | SendError::Token { .. } => SendFailure::Connection(message),
                    SendError::Request(_) => SendFailure::Contract(message),
                    SendError::Descriptors { .. } => SendFailure::Host(message),
                    SendError::Connect(_)
                    | SendError::Closed
                    | SendError::Flood(_)
                    | SendError::Other(_) => SendFailure::Connection(message),
                }
            }
            NotSent::File(error) => {
                let message = masks.mask(&error.to_string()).into_owned();
                let message = with_hint(escape(&message, LINE_MAX).into_owned(), error.hint());
                match error.needs_operator() {
                    true => SendFailure::Operator(message),
                    false => SendFailure::Host(message),
                }
            }
            NotSent::NotText => SendFailure::Operator(
                "the requests of this sink are not text, so they cannot be appended to a file; use \
                 one whose requests are, such as `builtin:http` with `format = \"lines\"`"
                    .to_owned(),
            ),
        }
    }
}
