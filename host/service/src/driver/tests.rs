//! A driver over a store, with a component and a file, that nobody lets run by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockgate_config::ProcessEnvironment;
use lockgate_lookup::Lookups;
use lockgate_model::{
    Append, BlockBuilder, Commit, CursorUpdate, Day, DayTally, DeadLetter, Entries, FeedKind, Head,
    Masks, Millis, Outcome,
};
use lockgate_runtime::Compiler;
use lockgate_store::{DeadLetters, Options, Store};

use super::*;
use crate::build::PipelineBuilder;
use crate::host::Host;
use crate::shutdown::ShutdownTrigger;

const PIPELINE: &str = "siem";
const STREAM: &str = "teleport/audit";
/// 2026-01-05.
const DAY: Millis = 1_767_571_200_000;

/// A pipeline that is about to run over one event.
struct Rig {
    _directory: tempfile::TempDir,
    store: Store,
    driver: Driver<Store>,
}

impl Rig {
    async fn new() -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        let store = Store::open(Options::new(place.join("store"))).unwrap();
        append_one(&store).await;
        let text = format!(
            "[teleport]\naddr = \"localhost:3025\"\nidentity = \"i\"\n[store]\npath = \"s\"\n\
             [pipelines.{PIPELINE}.sink]\nplugin = \"builtin:http\"\n\
             url = \"file:{}/out\"\nwith = {{ format = \"lines\" }}\n",
            place.display()
        );
        let config = lockgate_config::parse("x", &text, place, &ProcessEnvironment).unwrap();
        let memory = 1 << 30;
        let compiler = Compiler::InProcess;
        let builder = PipelineBuilder::new(place, compiler, memory, Masks::new(), None, place);
        let mut issues = config.no_issues();
        let pipeline = &config.pipelines[0];
        let built = builder.unwrap();
        let built = built.build(pipeline, false, &mut issues, |_| {}).await;
        let (_, lookups) = watch::channel(Lookups::default());
        let unfinished = UnfinishedPipelines::default().add();
        let host = Host::new(0);
        let driver = host.start(built.unwrap(), &store, &lookups, unfinished);
        let driver = driver.await.unwrap();
        Rig {
            _directory: directory,
            store,
            driver,
        }
    }
}

async fn append_one(store: &Store) {
    let mut builder = BlockBuilder::new();
    let head = Head {
        key: "a",
        event_type: "user.login",
        code: "",
        time: DAY,
        index: 0,
        session: "",
    };
    builder.push(head, "{}");
    let append = Append {
        source: "teleport".into(),
        feed: FeedKind::Audit,
        read_at: DAY,
        events: builder.take(),
        cursors: vec![CursorUpdate {
            key: "start".to_owned(),
            value: Some("1".to_owned()),
        }],
        gaps: Vec::new(),
        duplicates: 0,
    };
    store.append(append).await.unwrap();
}

/// The event becomes a dead letter.
async fn dead_letter(store: &Store) {
    let block = store.reads().block_at(STREAM, 1).unwrap().unwrap();
    let mut commit = Commit {
        pipeline: PIPELINE.into(),
        stream: STREAM.into(),
        epoch: 1,
        generation: 1,
        reasons: vec!["refused".to_owned()],
        days: vec![DayTally {
            day: Day::of(DAY),
            delivered: 0,
            dropped: 0,
            dead: 1,
        }],
        entries: Entries::Range(1..2),
        dead: vec![DeadLetter::new(
            &block,
            0,
            "sink".to_owned(),
            "refused".to_owned(),
        )],
        ..Commit::default()
    };
    commit.outcomes.push(Outcome::Dead(0));
    store.commit(commit).await.unwrap();
}

/// It waited until the next retry, or for ever.
#[tokio::test]
async fn a_letter_that_is_retried_while_the_ledger_answers_is_not_forgotten() {
    let rig = Rig::new().await;
    dead_letter(&rig.store).await;
    let (_trigger, stop) = ShutdownTrigger::new();
    let mut run = Run::start(rig.driver, Vec::new(), stop);
    // What the ledger had when the pipeline started.
    let answer = run.tasks.join_next().await.unwrap();
    let answer = finished(answer).unwrap().unwrap();
    let retried = rig.store.retry(PIPELINE, STREAM, &[1], DAY).await;
    retried.unwrap();
    run.retries.changed().await.unwrap();
    run.redrive_all();
    assert!(matches!(run.take(answer), Input::Elapsed));
    let next = run.tasks.join_next().await;
    let next = finished(next.expect("the ledger is asked again"));
    let Input::Redrive { batch, .. } = run.take(next.unwrap().unwrap()) else {
        panic!("another answer");
    };
    assert_eq!(batch.seqs().collect::<Vec<_>>(), [1]);
}

/// A commit that was still being encoded was sent after the next registration of the pipeline. The
/// next run's commit of the same entries was refused then, and ended the host.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_abandoned_leaves_nothing_under_way() {
    let rig = Rig::new().await;
    let (trigger, stop) = ShutdownTrigger::new();
    let mut run = Run::start(rig.driver, Vec::new(), stop);
    // Ends when the other one has been cancelled, and cannot be cancelled itself.
    let (cancelled, when_cancelled) = std::sync::mpsc::channel::<()>();
    let (has_begun, begun) = oneshot::channel();
    let has_ended = Arc::new(AtomicBool::new(false));
    let ended = has_ended.clone();
    run.tasks.spawn(async move {
        let _ = has_begun.send(());
        let _ = when_cancelled.recv();
        ended.store(true, Ordering::SeqCst);
        Ok(Input::Elapsed.into())
    });
    run.tasks.spawn(async move {
        let _cancelled = cancelled;
        std::future::pending().await
    });
    begun.await.unwrap();
    trigger.abandon();
    assert_eq!(run.until_end().await.unwrap(), DriverEnd::Ended);
    assert!(has_ended.load(Ordering::SeqCst), "a task goes on");
}

/// With `--exit-on-last-event` a pipeline ended as finished while its source was being read again.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_read_again_has_not_ended() {
    let head = watch::Sender::new(5);
    let ended = watch::Sender::new(true);
    let (notices, mut noticed) = mpsc::unbounded_channel();
    let stream = StreamIndex::new(0);
    let watching = watch_head(stream, head.subscribe(), ended.subscribe(), notices);
    let watching = tokio::spawn(watching);
    let mut next = async || {
        let notice = tokio::time::timeout(Duration::from_secs(60), noticed.recv());
        match notice.await {
            Ok(Some(Input::Head { next, ended, .. })) => (next, ended),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next().await, (5, true));
    ended.send_replace(false);
    assert_eq!(next().await, (5, false));
    ended.send_replace(true);
    assert_eq!(next().await, (5, true));
    // Nobody can say any more that it is read again, but what is appended counts.
    drop(ended);
    assert_eq!(next().await, (5, true));
    head.send_replace(6);
    assert_eq!(next().await, (6, true));
    drop(head);
    watching.await.unwrap();
}
