//! The calls of one connection, dispatched by path.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lockgate_model::{Day, Millis};
use lockgate_teleport::proto::auditlog::{
    EventExportChunk, ExportUnstructuredEventsRequest, GetEventExportChunksRequest,
    GetUnstructuredEventsRequest, StreamUnstructuredSessionEventsRequest,
};
use lockgate_teleport::proto::authservice::{GetLockRequest, PingRequest, PingResponse};
use prost::Message;
use prost_types::Timestamp;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::{Code, Status};

use super::export::{Export, row};
use super::locks::Locks;
use super::log::AuditLog;
use super::reply::{self, Reply};
use super::search::Search;
use super::{AuthOptions, Backend, Faults, Flaky, Served};
use crate::generate::Generator;
use crate::generate::rng::Rng;

const AUDIT_LOG: &str = "teleport.auditlog.v1.AuditLogService";
const AUTH: &str = "proto.AuthService";
/// Time between two looks whether a search is to be answered now.
const SILENCE: Duration = Duration::from_millis(50);
/// Bytes per stream that may wait for the client's window.
const SEND_BUFFER: usize = 512 << 10;

pub(super) struct Service {
    log: AuditLog,
    pub(super) locks: Locks,
    started: Instant,
    search: Arc<Search>,
    backend: Backend,
    ping: Vec<u8>,
    flaky: Option<Flaky>,
    pub(super) faults: Mutex<Faults>,
    calls: AtomicU64,
    events: Arc<AtomicU64>,
    recordings: AtomicU64,
    clock_ahead: Duration,
    uncounted: Arc<AtomicU64>,
}

impl Service {
    #[allow(
        clippy::disallowed_methods,
        reason = "a simulated server starts when it is created"
    )]
    pub(super) fn new(options: &AuthOptions) -> Service {
        let ahead = Duration::from_secs(options.clock_ahead);
        let ping = PingResponse {
            cluster_name: options.events.cluster.clone(),
            server_version: options.server_version.clone(),
        };
        Service {
            log: AuditLog::new(options, SystemTime::now() + ahead),
            locks: Locks::default(),
            started: Instant::now(),
            search: Arc::default(),
            backend: options.backend,
            ping: ping.encode_to_vec(),
            flaky: options.flaky,
            faults: Mutex::default(),
            calls: AtomicU64::new(0),
            events: Arc::default(),
            recordings: AtomicU64::new(0),
            clock_ahead: ahead,
            uncounted: Arc::default(),
        }
    }

    pub(super) fn generator(&self) -> &Generator {
        &self.log.generator
    }

    pub(super) fn visible(&self) -> u64 {
        self.log.visible(self.now())
    }

    pub(super) fn served(&self) -> Served {
        Served {
            calls: self.calls.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            recordings: self.recordings.load(Ordering::Relaxed),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// `authenticated`: the client presented a certificate.
    async fn call(&self, request: Request<Incoming>, authenticated: bool) -> Result<Reply, Status> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_start_matches('/');
        let (service, method) = path.split_once('/').unwrap_or((path, ""));
        let may = |verb: &str, kind: &str| match authenticated {
            true => Ok(()),
            false => Err(denied(verb, kind)),
        };
        let export = self.backend == Backend::Export;
        self.fault(method)?;
        match (service, method) {
            (AUTH, "Ping") => {
                reply::request::<PingRequest>(body).await?;
                Ok(self.once(self.ping.clone()))
            }
            (AUTH, "GetLock") => {
                may("read", "lock")?;
                let request: GetLockRequest = reply::request(body).await?;
                Ok(self.once(self.locks.read(&request.name)?.encode_to_vec()))
            }
            (AUTH, "UpsertLock") => {
                may("create", "lock")?;
                self.locks.upsert(reply::request(body).await?)?;
                Ok(self.once(Vec::new()))
            }
            (AUDIT_LOG, "GetUnstructuredEvents") => {
                may("list", "event")?;
                self.page(reply::request(body).await?).await
            }
            (AUDIT_LOG, "StreamUnstructuredSessionEvents") => {
                may("read", "session")?;
                self.recording(&reply::request(body).await?, call)
            }
            (AUDIT_LOG, "GetEventExportChunks") if export => {
                may("list", "event")?;
                let request: GetEventExportChunksRequest = reply::request(body).await?;
                let chunks = self
                    .log
                    .chunks(self.now(), day(request.date.as_ref()))
                    .into_iter();
                let messages: Vec<_> = chunks
                    .map(|chunk| EventExportChunk { chunk }.encode_to_vec())
                    .collect();
                Ok(Reply::new(
                    messages.into_iter(),
                    &self.uncounted,
                    self.breaks(call),
                ))
            }
            (AUDIT_LOG, "ExportUnstructuredEvents") if export => {
                may("list", "event")?;
                self.export(&reply::request(body).await?, call)
            }
            (AUDIT_LOG | AUTH, method) => Err(Status::unimplemented(format!(
                "unknown method {method} for service {service}"
            ))),
            _ => Err(Status::unimplemented(format!("unknown service {service}"))),
        }
    }

    /// The answer that a call of this name gets in place of its own.
    fn fault(&self, method: &str) -> Result<(), Status> {
        let faults = self.faults();
        let code = match method {
            "StreamUnstructuredSessionEvents" => faults.recordings,
            "GetUnstructuredEvents" | "GetEventExportChunks" | "ExportUnstructuredEvents" => {
                faults.audit_log
            }
            "UpsertLock" => faults.locks,
            "GetLock" => faults.lock_reads,
            _ => None,
        };
        let (verb, kind) = match method {
            "StreamUnstructuredSessionEvents" => ("read", "session"),
            "UpsertLock" => ("create", "lock"),
            "GetLock" => ("read", "lock"),
            _ => ("list", "event"),
        };
        code.map_or(Ok(()), |code: Code| {
            Err(match code {
                Code::PermissionDenied => denied(verb, kind),
                code => Status::new(code, "the simulator fails on purpose"),
            })
        })
    }

    async fn page(&self, request: GetUnstructuredEventsRequest) -> Result<Reply, Status> {
        while self.faults().silent_searches {
            tokio::time::sleep(SILENCE).await;
        }
        if let Some((from, to)) = self.faults().unreadable
            && time(request.start_date.as_ref()) <= to
            && from <= time(request.end_date.as_ref())
        {
            return Err(unreadable());
        }
        let (search, generator, visible) = (
            Arc::clone(&self.search),
            self.log.generator.clone(),
            self.log.visible(self.now()),
        );
        let page =
            tokio::task::spawn_blocking(move || search.page(&generator, visible, &request)).await;
        let page = page.map_err(|error| Status::internal(error.to_string()))??;
        self.events.fetch_add(page.events, Ordering::Relaxed);
        Ok(self.once(page.message))
    }

    fn export(
        &self,
        request: &ExportUnstructuredEventsRequest,
        call: u64,
    ) -> Result<Reply, Status> {
        let range = self
            .log
            .chunk(self.now(), day(request.date.as_ref()), &request.chunk);
        let range = range.ok_or_else(|| {
            Status::not_found(format!("event export chunk {:?} not found", request.chunk))
        })?;
        let row = row(&request.cursor)?.min(range.end - range.start);
        let first = range.start + row;
        let export = Export::new(self.log.generator.from(first), range.end, row);
        let refused = self.unreadable();
        let is_refused = first.max(refused.start) < range.end.min(refused.end);
        let breaks = is_refused.then(|| (refused.start.saturating_sub(first), unreadable()));
        Ok(Reply::new(
            export,
            &self.events,
            breaks.or_else(|| self.breaks(call)),
        ))
    }

    fn recording(
        &self,
        request: &StreamUnstructuredSessionEventsRequest,
        call: u64,
    ) -> Result<Reply, Status> {
        let sid = &request.session_id;
        let started = self
            .log
            .generator
            .session_start(sid)
            .is_some_and(|position| position < self.log.visible(self.now()));
        let recording = started.then(|| self.log.generator.recording(sid)).flatten();
        let mut events = recording.ok_or_else(|| {
            Status::not_found(format!(
                "open /var/lib/teleport/log/records/{sid}.tar: no such file or directory"
            ))
        })?;
        self.recordings.fetch_add(1, Ordering::Relaxed);
        // Indexes are consecutive from 0 and the start is inclusive. A start beyond the end is not
        // an error.
        events.drain(..(request.start_index.max(0) as usize).min(events.len()));
        Ok(Reply::new(
            events.into_iter(),
            &self.events,
            self.breaks(call),
        ))
    }

    fn once(&self, message: Vec<u8>) -> Reply {
        Reply::new(vec![message].into_iter(), &self.uncounted, None)
    }

    /// Before which message a stream ends, and how.
    fn breaks(&self, call: u64) -> Option<(u64, Status)> {
        let flaky = self.flaky?;
        let mut rng = Rng::new(flaky.seed, call);
        rng.chance(flaky.probability).then(|| {
            let status = Status::unavailable("the simulator broke this stream on purpose");
            (rng.below(flaky.within.max(1)), status)
        })
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events that cannot be read, by their positions.
    fn unreadable(&self) -> Range<u64> {
        let generator = &self.log.generator;
        self.faults().unreadable.map_or(0..0, |(from, to)| {
            generator.position_at(from)..generator.position_at(to.saturating_add(1))
        })
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(service: Arc<Service>, stream: TlsStream<TcpStream>) {
    let (_, tls) = stream.get_ref();
    let (authenticated, http2) = (
        tls.peer_certificates().is_some(),
        tls.alpn_protocol() == Some(b"h2"),
    );
    let io = TokioIo::new(stream);
    let ended = if http2 {
        let calls = service_fn(|request| {
            let service = Arc::clone(&service);
            async move { Ok::<_, Infallible>(answer(&service, request, authenticated).await) }
        });
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .max_send_buf_size(SEND_BUFFER)
            .max_concurrent_streams(1000)
            .serve_connection(io, calls)
            .await
    } else {
        // Without h2, a real Auth server speaks HTTP/1.1 and answers 404 to everything. Clients use
        // that to tell it from a proxy.
        let calls = service_fn(|_| async {
            let mut response = plain(StatusCode::NOT_FOUND);
            let date = super::date(service.clock_ahead);
            response.headers_mut().insert(http::header::DATE, date);
            Ok::<_, Infallible>(response)
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(io, calls)
            .await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(
    service: &Service,
    request: Request<Incoming>,
    authenticated: bool,
) -> Response<Reply> {
    let grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !grpc {
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    match service.call(request, authenticated).await {
        Ok(reply) => reply.response(),
        Err(status) => status.into_http(),
    }
}

fn plain(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply::default());
    *response.status_mut() = status;
    response
}

/// In Teleport's words.
fn denied(verb: &str, kind: &str) -> Status {
    Status::permission_denied(format!(
        "access denied to perform action \"{verb}\" on \"{kind}\""
    ))
}

fn unreadable() -> Status {
    Status::unknown("the simulator cannot read this part of the log on purpose")
}

/// In milliseconds. An absent time is the epoch.
fn time(time: Option<&Timestamp>) -> Millis {
    time.map_or(0, |time| {
        let seconds = time.seconds.saturating_mul(1000);
        seconds.saturating_add(i64::from(time.nanos) / 1_000_000)
    })
}

/// The UTC day of a time. An absent time is the epoch.
fn day(date: Option<&Timestamp>) -> Day {
    Day::of(date.map_or(0, |date| date.seconds.saturating_mul(1000)))
}
