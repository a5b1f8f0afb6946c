//! Starts real receivers on loopback sockets, over real TLS, and sends to them.

mod answers;
mod certs;
mod connections;
mod openssl;
mod receiver;
mod rules;
mod tls;

use bytes::Bytes;
use lockgate_egress::{Endpoint, EndpointClient, Secret};
use lockgate_model::request::{CheckedRequest, Request};

fn request(body: impl Into<Bytes>) -> Request {
    Request {
        method: "POST".into(),
        path_suffix: String::new(),
        query: vec![],
        headers: vec![("content-type".into(), "application/json".into())],
        body: body.into(),
        carries: vec![0],
    }
}

fn checked(client: &EndpointClient, request: Request) -> CheckedRequest {
    request.check(client.operator_headers()).unwrap()
}

fn client(url: &str, change: impl FnOnce(&mut Endpoint)) -> EndpointClient {
    let mut endpoint = Endpoint::new("siem", Secret::new(url));
    change(&mut endpoint);
    EndpointClient::new(endpoint).unwrap()
}
