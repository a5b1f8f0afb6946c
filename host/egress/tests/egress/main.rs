//! Sends requests to real receivers on loopback sockets, over real TLS.

mod answers;
mod certs;
mod connections;
mod floods;
mod openssl;
mod proxy;
mod receiver;
mod rules;
mod signed;
mod tls;

use bytes::Bytes;
use lockgate_egress::Destination;
use lockgate_egress::{Endpoint, EndpointClient, Secret, SendError};
use lockgate_model::request::{Body, CheckedRequest, Request, Response};

fn request(body: impl Into<Bytes>) -> Request {
    Request {
        method: "POST".into(),
        path_suffix: String::new(),
        query: vec![],
        headers: vec![("content-type".into(), "application/json".into())],
        body: Body::Bytes(body.into()),
        tag: String::new(),
        carries: vec![0],
    }
}

fn checked(client: &EndpointClient, request: Request) -> CheckedRequest {
    request.check(&client.request_rules(&[])).unwrap()
}

/// Sends the request with its body assembled.
async fn post(
    client: &EndpointClient,
    request: &CheckedRequest,
    destination: Destination,
    response_max: usize,
) -> Result<Response, SendError> {
    let body = || request.body().assemble(|_| "");
    let connection = client.connection().await;
    let sent = client.send(connection, request, body, destination, response_max);
    sent.await
}

fn client(url: &str, change: impl FnOnce(&mut Endpoint)) -> EndpointClient {
    let mut endpoint = Endpoint::new("siem", Secret::new(url));
    change(&mut endpoint);
    EndpointClient::new(endpoint).unwrap()
}
