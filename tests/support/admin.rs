//! The admin listener of a host, as a monitoring system uses it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::process::Running;

/// Switches the listener on, which is off in the configurations of tests.
pub fn listen_on_any_port(config: &Path) {
    let text = std::fs::read_to_string(config).expect("the configuration can be read");
    let text = text.replace("listen = \"\"", "listen = \"127.0.0.1:0\"");
    std::fs::write(config, text).expect("the configuration can be written");
}

/// Where the host listens, once it does.
#[track_caller]
pub fn admin_address(host: &Running) -> String {
    let line = host.line_with("admin listener started");
    let (_, address) = line.split_once("address=").expect("it names its address");
    address.trim().to_owned()
}

/// The answer as it comes, with its head.
pub fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    answer
}
