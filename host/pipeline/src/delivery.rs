use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use lockgate_egress::{Client, RETRY_AFTER_MAX, Rate, SendError, Verdict};
use lockgate_model::request::{CheckedRequest, Delivery, DocumentFate, Response};
use lockgate_model::{Fate, FeedKind, FeedRef, RequestRecord};
use lockgate_runtime::{Context, Inspect, Postponed, Queue};
use tokio::task::JoinSet;

use crate::backoff::{Backoff, backoff};
use crate::chain::{Chain, Encoded};
use crate::clock::now;
use crate::status::{Board, Problem};
use crate::stop::Stop;
use crate::work::Work;

/// The way out of one pipeline: its sink component and the endpoint that the operator wrote.
pub(crate) struct Outlet {
    pub(crate) pipeline: Arc<str>,
    pub(crate) chain: Arc<Chain>,
    pub(crate) queue: Queue,
    pub(crate) client: Client,
    pub(crate) rate: Option<Rate>,
    pub(crate) board: Board,
    /// Requests sent so far, and the number of the latest one whose documents were accepted. A
    /// refused event may only become a dead letter when a request sent *after* its refusal was
    /// accepted and it is then refused *again*: a receiver that refuses everything (a 400
    /// for a missing client certificate, say) must not empty the stream into the dead letters,
    /// neither while it does nor when it recovers.
    pub(crate) sent: AtomicU64,
    pub(crate) accepted: AtomicU64,
    /// Bytes of the smallest body that was too large (413).
    pub(crate) too_large: AtomicUsize,
}

/// What became of the documents of some requests.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    pub(crate) fates: Vec<(u32, Fate)>,
    pub(crate) requests: Vec<RequestRecord>,
}

/// The host is stopping: what has no fate stays waiting, and is sent again after the next start.
#[derive(Debug)]
pub(crate) struct Stopping;

/// What is to be done with a request after an answer, or after none.
enum Step {
    Done(Vec<(u32, Fate)>),
    /// Some documents are final, the rest is encoded and sent again.
    Again {
        fates: Vec<(u32, Fate)>,
        rest: Vec<u32>,
        at_least: Duration,
    },
    Halves(String),
    /// The same again. Not ready: it will not mend itself.
    Hold {
        message: String,
        at_least: Duration,
        ready: bool,
    },
}

struct Job {
    request: CheckedRequest,
    documents: Vec<u32>,
    /// [`Outlet::sent`] when these documents were first refused.
    refused_at: Option<u64>,
}

impl Outlet {
    /// Sends all requests of a batch until each of its documents has a fate.
    ///
    /// `in_session_order`: requests of one session go one after another.
    pub(crate) async fn deliver(
        self: &Arc<Self>,
        work: &Arc<Work>,
        encoded: Encoded,
        in_session_order: bool,
        context: &Context,
        stop: &Stop,
    ) -> Result<Delivered, Stopping> {
        let mut delivered = Delivered::default();
        delivered.fates.extend(
            encoded
                .rejected
                .into_iter()
                .map(|(document, reason)| (document, Fate::Dead(reason))),
        );
        let mut tasks = JoinSet::new();
        for lane in lanes(work, encoded.requests, in_session_order) {
            let (outlet, work, context, stop) =
                (self.clone(), work.clone(), context.clone(), stop.clone());
            tasks.spawn(async move { outlet.lane(&work, lane, &context, stop).await });
        }
        while let Some(lane) = tasks.join_next().await {
            let lane = lane.unwrap_or_else(|panic| {
                tracing::error!(pipeline = %self.pipeline, "a delivery ended with a bug in the host, its batch stays waiting: {panic}");
                Err(Stopping)
            })?;
            delivered.fates.extend(lane.fates);
            delivered.requests.extend(lane.requests);
        }
        Ok(delivered)
    }

    async fn lane(
        &self,
        work: &Arc<Work>,
        mut jobs: VecDeque<Job>,
        context: &Context,
        mut stop: Stop,
    ) -> Result<Delivered, Stopping> {
        let mut delivered = Delivered::default();
        // Single documents that were refused: they wait until everything else of the lane has been
        // sent.
        let mut refused: VecDeque<Job> = VecDeque::new();
        let (mut waits, mut partial) = (backoff(), backoff());
        loop {
            let Some(job) = jobs.pop_front() else {
                let Some(job) = refused.pop_front() else {
                    return Ok(delivered);
                };
                // Where others were accepted since, sending it once more decides.
                if self.accepted.load(Ordering::Relaxed) <= job.refused_at.unwrap_or(0) {
                    let wait = waits.next(None);
                    self.problem("the receiver refuses single events and has accepted none since; they are held", false, Some(wait));
                    if !stop.sleep(wait).await {
                        return Err(Stopping);
                    }
                }
                jobs.push_back(job);
                continue;
            };
            let accepted = self.accepted.load(Ordering::Relaxed);
            let (step, record) = self.send(&job, work, &mut stop).await?;
            delivered.requests.push(record);
            match step {
                Step::Done(fates) => delivered.fates.extend(fates),
                Step::Again {
                    fates,
                    rest,
                    at_least,
                } => {
                    if !fates.is_empty() {
                        partial.reset();
                    }
                    delivered.fates.extend(fates);
                    if !rest.is_empty() {
                        let wait = partial.next(Some(at_least));
                        self.problem(
                            "the receiver took only a part of a request",
                            true,
                            Some(wait),
                        );
                        if !stop.sleep(wait).await {
                            return Err(Stopping);
                        }
                    }
                    self.encode_again(
                        work,
                        &[&rest],
                        None,
                        context,
                        &mut jobs,
                        &mut delivered,
                        &mut stop,
                    )
                    .await?;
                }
                Step::Halves(message) => {
                    let refused_at = job
                        .refused_at
                        .unwrap_or_else(|| self.sent.load(Ordering::Relaxed));
                    if job.documents.len() > 1 {
                        let (left, right) = job.documents.split_at(job.documents.len() / 2);
                        self.encode_again(
                            work,
                            &[left, right],
                            Some(refused_at),
                            context,
                            &mut jobs,
                            &mut delivered,
                            &mut stop,
                        )
                        .await?;
                    } else if accepted > refused_at {
                        let fate = Fate::Dead(format!(
                            "the receiver refused it while it accepted others: {message}"
                        ));
                        delivered.fates.extend(all(&job.documents, &fate));
                        self.well();
                    } else {
                        self.problem(&message, false, None);
                        refused.push_back(Job {
                            refused_at: Some(refused_at),
                            ..job
                        });
                    }
                }
                // `send` holds by itself.
                Step::Hold { .. } => jobs.push_front(job),
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn encode_again(
        &self,
        work: &Arc<Work>,
        parts: &[&[u32]],
        refused_at: Option<u64>,
        context: &Context,
        jobs: &mut VecDeque<Job>,
        delivered: &mut Delivered,
        stop: &mut Stop,
    ) -> Result<(), Stopping> {
        for part in parts.iter().rev() {
            let encoded = self.encode(work, part.to_vec(), context, stop).await?;
            delivered.fates.extend(
                encoded
                    .rejected
                    .into_iter()
                    .map(|(document, reason)| (document, Fate::Dead(reason))),
            );
            for (request, documents) in encoded.requests.into_iter().rev() {
                jobs.push_front(Job {
                    request,
                    documents,
                    refused_at,
                });
            }
        }
        Ok(())
    }

    /// Asks the sink for requests, for as long as it takes.
    pub(crate) async fn encode(
        &self,
        work: &Arc<Work>,
        documents: Vec<u32>,
        context: &Context,
        stop: &mut Stop,
    ) -> Result<Encoded, Stopping> {
        let mut waits = backoff();
        loop {
            let (chain, work, part, context) = (
                self.chain.clone(),
                work.clone(),
                documents.clone(),
                context.clone(),
            );
            match self
                .queue
                .run(move || chain.encode(&work, &part, &context))
                .await
                .map(|ran| ran.result)
            {
                Ok(Ok(encoded)) => return Ok(encoded),
                Ok(Err(Postponed { message, after })) => {
                    self.wait_after(&message, after, &mut waits, stop).await?
                }
                Err(error) => {
                    self.wait_after(&error.to_string(), None, &mut waits, stop)
                        .await?
                }
            }
        }
    }

    /// A plugin, or the host itself, could not do it now.
    pub(crate) async fn wait_after(
        &self,
        message: &str,
        after: Option<Duration>,
        waits: &mut Backoff,
        stop: &mut Stop,
    ) -> Result<(), Stopping> {
        // A plugin that can take nothing is held too, and that will not mend itself; one that names
        // a time expects to be well by then.
        let wait = waits.next(after.map(|after| after.min(RETRY_AFTER_MAX)));
        self.problem(message, after.is_some(), Some(wait));
        if stop.sleep(wait).await {
            Ok(())
        } else {
            Err(Stopping)
        }
    }

    /// Sends one request, holding and repeating it until there is a next step.
    async fn send(
        &self,
        job: &Job,
        work: &Arc<Work>,
        stop: &mut Stop,
    ) -> Result<(Step, RequestRecord), Stopping> {
        let feed = match job.documents.first().map(|&first| work.event(first).feed) {
            Some(FeedRef::Session(_)) => FeedKind::Sessions,
            _ => FeedKind::Audit,
        };
        let mut record = RequestRecord {
            status: 0,
            documents: job.documents.len() as u32,
            bytes: job.request.body().len() as u64,
            attempts: 0,
            excerpt: String::new(),
        };
        let mut waits = backoff();
        loop {
            if let Some(rate) = &self.rate {
                rate.take(job.documents.len()).await;
            }
            record.attempts += 1;
            let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
            let answer = tokio::select! {
                answer = self.client.send(&job.request, feed, self.response_max()) => answer,
                () = stop.abandoned() => return Err(Stopping),
            };
            let step = match answer {
                Ok(response) => {
                    record.status = response.status;
                    record.excerpt = if (200..300).contains(&response.status) {
                        String::new()
                    } else {
                        excerpt(&response.body)
                    };
                    self.judge(job, response, number, stop).await?
                }
                // The component broke a rule that only shows when the URL is made: as if it had
                // trapped.
                Err(error @ SendError::Request(_)) => {
                    Step::Done(all(&job.documents, &Fate::Dead(error.to_string())))
                }
                Err(error) => Step::Hold {
                    message: error.to_string(),
                    at_least: Duration::ZERO,
                    ready: true,
                },
            };
            let Step::Hold {
                message,
                at_least,
                ready,
            } = step
            else {
                return Ok((step, record));
            };
            let wait = waits.next(Some(at_least));
            self.problem(&message, ready, Some(wait));
            if !stop.sleep(wait).await {
                return Err(Stopping);
            }
        }
    }

    fn response_max(&self) -> usize {
        self.chain.sink().setup().response_max as usize
    }

    /// What an answer means. `number`: of the request, among all that were sent.
    async fn judge(
        &self,
        job: &Job,
        response: Response,
        number: u64,
        stop: &mut Stop,
    ) -> Result<Step, Stopping> {
        let verdict = lockgate_egress::verdict(response.status);
        if verdict == Verdict::TooLarge && job.documents.len() > 1 {
            self.too_large
                .fetch_min(job.request.body().len(), Ordering::Relaxed);
        }
        let step = if verdict == Verdict::Delivered
            && self.chain.sink().setup().inspect == Inspect::Failures
        {
            Step::Done(all(&job.documents, &Fate::Delivered))
        } else {
            self.classify(job, verdict, response, stop).await?
        };
        let fates = match &step {
            Step::Done(fates) | Step::Again { fates, .. } => fates.as_slice(),
            Step::Halves(_) | Step::Hold { .. } => &[],
        };
        if fates.iter().any(|(_, fate)| *fate == Fate::Delivered) {
            self.accepted.fetch_max(number, Ordering::Relaxed);
            self.well();
            // It grows slowly again, so that a limit that is gone is forgotten.
            let grown =
                |bytes: usize| (bytes != usize::MAX).then(|| bytes.saturating_add(bytes / 256 + 1));
            let _ = self
                .too_large
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        }
        Ok(step)
    }

    /// The plugin's word where it answers, else the host's own rule for the status. A 2xx that the
    /// plugin wanted to see and could not is held, and shown to it again: it may report
    /// failures that nobody has read, and sending it again would only repeat its documents.
    async fn classify(
        &self,
        job: &Job,
        verdict: Verdict,
        response: Response,
        stop: &mut Stop,
    ) -> Result<Step, Stopping> {
        let asked = Duration::from_millis(response.retry_after.unwrap_or(0));
        let response = Arc::new(response);
        let mut waits = backoff();
        loop {
            let (method, carries) = (job.request.method(), job.request.carries().to_vec());
            let (chain, suffix, shown) = (
                self.chain.clone(),
                job.request.path_suffix().to_owned(),
                response.clone(),
            );
            let classified = self
                .queue
                .run(move || chain.sink().classify(method, &suffix, &carries, &shown));
            let classified = tokio::select! {
                classified = classified => classified,
                () = stop.abandoned() => return Err(Stopping),
            };
            let error = match classified.map(|ran| ran.result) {
                Ok(Ok(delivery)) => {
                    let ready = matches!(verdict, Verdict::Delivered | Verdict::Retry);
                    return Ok(self.by_plugin(job, delivery, asked, ready));
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            if let Some(step) = self.by_status(verdict, &response) {
                tracing::warn!(pipeline = %self.pipeline, "`classify` failed, so the host's own rule for the status holds: {error}");
                return Ok(step);
            }
            let wait = waits.next(None);
            self.problem(
                &format!("`classify` failed on an answer that it has to judge: {error}"),
                false,
                Some(wait),
            );
            if !stop.sleep(wait).await {
                return Err(Stopping);
            }
        }
    }

    /// None: delivered.
    fn by_status(&self, verdict: Verdict, response: &Response) -> Option<Step> {
        let message = format!(
            "the receiver answered {}{}",
            response.status,
            colon(&excerpt(&response.body))
        );
        let at_least = Duration::from_millis(response.retry_after.unwrap_or(0));
        match verdict {
            Verdict::Delivered => None,
            Verdict::Retry => Some(Step::Hold {
                message,
                at_least,
                ready: true,
            }),
            Verdict::NotReady => Some(Step::Hold {
                message,
                at_least,
                ready: false,
            }),
            Verdict::Refused | Verdict::TooLarge => Some(Step::Halves(message)),
        }
    }

    /// `asked`: the receiver's `Retry-After`.
    fn by_plugin(&self, job: &Job, delivery: Delivery, asked: Duration, ready: bool) -> Step {
        match delivery {
            Delivery::Delivered => Step::Done(all(&job.documents, &Fate::Delivered)),
            Delivery::Rejected(reason) => Step::Done(all(&job.documents, &Fate::Dead(reason))),
            Delivery::Split(message) => Step::Halves(message),
            Delivery::Retry { message, after } => {
                let after = Duration::from_millis(after.unwrap_or(0).into()).min(RETRY_AFTER_MAX);
                Step::Hold {
                    message,
                    at_least: after.max(asked),
                    ready,
                }
            }
            Delivery::Mixed(fates) => {
                let mut done = Vec::with_capacity(job.documents.len());
                let mut rest = Vec::new();
                for (&index, &document) in job.request.carries().iter().zip(&job.documents) {
                    match fates
                        .iter()
                        .find(|(fated, _)| *fated == index)
                        .map(|(_, fate)| fate)
                    {
                        None | Some(DocumentFate::Delivered) => {
                            done.push((document, Fate::Delivered))
                        }
                        Some(DocumentFate::Rejected(reason)) => {
                            done.push((document, Fate::Dead(reason.clone())))
                        }
                        Some(DocumentFate::Retry) => rest.push(document),
                    }
                }
                Step::Again {
                    fates: done,
                    rest,
                    at_least: asked,
                }
            }
        }
    }

    fn problem(&self, message: &str, ready: bool, wait: Option<Duration>) {
        let at = now();
        let retry_at = wait.map(|wait| at + wait.as_millis() as i64);
        match wait {
            Some(wait) => {
                tracing::warn!(pipeline = %self.pipeline, retry_in_ms = wait.as_millis() as u64, "{message}")
            }
            None => tracing::warn!(pipeline = %self.pipeline, "{message}"),
        }
        self.board.pipeline(&self.pipeline, |state| {
            // Several batches report here: what is wrong stays so until something was accepted, and
            // the earliest retry is shown.
            state.ready &= ready;
            state.last_error = Some(Problem {
                at,
                message: message.to_owned(),
            });
            let earlier = state.next_retry_at.filter(|&earlier| earlier > at);
            state.next_retry_at = earlier.into_iter().chain(retry_at).min();
        });
    }

    fn well(&self) {
        self.board
            .pipeline(&self.pipeline, |state| state.ready = true);
    }
}

/// Requests that may go side by side, each list in order.
fn lanes(
    work: &Work,
    requests: Vec<(CheckedRequest, Vec<u32>)>,
    in_session_order: bool,
) -> Vec<VecDeque<Job>> {
    let mixes = |documents: &[u32]| {
        documents
            .windows(2)
            .any(|pair| work.session(pair[0]) != work.session(pair[1]))
    };
    // Requests that mix sessions cannot go side by side.
    let one_lane = in_session_order && requests.iter().any(|(_, documents)| mixes(documents));
    let mut lanes: Vec<(String, VecDeque<Job>)> = Vec::new();
    for (request, documents) in requests {
        let session = if one_lane {
            ""
        } else {
            documents.first().map_or("", |&first| work.session(first))
        };
        let job = Job {
            request,
            documents,
            refused_at: None,
        };
        match lanes
            .iter_mut()
            .find(|(lane, _)| in_session_order && lane == session)
        {
            Some((_, lane)) => lane.push_back(job),
            None => lanes.push((session.to_owned(), VecDeque::from([job]))),
        }
    }
    lanes.into_iter().map(|(_, lane)| lane).collect()
}

fn all(documents: &[u32], fate: &Fate) -> Vec<(u32, Fate)> {
    documents
        .iter()
        .map(|&document| (document, fate.clone()))
        .collect()
}

/// The first line of an answer, for people.
fn excerpt(body: &str) -> String {
    body.trim()
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(200)
        .collect()
}

fn colon(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}
