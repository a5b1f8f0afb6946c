//! A plain HTTP server that records requests and answers as a test says.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::read::GzDecoder;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// Unpacked.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Further headers, each with its line end.
    pub headers: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            headers: "",
            body: body.into(),
        }
    }
}

type Responder = dyn Fn(&Recorded) -> Answer + Send + Sync;

/// The server. It listens until the process ends.
pub struct Recorder {
    pub addr: SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
}

impl Recorder {
    /// Listens on a port of loopback. `answer` is called for each request, in the order in which
    /// they arrive.
    pub fn start(answer: impl Fn(&Recorded) -> Answer + Send + Sync + 'static) -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback is free");
        let addr = listener.local_addr().expect("it has an address");
        let requests: Arc<Mutex<Vec<Recorded>>> = Arc::default();
        let answer: Arc<Responder> = Arc::new(answer);
        let recorded = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (recorded, answer) = (recorded.clone(), answer.clone());
                // The other side may close the connection at any time.
                thread::spawn(move || drop(serve(&stream, &recorded, &*answer)));
            }
        });
        Recorder { addr, requests }
    }

    /// All requests until now.
    pub fn requests(&self) -> Vec<Recorded> {
        let requests = self.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(
    stream: &TcpStream,
    recorded: &Mutex<Vec<Recorded>>,
    answer: &Responder,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length");
        let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = match headers.get("content-encoding").map(String::as_str) {
            Some("gzip") => {
                let mut unpacked = Vec::new();
                GzDecoder::new(&*body).read_to_end(&mut unpacked)?;
                unpacked
            }
            Some("zstd") => zstd::decode_all(&*body)?,
            _ => body,
        };
        let request = Recorded {
            method,
            path,
            headers,
            body,
        };
        let answer = {
            let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = answer(&request);
            recorded.push(request);
            answer
        };
        let Answer {
            status,
            headers,
            body,
        } = answer;
        let head = format!(
            "HTTP/1.1 {status} -\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        let mut writer = stream;
        writer.write_all(&[head.as_bytes(), &body].concat())?;
    }
}
