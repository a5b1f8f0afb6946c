//! A real OpenSSL server that requires client certificates and sets no session id context, like
//! Fluentd, Fluent Bit and Vector. It ends every resumed connection with alert 80.

use std::fs;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::{io, thread};

use std::io::{BufRead, BufReader, Write};

use lockgate_egress::Destination;
use lockgate_egress::{ClientCertificate, Pem};
use tokio_rustls::TlsConnector;

use crate::certs::{Authority, Leaf};
use crate::tls::{default_client, exchange};
use crate::{checked, client, post, request};

/// `openssl s_server`, which sends whatever is written to its standard input: here, `200` after
/// each request.
struct OpenSsl {
    process: Child,
    port: u16,
}

impl OpenSsl {
    /// `None` if `openssl` is not installed.
    fn start(dir: &Path, authority: &Authority, leaf: &Leaf, version: &str) -> Option<OpenSsl> {
        for (name, text) in [
            ("ca.crt", &authority.pem),
            ("server.crt", &leaf.cert),
            ("server.key", &leaf.key),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        let process = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                version,
                "-cert",
                "server.crt",
                "-key",
                "server.key",
            ])
            .args([
                "-CAfile",
                "ca.crt",
                "-Verify",
                "1",
                "-verify_return_error",
                "-context",
                "",
            ])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut process = match process {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            process => process.unwrap(),
        };
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let stdin = process.stdin.take().unwrap();
        // `ACCEPT 127.0.0.1:36191`
        let port = loop {
            let mut line = String::new();
            assert!(
                lines.read_line(&mut line).unwrap() > 0,
                "`openssl s_server` ended"
            );
            if let Some(port) = line
                .strip_prefix("ACCEPT")
                .and_then(|line| line.trim().rsplit(':').next()?.parse().ok())
            {
                break port;
            }
        };
        thread::spawn(move || respond(lines, stdin));
        Some(OpenSsl { process, port })
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers each request, until the end of the server's output.
fn respond(mut lines: BufReader<ChildStdout>, mut stdin: ChildStdin) -> io::Result<()> {
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        // The server prints what it receives. An empty line ends the head.
        if line == b"\r\n" {
            stdin
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        }
        line.clear();
    }
    Ok(())
}

fn skipped() {
    // Written to the stream itself: what `println!` writes is shown for failing tests only.
    let _ = writeln!(
        std::io::stderr(),
        "a test was skipped: `openssl` is not installed"
    );
}

#[tokio::test]
async fn openssl_without_a_session_id_context_accepts_several_connections() {
    let authority = Authority::new("both");
    for version in ["-tls1_2", "-tls1_3"] {
        let dir = tempfile::tempdir().unwrap();
        let Some(server) = OpenSsl::start(dir.path(), &authority, &authority.server(), version)
        else {
            return skipped();
        };
        let Leaf { cert, key } = authority.sign("lockgate", |_| {});
        let client = client(&format!("https://localhost:{}/", server.port), |endpoint| {
            endpoint.ca = Some(authority.ca());
            endpoint.client_certificate = Some(ClientCertificate {
                cert: Pem::new("c.crt", cert),
                key: Pem::new("c.key", key),
            });
        });
        for round in 0..5 {
            let sent = post(
                &client,
                &checked(&client, request("[]")),
                Destination::Url,
                0,
            )
            .await;
            assert_eq!(
                sent.map(|response| response.status),
                Ok(200),
                "{version}, connection {round}"
            );
        }

        // Without this protection, rustls' default client is refused on its second connection.
        let connector = TlsConnector::from(Arc::new(default_client(&authority)));
        exchange(&connector, server.port).await.unwrap();
        let error = exchange(&connector, server.port)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("InternalError"), "{version}: {error}");
    }
}

/// A certificate as `openssl x509 -req` signs it without extensions. `None` if `openssl` is not
/// installed.
fn version_1(dir: &Path) -> Option<Leaf> {
    let run = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(dir);
        match command.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            output => {
                let output = output.unwrap();
                assert!(output.status.success(), "{output:?}");
                Some(())
            }
        }
    };
    run("ecparam -name prime256v1 -genkey -noout -out v1.key")?;
    run("req -new -key v1.key -subj /CN=localhost -out v1.csr")?;
    run("x509 -req -in v1.csr -signkey v1.key -out v1.crt")?;
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    Some(Leaf {
        cert: read("v1.crt"),
        key: read("v1.key"),
    })
}

#[tokio::test]
async fn a_receivers_certificate_of_version_1_is_named_with_the_way_out() {
    let authority = Authority::new("new");
    let dir = tempfile::tempdir().unwrap();
    let Some(leaf) = version_1(dir.path()) else {
        return skipped();
    };
    let Some(server) = OpenSsl::start(dir.path(), &authority, &leaf, "-tls1_3") else {
        return skipped();
    };
    let client = client(&format!("https://localhost:{}/", server.port), |endpoint| {
        endpoint.ca = Some(authority.ca());
    });
    let request = checked(&client, request("[]"));
    let error = post(&client, &request, Destination::Url, 0).await;
    let error = error.expect_err("it is refused");
    assert_eq!(
        error.to_string(),
        "the receiver's certificate is not accepted: it is of version 1 of X.509, without extensions"
    );
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("openssl x509 -req -extfile"), "{hint}");
}
