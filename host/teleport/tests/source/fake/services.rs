//! The gRPC services of the simulated server.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use lockgate_model::Day;
use lockgate_teleport::proto::auditlog::audit_log_service_server::AuditLogService;
use lockgate_teleport::proto::auditlog::*;
use lockgate_teleport::proto::authservice::auth_service_server::AuthService;
use lockgate_teleport::proto::authservice::{
    GetLockRequest, LockTarget, LockV2, PingRequest, PingResponse,
};
use prost_types::Timestamp;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::Script;

#[derive(Clone)]
pub struct Services {
    pub script: Arc<Mutex<Script>>,
}

impl Services {
    fn called<T>(&self, request: &Request<T>) -> MutexGuard<'_, Script> {
        let mut script = self.script.lock().expect("no panic");
        let version = request
            .metadata()
            .get("version")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        script.versions.push(version);
        script
    }

    /// Waits until the server is to answer.
    async fn speaks(&self, speaks: impl Fn(&Script) -> bool) {
        while !speaks(&self.script.lock().expect("no panic")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Items, followed by the end, an error, or silence.
pub struct Items<T> {
    items: std::vec::IntoIter<T>,
    last: Last,
}

enum Last {
    End,
    Error(Option<Status>),
    Silence,
}

impl<T> Items<T> {
    fn new(items: Vec<T>, last: Last) -> Items<T> {
        Items {
            items: items.into_iter(),
            last,
        }
    }
}

impl<T: Unpin> Stream for Items<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match (self.items.next(), &mut self.last) {
            (Some(item), _) => Poll::Ready(Some(Ok(item))),
            (None, Last::End) => Poll::Ready(None),
            (None, Last::Error(error)) => Poll::Ready(error.take().map(Err)),
            (None, Last::Silence) => Poll::Pending,
        }
    }
}

fn date(date: Option<Timestamp>) -> String {
    Day::of(date.unwrap_or_default().seconds * 1000).to_string()
}

fn unknown(method: &str) -> Status {
    Status::unimplemented(format!(
        "unknown method {method} for service teleport.auditlog.v1.AuditLogService"
    ))
}

#[tonic::async_trait]
impl AuditLogService for Services {
    type StreamUnstructuredSessionEventsStream = Items<EventUnstructured>;
    type GetEventExportChunksStream = Items<EventExportChunk>;
    type ExportUnstructuredEventsStream = Items<ExportEventUnstructured>;

    async fn get_unstructured_events(
        &self,
        request: Request<GetUnstructuredEventsRequest>,
    ) -> Result<Response<EventsUnstructured>, Status> {
        self.speaks(|script| !script.is_silent.0).await;
        let mut script = self.called(&request);
        let request = request.into_inner();
        let calls = script.searches.len();
        script.searches.push(request.clone());
        let Script { search, events, .. } = &mut *script;
        search(&request, events, calls).map(Response::new)
    }

    async fn stream_unstructured_session_events(
        &self,
        request: Request<StreamUnstructuredSessionEventsRequest>,
    ) -> Result<Response<Self::StreamUnstructuredSessionEventsStream>, Status> {
        let mut script = self.called(&request);
        let request = request.into_inner();
        script
            .opened
            .push((request.session_id.clone(), request.start_index));
        let Some(recordings) = &mut script.recordings else {
            return Err(unknown("StreamUnstructuredSessionEvents"));
        };
        let missing = Status::not_found(format!(
            "open /records/{}.tar: no such file or directory",
            request.session_id
        ));
        let recording = recordings
            .get_mut(&request.session_id)
            .ok_or_else(|| missing.clone())?;
        if recording.missing > 0 {
            recording.missing -= 1;
            return Err(missing);
        }
        let mut items: Vec<_> = recording
            .events
            .iter()
            .filter(|event| event.index >= request.start_index.into())
            .cloned()
            .collect();
        let last = match (!recording.breaks.is_empty()).then(|| recording.breaks.remove(0)) {
            Some((after, status)) => {
                items.truncate(after);
                Last::Error(Some(status))
            }
            None if recording.hangs => Last::Silence,
            None => Last::End,
        };
        Ok(Response::new(Items::new(items, last)))
    }

    async fn get_event_export_chunks(
        &self,
        request: Request<GetEventExportChunksRequest>,
    ) -> Result<Response<Self::GetEventExportChunksStream>, Status> {
        self.speaks(|script| !script.is_silent.1).await;
        let mut script = self.called(&request);
        let date = date(request.into_inner().date);
        script.lists.push(date.clone());
        let chunks = script
            .chunks
            .as_ref()
            .ok_or_else(|| unknown("GetEventExportChunks"))?;
        let names = chunks
            .get(&date)
            .into_iter()
            .flat_map(|chunks| chunks.keys());
        let items = names
            .map(|chunk| EventExportChunk {
                chunk: chunk.clone(),
            })
            .collect();
        Ok(Response::new(Items::new(items, Last::End)))
    }

    async fn export_unstructured_events(
        &self,
        request: Request<ExportUnstructuredEventsRequest>,
    ) -> Result<Response<Self::ExportUnstructuredEventsStream>, Status> {
        let mut script = self.called(&request);
        script.streams += 1;
        let streams = script.streams as usize;
        let request = request.into_inner();
        let chunks = script
            .chunks
            .as_ref()
            .ok_or_else(|| unknown("ExportUnstructuredEvents"))?;
        let chunk = chunks
            .get(&date(request.date))
            .and_then(|chunks| chunks.get(&request.chunk));
        let chunk = chunk
            .filter(|chunk| !chunk.is_missing)
            .ok_or_else(|| Status::not_found("chunk not found"))?;
        let start = match request.cursor.strip_prefix("a1:") {
            _ if request.cursor.is_empty() => Some(0),
            at => at.and_then(|at| at.parse().ok()),
        };
        let start = start.ok_or_else(|| Status::invalid_argument("malformed chunk cursor"))?;
        let mut items: Vec<_> = chunk
            .events
            .iter()
            .enumerate()
            .skip(start)
            .map(|(at, event)| ExportEventUnstructured {
                event: Some(event.clone()),
                cursor: format!("a1:{}", at + 1),
            })
            .collect();
        let broken = chunk.breaks_after.clone();
        if let Some((after, _)) = broken {
            items.truncate(after.saturating_sub(start));
        }
        let last = match chunk.hangs_after {
            _ if broken.is_some() => Last::Error(broken.map(|(_, status)| status)),
            Some(after) => {
                items.truncate(after.saturating_sub(start));
                Last::Silence
            }
            None if script.is_flaky && streams.is_multiple_of(3) => {
                items.truncate(streams % 5);
                Last::Error(Some(Status::unavailable("the stream broke")))
            }
            None => Last::End,
        };
        Ok(Response::new(Items::new(items, last)))
    }
}

#[tonic::async_trait]
impl AuthService for Services {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        assert!(
            request.metadata().get("version").is_none(),
            "the server's version is not known yet"
        );
        let script = self.script.lock().expect("no panic");
        script.ping.clone()?;
        Ok(Response::new(PingResponse {
            cluster_name: script.cluster.clone(),
            server_version: "17.2.1".into(),
        }))
    }

    async fn get_lock(&self, request: Request<GetLockRequest>) -> Result<Response<LockV2>, Status> {
        let hangs = self.script.lock().expect("no panic").locks_hang;
        if hangs {
            std::future::pending::<()>().await;
        }
        let script = self.called(&request);
        if let Some(fault) = &script.lock_faults.1 {
            return Err(fault.clone());
        }
        let name = request.into_inner().name;
        let lock = script.locks.get(&name).cloned();
        lock.map(Response::new)
            .ok_or_else(|| Status::not_found(format!("lock \"{name}\" is not found")))
    }

    async fn upsert_lock(&self, request: Request<LockV2>) -> Result<Response<()>, Status> {
        let hangs = self.script.lock().expect("no panic").locks_hang;
        if hangs {
            std::future::pending::<()>().await;
        }
        let mut script = self.called(&request);
        if let Some(fault) = &script.lock_faults.0 {
            return Err(fault.clone());
        }
        let lock = request.into_inner();
        let name = lock.metadata.clone().unwrap_or_default().name;
        if name.is_empty() {
            return Err(Status::invalid_argument("missing parameter Name"));
        }
        let target = lock.spec.clone().unwrap_or_default().target;
        let target = target.unwrap_or_default();
        if target == LockTarget::default() {
            let problem = "at least one target field must be set";
            return Err(Status::invalid_argument(problem));
        }
        if script.protected.contains(&target.user) {
            return Err(Status::permission_denied("access denied to this user"));
        }
        script.made_locks.push(lock.clone());
        script.locks.insert(name, lock);
        Ok(Response::new(()))
    }
}
