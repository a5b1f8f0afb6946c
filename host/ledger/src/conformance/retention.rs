//! Retention: the blocks that it may remove, and those that it must keep.

use std::collections::BTreeMap;

use lockgate_model::Seq;

use super::Subject;
use super::support::*;
use crate::Ledger;

/// Bytes of a stream. A block below has 25 kB, or 15 if it is compressed.
const LIMIT: u64 = 60_000;
const EVENTS: u64 = 50;

fn reading<const N: usize>(pipelines: [(&str, &str); N]) -> BTreeMap<String, Vec<String>> {
    let pipelines = pipelines.into_iter();
    let reads = |(name, stream): (&str, &str)| (name.to_owned(), vec![stream.to_owned()]);
    pipelines.map(reads).collect()
}

/// Appends until one has to wait; answers how many blocks are in, and finishes the one that waits
/// while `free` makes room.
async fn fill<L: Ledger>(ledger: &L, free: impl AsyncFnOnce(&L)) -> u64 {
    let mut full = ledger.retention_full(AUDIT);
    for nth in 0.. {
        let mut append = std::pin::pin!(ledger.append(events(nth * EVENTS + 1, EVENTS, 500)));
        tokio::select! {
            appended = &mut append => drop(appended.unwrap()),
            // Not its answer, which would keep the channel locked.
            () = async { drop(full.wait_for(|full| *full).await) } => {
                free(ledger).await;
                append.await.unwrap();
                return nth;
            }
        }
        assert!(nth < 20, "it never gets full");
    }
    0
}

async fn oldest<L: Ledger>(ledger: &L) -> Seq {
    let head = *ledger.head(AUDIT).borrow();
    for seq in 1..head {
        if ledger.block_at(AUDIT, seq).await.unwrap().is_some() {
            return seq;
        }
    }
    head
}

pub async fn retention_waits_for_configured_pipelines<S: Subject>() {
    let mut subject = S::new(Some(LIMIT));
    let ledger = subject.open();
    register(&ledger, SIEM).await;
    register(&ledger, "slow").await;
    let both = reading([(SIEM, AUDIT), ("slow", AUDIT)]);
    ledger.keep_only(&both).await.unwrap();
    let blocks = fill(&ledger, async |ledger: &S::Ledger| {
        for pipeline in [SIEM, "slow"] {
            assert_eq!(oldest(ledger).await, 1, "{pipeline} needs it");
            let commit = commit(ledger, pipeline, 1..EVENTS + 1, delivered).await;
            ledger.commit(commit).await.unwrap();
        }
    })
    .await;
    assert!(blocks >= 2);
    assert_eq!(oldest(&ledger).await, EVENTS + 1);
    assert!(!*ledger.retention_full(AUDIT).borrow());
    subject.end(ledger).await;
    let ledger = subject.open();
    // One that reads the stream for the first time begins where it begins now.
    let late = register(&ledger, "late").await;
    assert_eq!(late.streams[0].begin, EVENTS + 1);
    let waiting = blocks * EVENTS;
    assert_eq!(
        subject.books(&ledger, "late", AUDIT),
        figures(waiting, 0, 0, 0, waiting)
    );
    let read = waiting + EVENTS;
    assert_eq!(
        subject.books(&ledger, SIEM, AUDIT),
        figures(read, EVENTS, 0, 0, waiting)
    );
}

pub async fn what_retention_takes_from_an_old_pipeline_is_dropped<S: Subject>() {
    let mut subject = S::new(Some(LIMIT));
    let ledger = subject.open();
    register(&ledger, SIEM).await;
    let blocks = fill(&ledger, async |ledger: &S::Ledger| {
        ledger.keep_only(&BTreeMap::new()).await.unwrap();
    })
    .await;
    let begin = oldest(&ledger).await;
    assert!(begin > 1);
    let read = (blocks + 1) * EVENTS;
    let dropped = begin - 1;
    let expected = figures(read, 0, dropped, 0, read - dropped);
    assert_eq!(subject.books(&ledger, SIEM, AUDIT), expected);
    assert_eq!(register(&ledger, SIEM).await.streams[0].watermark, begin);
}

pub async fn a_pipeline_that_never_ran_holds_every_event<S: Subject>() {
    let mut subject = S::new(Some(LIMIT));
    let ledger = subject.open();
    let broken = reading([("broken", AUDIT)]);
    ledger.keep_only(&broken).await.unwrap();
    subject.end(ledger).await;
    // Also from the first moment after a start, before it is said again.
    let ledger = subject.open();
    let blocks = fill(&ledger, async |ledger: &S::Ledger| {
        assert_eq!(oldest(ledger).await, 1);
        let now = register(ledger, "broken").await;
        assert_eq!(now.streams[0].begin, 1);
        let commit = commit(ledger, "broken", 1..EVENTS + 1, delivered).await;
        ledger.commit(commit).await.unwrap();
    })
    .await;
    assert!(blocks >= 2);
    assert_eq!(oldest(&ledger).await, EVENTS + 1);
}

/// Reading of one source must not wait for a pipeline of another.
pub async fn a_pipeline_that_never_ran_holds_nothing_of_streams_that_it_does_not_read<
    S: Subject,
>() {
    let mut subject = S::new(Some(LIMIT));
    let ledger = subject.open();
    let recordings = reading([("broken", "teleport/sessions")]);
    ledger.keep_only(&recordings).await.unwrap();
    for nth in 0..10 {
        let append = events(nth * EVENTS + 1, EVENTS, 500);
        ledger.append(append).await.unwrap();
    }
    assert!(oldest(&ledger).await > 1);
    subject.end(ledger).await;
}

/// It has run, and its next configuration, which cannot be started yet, names one more stream.
pub async fn a_stream_that_a_pipeline_is_about_to_read_is_held<S: Subject>() {
    let mut subject = S::new(Some(LIMIT));
    let ledger = subject.open();
    let recordings = ["teleport/sessions".to_owned()];
    let generation = generation(SIEM, "{}");
    ledger
        .register(generation.clone(), &recordings, DAY)
        .await
        .unwrap();
    let both = BTreeMap::from([(
        SIEM.to_owned(),
        vec!["teleport/sessions".to_owned(), AUDIT.to_owned()],
    )]);
    ledger.keep_only(&both).await.unwrap();
    fill(&ledger, async |ledger: &S::Ledger| {
        assert_eq!(oldest(ledger).await, 1);
        let now = ledger.register(generation.clone(), &both[SIEM], DAY).await;
        assert_eq!(now.unwrap().streams[1].begin, 1);
        let commit = commit(ledger, SIEM, 1..EVENTS + 1, delivered).await;
        ledger.commit(commit).await.unwrap();
    })
    .await;
    assert_eq!(oldest(&ledger).await, EVENTS + 1);
    subject.end(ledger).await;
}
