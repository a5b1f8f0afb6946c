//! The order in which pipelines start. Components are compiled one at a time, so a pipeline that
//! needs no compiling starts first, and of the others the one with the least to compile. Nobody
//! waits for a pipeline whose components take long to accept their configuration, or that has to
//! wait itself: for memory, or for the files of its endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockgate_config::{Issues, Pipeline};
use lockgate_model::Millis;
use lockgate_model::contract::CallError;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::blocking::blocking;
use crate::build::{BuiltPipeline, PipelineBuilder, Progress, Unbuilt};
use crate::clock::now;
use crate::limits::{CONFIGURE_LONG, START_INTERVAL};
use crate::reload;
use crate::status::{Board, ConditionStatus, ConditionStatusKind, PipelineState, PipelineStatus};

/// The subject of the condition of a pipeline that could not start, because of its configuration or
/// a file that it names.
pub(crate) const CONFIGURATION: &str = "configuration";

/// The subject of the condition of a pipeline that waits for certificates or keys.
const FILES: &str = "tls";
/// The subject of the condition of a pipeline whose components take long to accept their
/// configuration, or wait for those of others.
const CONFIGURE: &str = "configure";

/// The kind in the log of a start that is held.
const START: &str = "start";

/// Components that are not compiled yet: bytes by digest.
pub(crate) type Uncompiled = BTreeMap<String, u64>;

/// An attempt to build a pipeline.
struct Attempt {
    pipeline: Pipeline,
    issues: Issues,
    outcome: Result<BuiltPipeline, Unbuilt>,
    /// It could not be built before. `None`: it was the first attempt.
    held: Option<HeldStart>,
}

/// Of a pipeline that could not be built.
struct Waiting {
    held: HeldStart,
    missing: Missing,
}

/// What a pipeline waits for.
enum Missing {
    /// Memory for its components.
    Room(CallError),
    /// Certificates or keys of its endpoint: what is wrong with those that are there.
    Files(String),
}

impl Missing {
    /// `None`: another attempt would not help.
    fn of(unbuilt: Unbuilt) -> Option<Missing> {
        match unbuilt {
            Unbuilt::Reported => None,
            Unbuilt::Files(why) => Some(Missing::Files(why)),
            Unbuilt::NoRoom(why) => Some(Missing::Room(why)),
        }
    }

    fn subject(&self) -> &'static str {
        match self {
            Missing::Room(_) => "memory",
            Missing::Files(_) => FILES,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Room(why) => why.fmt(f),
            Missing::Files(why) => why.fmt(f),
        }
    }
}

/// A start that the log calls held. It gets its last line when this is dropped: also if the
/// pipeline is not to start any more.
struct HeldStart {
    pipeline: String,
    /// What it lacked at first.
    subject: &'static str,
    since: Millis,
    attempts: u32,
    /// The pipeline has what it lacked, or fails for another reason.
    is_over: bool,
}

impl Drop for HeldStart {
    fn drop(&mut self) {
        let (pipeline, kind, subject) = (&self.pipeline, START, self.subject);
        let (attempts, lasted_s) = (self.attempts, (now() - self.since).max(0) / 1000);
        if self.is_over {
            tracing::info!(%pipeline, kind, subject, lasted_s, attempts, "no longer held");
        } else {
            tracing::info!(
                %pipeline,
                kind,
                subject,
                lasted_s,
                attempts,
                "no longer held, because the pipeline does not start any more"
            );
        }
    }
}

/// The arguments of [`build_all`].
pub(crate) struct Starting {
    pub(crate) builder: Arc<PipelineBuilder>,
    pub(crate) can_look_up: bool,
    pub(crate) pipelines: Vec<Pipeline>,
    /// For problems with the configuration file: none yet.
    pub(crate) issues: Issues,
    pub(crate) show: Arc<dyn Fn(&Issues) + Send + Sync>,
    pub(crate) board: Board,
    /// Names of pipelines that are not to start any more.
    pub(crate) cancelled: mpsc::UnboundedReceiver<String>,
    pub(crate) built: mpsc::UnboundedSender<Started>,
}

/// What a pipeline that has not started yet waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartWait {
    /// Certificates or keys that cannot be used as they are.
    Files,
    /// Memory, or that its components accept their configuration, as the message says.
    Components(String),
}

/// `None`: it has started, is about to, or cannot.
pub(crate) fn waits_for(status: &PipelineStatus) -> Option<StartWait> {
    let mut conditions = status.conditions.iter();
    let condition = conditions.find(|condition| condition.kind == ConditionStatusKind::Start)?;
    match condition.subject.as_str() {
        CONFIGURATION => None,
        FILES => Some(StartWait::Files),
        _ => Some(StartWait::Components(condition.message.clone())),
    }
}

/// A pipeline that can start, or the name of one that cannot.
pub(crate) type Started = Result<Box<BuiltPipeline>, String>;

/// Compiles pipelines one after the other, configures each once it is compiled, and hands it over.
pub(crate) async fn build_all(starting: Starting) {
    let Starting {
        builder,
        can_look_up,
        pipelines,
        issues,
        show,
        board,
        mut cancelled,
        built,
    } = starting;
    let for_queue = builder.clone();
    let uncompiled = blocking(move || {
        let pipelines = pipelines.into_iter();
        let uncompiled = pipelines.map(|pipeline| {
            let uncompiled = for_queue.uncompiled(&pipeline);
            (pipeline, uncompiled)
        });
        uncompiled.collect()
    });
    let mut queue = StartQueue::new(uncompiled.await);
    for (pipeline, bytes) in queue.waiting() {
        let state = if bytes > 0 {
            PipelineState::Compiling
        } else {
            PipelineState::Starting
        };
        board.pipeline(&pipeline.name, |status| status.state = state);
        if bytes > 0 {
            tracing::info!(
                pipeline = pipeline.name,
                bytes,
                "compiling: this pipeline starts once its components are compiled"
            );
        }
    }
    let mut attempts = JoinSet::new();
    let mut running: BTreeMap<String, AbortHandle> = BTreeMap::new();
    let (next_may_compile, mut may_compile) = mpsc::unbounded_channel();
    let begin = |attempts: &mut JoinSet<Attempt>, pipeline: Pipeline, waiting: Option<Waiting>| {
        attempts.spawn(attempt(
            builder.clone(),
            can_look_up,
            pipeline,
            issues.clone(),
            board.clone(),
            // An attempt that is cancelled sends it, too.
            MayCompile(waiting.is_none().then(|| next_may_compile.clone())),
            waiting,
        ))
    };
    let _ = next_may_compile.send(());
    loop {
        let ended = tokio::select! {
            // First: an attempt says that it is compiled before it ends.
            biased;
            Some(()) = may_compile.recv() => {
                if let Some(pipeline) = queue.next() {
                    let name = pipeline.name.clone();
                    running.insert(name, begin(&mut attempts, pipeline, None));
                }
                continue;
            }
            Some(name) = cancelled.recv() => {
                queue.remove(|pipeline| pipeline.name == name);
                if let Some(attempt) = running.remove(&name) {
                    attempt.abort();
                }
                continue;
            }
            ended = attempts.join_next() => ended,
        };
        let attempt = match ended {
            None => return,
            Some(Ok(attempt)) => attempt,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // It was cancelled.
            Some(Err(_)) => continue,
        };
        let name = attempt.pipeline.name.clone();
        // It ended while it was being cancelled.
        if running.remove(&name).is_none() {
            continue;
        }
        let outcome = match attempt_ended(attempt, &*show, &board) {
            Ended::Finished(outcome) => outcome,
            Ended::Held(pipeline, waiting) => {
                let again = begin(&mut attempts, *pipeline, Some(waiting));
                running.insert(name, again);
                continue;
            }
        };
        if built.send(outcome).is_err() {
            return;
        }
    }
}

/// What an attempt has led to.
enum Ended {
    Finished(Started),
    /// Another attempt follows.
    Held(Box<Pipeline>, Waiting),
}

/// Shows how an attempt has ended.
fn attempt_ended(attempt: Attempt, show: &dyn Fn(&Issues), board: &Board) -> Ended {
    let Attempt {
        pipeline,
        issues,
        outcome,
        held,
    } = attempt;
    let name = pipeline.name.clone();
    let missing = match outcome.map_err(Missing::of) {
        Ok(built) => {
            end_hold(held);
            return Ended::Finished(Ok(Box::new(built)));
        }
        Err(None) => {
            end_hold(held);
            show_issues(&name, show, &issues);
            show_failure(&name, &issues, board);
            return Ended::Finished(Err(name));
        }
        Err(Some(missing)) => missing,
    };
    let is_new = held.as_ref().is_none_or(|held| held.attempts == 0);
    if is_new && matches!(missing, Missing::Files(_)) {
        show_issues(&name, show, &issues);
    }
    let mut held = held.unwrap_or_else(|| HeldStart {
        pipeline: name.clone(),
        subject: missing.subject(),
        since: now(),
        attempts: 0,
        is_over: false,
    });
    held.attempts += 1;
    show_waiting(&held, &missing, board);
    if is_new {
        let (kind, subject) = (START, held.subject);
        tracing::warn!(
            pipeline = name,
            kind,
            subject,
            "held: it cannot start yet: {missing}; trying again"
        );
    }
    Ended::Held(Box::new(pipeline), Waiting { held, missing })
}

/// Lets the next pipeline compile, at the latest when it is dropped.
struct MayCompile(Option<mpsc::UnboundedSender<()>>);

impl MayCompile {
    fn say(&mut self) {
        if let Some(next) = self.0.take() {
            let _ = next.send(());
        }
    }
}

impl Drop for MayCompile {
    fn drop(&mut self) {
        self.say();
    }
}

/// The first attempt of a pipeline says when the next pipeline may compile.
async fn attempt(
    builder: Arc<PipelineBuilder>,
    can_look_up: bool,
    pipeline: Pipeline,
    mut issues: Issues,
    board: Board,
    mut next_may_compile: MayCompile,
    waiting: Option<Waiting>,
) -> Attempt {
    // Until it has been built, or not.
    let mut room = None;
    if let Some(waiting) = &waiting {
        match &waiting.missing {
            Missing::Room(CallError::NoRoom(shortage)) => {
                let found = timeout(START_INTERVAL, builder.room_for(shortage.clone()));
                room = found.await.ok();
            }
            Missing::Room(_) => sleep(START_INTERVAL).await,
            Missing::Files(_) => wait_for_files(&builder, &pipeline, waiting, &board).await,
        }
    }
    let mut held = waiting.map(|waiting| waiting.held);
    // Since when its components are configured, and which of them is now.
    let configures: Mutex<Option<(Instant, String)>> = Mutex::default();
    let progress = |progress: Progress<'_>| match progress {
        Progress::Compiled => {
            board.pipeline(&pipeline.name, |status| {
                status.state = PipelineState::Starting;
            });
            next_may_compile.say();
        }
        Progress::Configures(label) => {
            let mut configures = lock(&configures);
            let (_, now) = configures.get_or_insert_with(|| (Instant::now(), String::new()));
            label.clone_into(now);
        }
    };
    let outcome = {
        let mut building = pin!(builder.build(&pipeline, can_look_up, &mut issues, progress));
        loop {
            if let Ok(outcome) = timeout(CONFIGURE_LONG, building.as_mut()).await {
                break outcome;
            }
            let now = lock(&configures).clone();
            if let Some((since, label)) = now.filter(|(since, _)| since.elapsed() >= CONFIGURE_LONG)
            {
                let of = &pipeline.name;
                held = Some(configures_long(held, of, &label, since.elapsed(), &board));
            }
        }
    };
    drop(room);
    Attempt {
        pipeline,
        issues,
        outcome,
        held,
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says in a condition which component is being configured.
fn configures_long(
    held: Option<HeldStart>,
    pipeline: &str,
    label: &str,
    lasted: Duration,
    board: &Board,
) -> HeldStart {
    let message = format!(
        "it has not started yet: after {} s, {label} is still being configured. It takes long \
         itself, or waits for components of other pipelines that do",
        lasted.as_secs()
    );
    let held = held.unwrap_or_else(|| {
        let (kind, subject) = (START, CONFIGURE);
        tracing::warn!(pipeline, kind, subject, "held: {message}");
        HeldStart {
            pipeline: pipeline.to_owned(),
            subject,
            since: now(),
            attempts: 0,
            is_over: false,
        }
    });
    board.pipeline(pipeline, |status| {
        status.conditions = vec![condition(CONFIGURE, message, held.since, None)];
    });
    held
}

/// Waits until the files of the pipeline's endpoint can be used. Its components are left alone.
async fn wait_for_files(
    builder: &Arc<PipelineBuilder>,
    pipeline: &Pipeline,
    waiting: &Waiting,
    board: &Board,
) {
    loop {
        sleep(START_INTERVAL).await;
        let (builder, of) = (builder.clone(), pipeline.clone());
        let Some(why) = blocking(move || builder.unusable_files(&of)).await else {
            return;
        };
        show_waiting(&waiting.held, &Missing::Files(why), board);
    }
}

/// What is shown belongs to this pipeline, also what is wrong outside its tables.
fn show_issues(pipeline: &str, show: &dyn Fn(&Issues), issues: &Issues) {
    tracing::error_span!("start", pipeline).in_scope(|| show(issues));
}

fn show_failure(pipeline: &str, issues: &Issues, board: &Board) {
    let message = not_started(issues);
    tracing::error!(pipeline, "this pipeline does not start: {message}");
    board.pipeline(pipeline, |status| {
        status.state = PipelineState::Failed;
        status.conditions = vec![condition(CONFIGURATION, message, now(), None)];
    });
}

/// Lets the log say that a start is no longer held.
fn end_hold(held: Option<HeldStart>) {
    if let Some(mut held) = held {
        held.is_over = true;
    }
}

/// What was wrong when it was tried: it may have been solved since.
fn not_started(issues: &Issues) -> String {
    let mut problems = reload::problems(issues);
    let first = problems.next().unwrap_or_default();
    let more = match problems.count() {
        0 => String::new(),
        1 => " (and 1 more problem)".to_owned(),
        count => format!(" (and {count} more problems)"),
    };
    let first = first.trim_end_matches('.');
    format!("it could not start: {first}{more}; once that is solved, `lockgate reload` tries again")
}

fn show_waiting(held: &HeldStart, missing: &Missing, board: &Board) {
    let (pipeline, since, subject) = (&held.pipeline, held.since, missing.subject());
    let message = format!("it cannot start yet: {missing}");
    let next = now() + START_INTERVAL.as_millis() as Millis;
    board.pipeline(pipeline, |status| {
        status.state = PipelineState::Starting;
        status.conditions = vec![condition(subject, message, since, Some(next))];
    });
}

fn condition(
    subject: &str,
    message: String,
    since: Millis,
    next_attempt: Option<Millis>,
) -> ConditionStatus {
    ConditionStatus {
        kind: ConditionStatusKind::Start,
        subject: subject.into(),
        message,
        since,
        next_attempt,
        asked_by: None,
        not_ready_from: Some(since),
        stops: false,
    }
}

/// Pipelines that have not started yet, in the order of the configuration.
struct StartQueue<P> {
    waiting: Vec<(P, Uncompiled)>,
    /// Components that pipelines before had compiled.
    compiled: BTreeSet<String>,
}

impl<P> StartQueue<P> {
    fn new(waiting: Vec<(P, Uncompiled)>) -> StartQueue<P> {
        StartQueue {
            waiting,
            compiled: BTreeSet::new(),
        }
    }

    /// Each pipeline, and how many bytes must be compiled for it.
    fn waiting(&self) -> impl Iterator<Item = (&P, u64)> {
        let bytes = |uncompiled| bytes_to_compile(uncompiled, &self.compiled);
        self.waiting
            .iter()
            .map(move |(pipeline, uncompiled)| (pipeline, bytes(uncompiled)))
    }

    fn remove(&mut self, which: impl Fn(&P) -> bool) {
        self.waiting.retain(|(pipeline, _)| !which(pipeline));
    }

    /// The pipeline with the least to compile; among several, the first of the configuration.
    fn next(&mut self) -> Option<P> {
        let bytes = self.waiting().map(|(_, bytes)| bytes).enumerate();
        let (index, _) = bytes.min_by_key(|&(_, bytes)| bytes)?;
        let (pipeline, uncompiled) = self.waiting.remove(index);
        self.compiled.extend(uncompiled.into_keys());
        Some(pipeline)
    }
}

fn bytes_to_compile(uncompiled: &Uncompiled, compiled: &BTreeSet<String>) -> u64 {
    let left = uncompiled
        .iter()
        .filter(|(digest, _)| !compiled.contains(*digest));
    left.map(|(_, bytes)| bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts pipelines with these components to compile, such as `a=5`.
    fn order(pipelines: &[(&'static str, &[(&str, u64)])]) -> Vec<&'static str> {
        let uncompiled = |components: &[(&str, u64)]| {
            let named = components.iter();
            named
                .map(|&(name, bytes)| (name.to_owned(), bytes))
                .collect()
        };
        let waiting = pipelines.iter();
        let mut queue = StartQueue::new(
            waiting
                .map(|&(name, components)| (name, uncompiled(components)))
                .collect(),
        );
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn a_pipeline_waits_only_for_those_with_less_to_compile() {
        assert_eq!(
            order(&[
                ("huge", &[("a", 50_000)]),
                ("small", &[("b", 300)]),
                ("none", &[]),
                ("two-small", &[("b", 300), ("c", 200)]),
                ("none-either", &[]),
            ]),
            ["none", "none-either", "small", "two-small", "huge"]
        );
    }

    /// A reload called it unchanged, and the file in force.
    #[test]
    fn a_pipeline_that_waits_to_start_is_known_by_its_condition() {
        let status = |subject| PipelineStatus {
            conditions: vec![condition(subject, "no room".to_owned(), 0, None)],
            ..PipelineStatus::default()
        };
        let waits = |subject| waits_for(&status(subject));
        assert_eq!(waits_for(&PipelineStatus::default()), None);
        assert_eq!(waits(CONFIGURATION), None);
        assert_eq!(waits("tls"), Some(StartWait::Files));
        let room = StartWait::Components("no room".to_owned());
        assert_eq!(waits("memory"), Some(room));
    }

    #[test]
    fn what_another_pipeline_had_compiled_no_longer_counts() {
        assert_eq!(
            order(&[
                ("shared-and-more", &[("a", 500), ("b", 300)]),
                ("other", &[("c", 600)]),
                ("shared", &[("a", 500)]),
            ]),
            ["shared", "shared-and-more", "other"]
        );
    }
}
