//! A process without file descriptors. A binary of its own, because the limit is that of a process.

#![cfg(target_os = "linux")]

use bytes::Bytes;
use lockgate_egress::{Destination, Endpoint, EndpointClient, Secret, SendError};
use lockgate_model::request::{Body, Request};
use lockgate_model::{OutboundExceptions, OutboundProxy, OutboundScheme};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;

/// It was said that the receiver cannot be reached.
#[tokio::test]
async fn a_lack_of_file_descriptors_is_told_and_not_blamed_on_the_receiver() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let limits = getrlimit(Resource::Nofile);
    let set = |current| setrlimit(Resource::Nofile, Rlimit { current, ..limits }).unwrap();
    for (host, proxy) in [
        ("127.0.0.1", None),
        ("localhost", None),
        ("receiver.example.com", Some("127.0.0.1")),
    ] {
        let url = Secret::new(format!("http://{host}:{port}/"));
        let mut endpoint = Endpoint::new("siem", url);
        endpoint.proxy = proxy.map(|proxy| OutboundProxy {
            scheme: OutboundScheme::Http,
            host: proxy.to_owned(),
            port,
            login: None,
            variable: "HTTPS_PROXY",
            exceptions: OutboundExceptions::default(),
        });
        let client = EndpointClient::new(endpoint).unwrap();
        let request = Request {
            method: "POST".into(),
            path_suffix: String::new(),
            query: vec![],
            headers: vec![],
            body: Body::Bytes(Bytes::from_static(b"[]")),
            tag: String::new(),
            carries: vec![0],
        };
        let request = request.check(&client.request_rules(&[])).unwrap();
        let body = || Bytes::from_static(b"[]");
        // Fewer than are open: none can be opened.
        set(Some(1));
        let connection = client.connection().await;
        let sent = client.send(connection, &request, body, Destination::Url, 0);
        let sent = sent.await;
        set(limits.current);
        let expected = SendError::Descriptors { limit: Some(1) };
        assert_eq!(sent.unwrap_err(), expected, "{host}");
    }
}
