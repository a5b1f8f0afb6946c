//! A receiver whose credentials change all the time: certificates, authorities and tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lockgate_sim::auth::AuthOptions;
use lockgate_sim::generate::GeneratorOptions;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, LocalAuth, admin_address, books, configuration, endpoint, get, listen_on_any_port,
    started, status, until,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// One per second.
const ROTATIONS: usize = 8;
/// The receiver takes this long for each request during the rotations, one after the other, so that
/// a fast machine does not run out of load before they end.
const PACE: Duration = Duration::from_millis(40);

/// An authority, what it has signed, and the token of the same time.
struct Version {
    number: usize,
    authority: String,
    server: (String, String),
    client: (String, String),
}

impl Version {
    fn new(number: usize) -> Version {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let sign = |name: &str| {
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        Version {
            number,
            server: sign("localhost"),
            client: sign("lockgate"),
            authority,
        }
    }

    fn token(&self) -> String {
        format!("token-{:06}", self.number)
    }

    /// The files of the sink. It trusts the authority before, too: so the receiver can be renewed
    /// later.
    fn files(&self, before: &Version) -> [(&'static str, String); 4] {
        [
            ("ca.crt", before.authority.clone() + &self.authority),
            ("client.crt", self.client.0.clone()),
            ("client.key", self.client.1.clone()),
            ("token", self.token() + "\n"),
        ]
    }
}

/// Accepts the newest credentials and those before, and presents the certificate before.
struct Receiver {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    tls: Arc<ServerConfig>,
    tokens: [String; 2],
    /// Tokens of requests that were accepted.
    used: BTreeSet<String>,
    is_paced: bool,
    seen: BTreeSet<String>,
    documents: usize,
    answers: BTreeMap<u16, usize>,
    /// Handshakes that failed.
    refused: usize,
}

fn tls(before: &Version, newest: &Version) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in [&before.authority, &newest.authority] {
        let authority = CertificateDer::from_pem_slice(authority.as_bytes()).unwrap();
        roots.add(authority).unwrap();
    }
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let (certificate, key) = &before.server;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(
            vec![certificate],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        );
    Arc::new(config.unwrap())
}

impl Receiver {
    fn start(before: &Version, newest: &Version) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            tls: tls(before, newest),
            tokens: [before.token(), newest.token()],
            used: BTreeSet::new(),
            is_paced: true,
            seen: BTreeSet::new(),
            documents: 0,
            answers: BTreeMap::new(),
            refused: 0,
        }));
        let shared = (state.clone(), Arc::new(Mutex::new(())));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, pace) = shared.clone();
                thread::spawn(move || {
                    if serve(stream, &state, &pace).is_err() {
                        lock(&state).refused += 1;
                    }
                });
            }
        });
        Receiver { addr, state }
    }

    fn renew(&self, before: &Version, newest: &Version) {
        let mut state = lock(&self.state);
        state.tls = tls(before, newest);
        state.tokens = [before.token(), newest.token()];
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The token and the body of the next request, or nothing if there is none.
fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let (mut length, mut token, mut line) = (0, String::new(), String::new());
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return None,
            Ok(_) if line == "\r\n" => break,
            Ok(_) => {}
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        } else if let Some(value) = lower.strip_prefix("authorization: bearer ") {
            token = value.trim().to_owned();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((token, body))
}

/// Requests of one connection. The error: the handshake failed.
fn serve(
    mut stream: TcpStream,
    state: &Mutex<State>,
    pace: &Mutex<()>,
) -> Result<(), rustls::Error> {
    let config = lock(state).tls.clone();
    let mut connection = ServerConnection::new(config)?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            return match error.downcast::<rustls::Error>() {
                Ok(error) => Err(error),
                // It was given up, such as at the end.
                Err(_) => Ok(()),
            };
        }
    }
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let Some((token, body)) = request(&mut reader) else {
            return Ok(());
        };
        let turn = pace.lock().unwrap_or_else(PoisonError::into_inner);
        if lock(state).is_paced {
            thread::sleep(PACE);
        }
        drop(turn);
        let mut state = lock(state);
        let is_known = state.tokens.contains(&token);
        let status = if is_known { 200 } else { 401 };
        *state.answers.entry(status).or_default() += 1;
        if is_known {
            let documents: Vec<Value> = serde_json::from_slice(&body).unwrap();
            state.documents += documents.len();
            state.used.insert(token);
            let uids = documents.iter().map(|it| it["uid"].to_string());
            state.seen.extend(uids);
        }
        drop(state);
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return Ok(());
        }
    }
}

/// As Kubernetes does it, all at once; or as a script may do it: in place, one after the other, the
/// certificate before the key and in two halves.
fn write(dir: &Path, newest: &Version, before: &Version) {
    let files = newest.files(before);
    if newest.number.is_multiple_of(2) {
        let version = format!("v{}", newest.number);
        fs::create_dir(dir.join(&version)).unwrap();
        for (name, content) in files {
            fs::write(dir.join(&version).join(name), content).unwrap();
        }
        symlink(version, dir.join("..new")).unwrap();
        fs::rename(dir.join("..new"), dir.join("..data")).unwrap();
        return;
    }
    for (name, content) in files {
        let path = dir.join("..data").join(name);
        let mut file = fs::File::create(&path).unwrap();
        let (first, second) = content.split_at(content.len() / 2);
        file.write_all(first.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(20));
        file.write_all(second.as_bytes()).unwrap();
    }
}

#[test]
fn credentials_that_change_every_second_fail_no_request() {
    let events = 1000 * ROTATIONS as u64;
    let dir = tempfile::tempdir().unwrap();
    let auth = LocalAuth::start(
        dir.path(),
        AuthOptions {
            events: GeneratorOptions {
                events,
                ..GeneratorOptions::default()
            },
            ..AuthOptions::default()
        },
    );
    let files = dir.path().join("secret");
    fs::create_dir(&files).unwrap();
    let (mut before, mut newest) = (Version::new(1), Version::new(2));
    write(&files, &newest, &before);
    for name in ["ca.crt", "client.crt", "client.key", "token"] {
        symlink(format!("..data/{name}"), files.join(name)).unwrap();
    }
    let receiver = Receiver::start(&before, &newest);
    let config = dir.path().join("lockgate.toml");
    let text = format!(
        r#"[teleport]
addr = "{}"
identity = "{}/identity"
start-time = "2026-01-01T00:00:00Z"
[store]
path = "{}/store"
[admin]
listen = ""
[pipelines.main]
batch = {{ events = 10, age = "10ms" }}
[pipelines.main.sink]
plugin = "builtin:fluentd"
url = "https://localhost:{}/x/${{file:secret/token}}"
auth = {{ bearer = "${{file:secret/token}}" }}
tls = {{ ca = "secret/ca.crt", cert = "secret/client.crt", key = "secret/client.key" }}
"#,
        auth.addr,
        auth.dir.display(),
        dir.path().display(),
        receiver.addr.port(),
    );
    fs::write(&config, text).unwrap();
    let host = started(&config);
    let shown = || {
        let state = lock(&receiver.state);
        let figures = (
            state.seen.len(),
            state.documents,
            &state.answers,
            state.refused,
        );
        format!("{figures:?}\n{}\n{}", status(&config), host.stderr())
    };
    let seen = || lock(&receiver.state).seen.len() as u64;
    until("events arrive", shown, || seen() > 0);
    for _ in 0..ROTATIONS {
        let next = Version::new(newest.number + 1);
        before = std::mem::replace(&mut newest, next);
        write(&files, &newest, &before);
        receiver.renew(&before, &newest);
        thread::sleep(Duration::from_secs(1));
        // The receiver refuses those before only then, however slow this machine is.
        let token = newest.token();
        until("the newest credentials are used", shown, || {
            lock(&receiver.state).used.contains(&token)
        });
    }
    lock(&receiver.state).is_paced = false;
    assert!(seen() < events, "the load is over early");
    until("everything has arrived", shown, || seen() == events);
    until("it is on the books", shown, || {
        books(&status(&config), "main").delivered == events
    });
    let shown = shown();
    println!("{}", shown.lines().next().unwrap_or_default());
    let stderr = host.stop().exits_with(0).stderr;
    assert!(!stderr.contains("held"), "a request failed: {stderr}");
    assert!(!stderr.contains("cannot be used"), "{stderr}");
    // Nothing had to be sent again after it was accepted.
    assert_eq!(lock(&receiver.state).documents as u64, events, "{shown}");
    assert!(
        !stderr.contains("token-0"),
        "a token is in the log: {stderr}"
    );
}

/// The key of a new certificate is late: the pair before stays in use, and a condition says so.
#[test]
fn a_certificate_without_its_key_is_told_and_the_pair_before_stays_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "300", "--rate", "10"]);
    let receiver = LocalReceiver::start(dir.path());
    let files: PathBuf = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    for file in ["ca.crt", "client.crt", "client.key"] {
        fs::copy(receiver.dir.join(file), files.join(file)).unwrap();
    }
    let text = format!(
        "[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
        endpoint(&receiver.address(), &files, "main")
    );
    let config = configuration(dir.path(), &auth, &text);
    let host = started(&config);
    let state = || status(&config)["pipelines"]["main"]["state"].clone();
    let shown = || format!("{}\n{}", state(), host.stderr());
    until("the end of the certificate is shown", shown, || {
        state()["certificate_until"].is_i64()
    });
    let other = Version::new(1);
    let whole = fs::read(files.join("client.crt")).unwrap();
    fs::write(files.join("client.crt"), &other.client.0).unwrap();
    until("the condition names the files", shown, || {
        let condition = state()["conditions"][0].clone();
        let message = condition["message"].as_str().unwrap_or_default();
        condition["kind"] == "credentials"
            && condition["subject"] == "files"
            && message.contains("client.key` does not belong to the certificate in")
    });
    assert_eq!(status(&config)["ready"], true);
    let before = books(&status(&config), "main").delivered;
    until("events are delivered with the pair before", shown, || {
        books(&status(&config), "main").delivered > before
    });
    fs::write(files.join("client.crt"), whole).unwrap();
    until("the condition is over", shown, || {
        state()["conditions"].as_array().is_some_and(Vec::is_empty)
    });
    host.stop().exits_with(0);
}

/// The second one was in no metric, and not held to the operator's rate.
#[test]
fn a_request_that_is_sent_again_with_a_new_token_is_counted_twice() {
    let events = 10;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let token = dir.path().join("token");
    fs::write(&token, "old").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It changes the token when it has got the first request, and refuses that.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            while let Some((used, _)) = request(&mut reader) {
                let status = if used == "new" { 200 } else { 401 };
                fs::write(&token, "new").unwrap();
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    let text = format!(
        "[pipelines.main]\nin-flight = 1\n\
         [pipelines.main.sink]\nplugin = \"builtin:fluentd\"\nurl = \"http://{address}/\"\n\
         auth = {{ bearer = \"${{file:token}}\" }}\n"
    );
    let config = configuration(dir.path(), &auth, &text);
    listen_on_any_port(&config);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("everything is delivered", shown, || {
        books(&status(&config), "main").delivered == events
    });
    let metrics = get(&admin_address(&host), "/metrics");
    for status in ["200", "401"] {
        let line = format!(
            "lockgate_endpoint_requests_total{{pipeline=\"main\",endpoint=\"url\",status=\"{status}\"}} 1\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    assert!(!host.stderr().contains("held"), "{}", host.stderr());
    host.stop().exits_with(0);
}
