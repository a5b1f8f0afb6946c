//! Dead letters: listed, retried, redriven, dropped. The books balance after every step.

use std::collections::BTreeMap;

use lockgate_model::{Commit, DeadLetter, Outcome, Seq, StateWrite};

use super::Subject;
use super::support::*;
use crate::{DeadLetters, Ledger, LedgerError, LetterCounts, LetterQuery};

pub async fn dead_letters_are_listed_newest_first_and_filtered<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 20).await;
    for pipeline in [SIEM, "archive"] {
        register(&ledger, pipeline).await;
        for range in [11..16, 1..6] {
            let commit = commit(&ledger, pipeline, range, dead).await;
            ledger.commit(commit).await.unwrap();
        }
    }
    let list = async |query: LetterQuery| {
        let found = ledger.dead_letters(&query).await.unwrap();
        found
            .iter()
            .map(|kept| kept.letter.seq)
            .collect::<Vec<Seq>>()
    };
    let siem = || LetterQuery {
        pipeline: Some(SIEM.to_owned()),
        ..all()
    };
    assert_eq!(list(siem()).await, [5, 4, 3, 2, 1, 15, 14, 13, 12, 11]);
    assert_eq!(list(all()).await.len(), 20);
    assert_eq!(list(LetterQuery { limit: 0, ..all() }).await, []);
    let event_type = Some("user.login".to_owned());
    assert_eq!(
        list(LetterQuery {
            event_type,
            ..siem()
        })
        .await,
        [4, 2, 14, 12]
    );
    let stream = Some("teleport/sessions".to_owned());
    assert_eq!(list(LetterQuery { stream, ..siem() }).await, []);
    for (part, count) in [("sink (x)", 10), ("refus", 10), ("stage", 0)] {
        let cause = Some(part.to_owned());
        assert_eq!(
            list(LetterQuery { cause, ..siem() }).await.len(),
            count,
            "{part}"
        );
    }
    // The first range died at DAY + 11, the second at DAY + 1.
    let since = Some(DAY + 11);
    assert_eq!(
        list(LetterQuery { since, ..siem() }).await,
        [15, 14, 13, 12, 11]
    );
    let until = Some(DAY + 11);
    assert_eq!(list(LetterQuery { until, ..siem() }).await, [5, 4, 3, 2, 1]);

    let mut pages = Vec::new();
    let mut page = LetterQuery { limit: 4, ..siem() };
    loop {
        let found = ledger.dead_letters(&page).await.unwrap();
        let Some(last) = found.last() else { break };
        page.before = Some(last.id);
        pages.extend(found.iter().map(|kept| kept.letter.seq));
    }
    assert_eq!(pages, [5, 4, 3, 2, 1, 15, 14, 13, 12, 11]);

    // With its event, as it was read.
    let block = ledger.block_at(AUDIT, 12).await.unwrap().unwrap();
    let kept = ledger.dead_letter(SIEM, AUDIT, 12).await.unwrap().unwrap();
    let expected = DeadLetter::new(&block, 11, "sink (x)".to_owned(), "refused".to_owned());
    assert_eq!(kept.letter, expected);
    assert_eq!((kept.epoch, kept.generation, kept.at), (1, 1, DAY + 11));
    assert_eq!(
        (kept.pipeline.as_str(), kept.stream.as_str()),
        (SIEM, AUDIT)
    );
    assert_eq!(ledger.dead_letter(SIEM, AUDIT, 6).await.unwrap(), None);
    assert_eq!(ledger.dead_letter("none", AUDIT, 12).await.unwrap(), None);
}

pub async fn a_retried_letter_waits_until_its_redrive_is_committed<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 20).await;
    register(&ledger, SIEM).await;
    let fate = |seq| if seq > 5 { dead(seq) } else { delivered(seq) };
    ledger
        .commit(commit(&ledger, SIEM, 1..11, fate).await)
        .await
        .unwrap();
    let books = |ledger: &S::Ledger| subject.books(ledger, SIEM, AUDIT);
    assert_eq!(books(&ledger), figures(20, 5, 0, 5, 10));
    assert!(
        ledger
            .redrive(SIEM, AUDIT, 9, 9999)
            .await
            .unwrap()
            .is_none()
    );

    let seqs = [6, 7, 9, 10];
    ledger.retry(SIEM, AUDIT, &seqs, DAY).await.unwrap();
    assert_eq!(books(&ledger), figures(20, 5, 0, 1, 14));
    assert_eq!(ledger.dead_letters(&all()).await.unwrap().len(), 1);
    assert_eq!(ledger.dead_letter(SIEM, AUDIT, 6).await.unwrap(), None);
    // It waits already.
    is_conflict(ledger.retry(SIEM, AUDIT, &[6], DAY).await);
    // An entry that waits again is not part of any range.
    is_conflict(
        ledger
            .commit(commit(&ledger, SIEM, 6..8, delivered).await)
            .await,
    );

    subject.end(ledger).await;
    let ledger = subject.open();
    let books = |ledger: &S::Ledger| subject.books(ledger, SIEM, AUDIT);
    register(&ledger, SIEM).await;
    assert_eq!(books(&ledger), figures(20, 5, 0, 1, 14));
    let redrive = ledger.redrive(SIEM, AUDIT, 9, 9999).await.unwrap().unwrap();
    assert_eq!(redrive.batch.seqs().collect::<Vec<_>>(), seqs);
    assert_eq!(
        (&*redrive.pipeline, &*redrive.stream, redrive.epoch),
        (SIEM, AUDIT, 1)
    );
    let original = ledger.block_at(AUDIT, 1).await.unwrap().unwrap();
    for ((block, row), seq) in redrive.batch.rows().zip(seqs) {
        let at = seq as usize - 1;
        assert_eq!(block.view(row), original.view(at));
        assert_eq!(block.raw(row), original.raw(at));
        assert_eq!(
            (block.session(row), block.read_at),
            (original.session(at), DAY + 1)
        );
    }

    let fate = |seq| match seq {
        6 => Outcome::Delivered,
        7 => Outcome::Dropped(1),
        _ => Outcome::Dead(0),
    };
    let commit_again = Commit {
        brake: "after a redrive".to_owned(),
        state: vec![StateWrite {
            owner: "counter".into(),
            key: "n".to_owned(),
            value: Some("1".to_owned()),
        }],
        ..redriven(&redrive, fate)
    };
    let beyond = redriven(&redrive, delivered);
    let committed = ledger.commit(commit_again.clone()).await.unwrap();
    assert_eq!(books(&ledger), figures(20, 6, 1, 3, 10));
    is_conflict(ledger.commit(commit_again).await);
    is_conflict(ledger.commit(beyond).await);
    let letters = ledger.dead_letters(&all()).await.unwrap();
    let order: Vec<Seq> = letters.iter().map(|kept| kept.letter.seq).collect();
    assert_eq!(order, [10, 9, 8], "what died again died last");
    let bytes: usize = letters.iter().map(|kept| kept.letter.payload.len()).sum();
    assert_eq!(committed.dead_bytes, bytes as u64);

    subject.end(ledger).await;
    let ledger = subject.open();
    let again = register(&ledger, SIEM).await;
    assert_eq!(again.brake, "after a redrive");
    assert_eq!(again.state["counter"]["n"], "1");
    assert_eq!(again.dead_bytes, bytes as u64);
    // A letter that died again can be sent back again.
    ledger.retry(SIEM, AUDIT, &[9], DAY).await.unwrap();
    let redrive = ledger.redrive(SIEM, AUDIT, 9, 9999).await.unwrap().unwrap();
    ledger.commit(redriven(&redrive, delivered)).await.unwrap();
    ledger
        .commit(commit(&ledger, SIEM, 11..21, delivered).await)
        .await
        .unwrap();
    assert_eq!(
        subject.books(&ledger, SIEM, AUDIT),
        figures(20, 17, 1, 2, 0)
    );
}

pub async fn a_redrive_takes_some_entries_at_a_time<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    register(&ledger, SIEM).await;
    ledger
        .commit(commit(&ledger, SIEM, 1..9, dead).await)
        .await
        .unwrap();
    for seqs in [&[5, 7][..], &[2, 8]] {
        ledger.retry(SIEM, AUDIT, seqs, DAY).await.unwrap();
    }
    let take = async |events, bytes| {
        let redrive = ledger.redrive(SIEM, AUDIT, events, bytes).await.unwrap();
        redrive.map(|redrive| redrive.batch.seqs().collect::<Vec<Seq>>())
    };
    assert_eq!(take(3, 9999).await, Some(vec![2, 5, 7]));
    assert_eq!(take(9, 1).await, Some(vec![2]), "at least one");
    assert_eq!(take(0, 0).await, Some(vec![2]));
    let redrive = ledger.redrive(SIEM, AUDIT, 2, 9999).await.unwrap().unwrap();
    ledger.commit(redriven(&redrive, delivered)).await.unwrap();
    assert_eq!(take(9, 9999).await, Some(vec![7, 8]));
    assert_eq!(subject.books(&ledger, SIEM, AUDIT), figures(10, 2, 0, 4, 4));
}

/// A pipeline that counted waiting entries missed a retry that shared its transaction with a
/// redrive of as many.
pub async fn every_retry_is_announced_and_nothing_else<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    register(&ledger, SIEM).await;
    let mut retries = ledger.retries(SIEM);
    let dead = commit(&ledger, SIEM, 1..9, dead).await;
    ledger.commit(dead).await.unwrap();
    assert!(!retries.has_changed().unwrap());
    let mut before = *retries.borrow_and_update();
    for seqs in [&[5, 7][..], &[2]] {
        ledger.retry(SIEM, AUDIT, seqs, DAY).await.unwrap();
        assert!(retries.has_changed().unwrap());
        let now = *retries.borrow_and_update();
        assert!(now > before, "{now} after {before}");
        before = now;
    }
    is_conflict(ledger.retry(SIEM, AUDIT, &[2], DAY).await);
    let redrive = ledger.redrive(SIEM, AUDIT, 9, 9999).await.unwrap().unwrap();
    ledger.commit(redriven(&redrive, delivered)).await.unwrap();
    ledger.drop_letters(SIEM, AUDIT, &[3], DAY).await.unwrap();
    assert!(!retries.has_changed().unwrap());
    assert_eq!(*retries.borrow(), before);
    register(&ledger, "archive").await;
    let commit = commit(&ledger, "archive", 1..2, self::dead).await;
    ledger.commit(commit).await.unwrap();
    ledger.retry("archive", AUDIT, &[1], DAY).await.unwrap();
    assert!(!retries.has_changed().unwrap(), "of one pipeline only");
}

pub async fn a_dropped_letter_stays_on_the_books<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    register(&ledger, SIEM).await;
    ledger
        .commit(commit(&ledger, SIEM, 1..6, dead).await)
        .await
        .unwrap();
    ledger
        .drop_letters(SIEM, AUDIT, &[2, 4], DAY)
        .await
        .unwrap();
    assert_eq!(subject.books(&ledger, SIEM, AUDIT), figures(10, 0, 2, 3, 5));
    is_conflict(ledger.drop_letters(SIEM, AUDIT, &[2], DAY).await);
    is_conflict(ledger.retry(SIEM, AUDIT, &[4], DAY).await);
    subject.end(ledger).await;
    let ledger = subject.open();
    assert_eq!(subject.books(&ledger, SIEM, AUDIT), figures(10, 0, 2, 3, 5));
    assert_eq!(ledger.dead_letters(&all()).await.unwrap().len(), 3);
    assert_eq!(ledger.dead_letter(SIEM, AUDIT, 2).await.unwrap(), None);
}

pub async fn only_dead_letters_are_taken_back_and_all_or_none<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    register(&ledger, SIEM).await;
    let fate = |seq| if seq == 3 { delivered(seq) } else { dead(seq) };
    ledger
        .commit(commit(&ledger, SIEM, 1..6, fate).await)
        .await
        .unwrap();
    // Delivered, waiting, never read.
    for other in [3, 7, 99] {
        let seqs = [1, 2, other];
        is_conflict(ledger.retry(SIEM, AUDIT, &seqs, DAY).await);
        is_conflict(ledger.drop_letters(SIEM, AUDIT, &seqs, DAY).await);
    }
    let many: Vec<Seq> = (1..=4097).collect();
    for seqs in [&[][..], &[2, 1], &[1, 1], &[0], &many] {
        is_invalid(ledger.retry(SIEM, AUDIT, seqs, DAY).await);
        is_invalid(ledger.drop_letters(SIEM, AUDIT, seqs, DAY).await);
    }
    for (pipeline, stream) in [("none", AUDIT), (SIEM, "teleport/sessions")] {
        let refused = ledger.retry(pipeline, stream, &[1], DAY).await;
        assert!(
            matches!(refused, Err(LedgerError::Unknown(_))),
            "{refused:?}"
        );
    }
    assert_eq!(subject.books(&ledger, SIEM, AUDIT), figures(10, 1, 0, 4, 5));
    assert_eq!(ledger.dead_letters(&all()).await.unwrap().len(), 4);
}

pub async fn letters_of_a_stream_that_is_not_read_any_more_are_not_retried<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    register(&ledger, SIEM).await;
    let letters = commit(&ledger, SIEM, 1..6, dead).await;
    ledger.commit(letters).await.unwrap();
    // The pipeline is configured to read another stream.
    let other = ["teleport/sessions".to_owned()];
    let generation = generation(SIEM, "{}");
    ledger.register(generation, &other, DAY).await.unwrap();
    is_refused(&subject, &ledger).await;
    register(&ledger, SIEM).await;
    ledger.retry(SIEM, AUDIT, &[5], DAY).await.unwrap();
    let redrive = ledger.redrive(SIEM, AUDIT, 9, 9999).await.unwrap().unwrap();
    ledger.commit(redriven(&redrive, dead)).await.unwrap();
    // The pipeline is not configured.
    let archive = BTreeMap::from([("archive".to_owned(), vec![AUDIT.to_owned()])]);
    ledger.keep_only(&archive).await.unwrap();
    is_refused(&subject, &ledger).await;
    subject.end(ledger).await;
    let ledger = subject.open();
    is_refused(&subject, &ledger).await;
    ledger.drop_letters(SIEM, AUDIT, &[2], DAY).await.unwrap();
    register(&ledger, SIEM).await;
    ledger.retry(SIEM, AUDIT, &[1], DAY).await.unwrap();
    assert_eq!(subject.books(&ledger, SIEM, AUDIT), figures(10, 0, 1, 3, 6));
}

async fn is_refused<S: Subject>(subject: &S, ledger: &S::Ledger) {
    let refused = ledger.retry(SIEM, AUDIT, &[1], DAY).await;
    assert!(
        matches!(refused, Err(LedgerError::NotRead { .. })),
        "{refused:?}"
    );
    assert_eq!(subject.books(ledger, SIEM, AUDIT), figures(10, 0, 0, 5, 5));
}

pub async fn bytes_of_dead_letters_are_counted<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    register(&ledger, SIEM).await;
    let size = |commit: &Commit| -> u64 {
        commit
            .dead
            .iter()
            .map(|letter| letter.payload.len() as u64)
            .sum()
    };
    let first = commit(&ledger, SIEM, 1..6, dead).await;
    let total = size(&first);
    assert_eq!(ledger.commit(first).await.unwrap().dead_bytes, total);
    // Waiting again they are still kept.
    ledger.retry(SIEM, AUDIT, &[1, 2, 3], DAY).await.unwrap();
    assert_eq!(register(&ledger, SIEM).await.dead_bytes, total);
    ledger
        .drop_letters(SIEM, AUDIT, &[4, 5], DAY)
        .await
        .unwrap();
    subject.end(ledger).await;
    let ledger = subject.open();
    let left = register(&ledger, SIEM).await.dead_bytes;
    assert!(0 < left && left < total);
    let redrive = ledger.redrive(SIEM, AUDIT, 9, 9999).await.unwrap().unwrap();
    let again = redriven(
        &redrive,
        |seq| if seq == 1 { dead(seq) } else { delivered(seq) },
    );
    let kept = size(&again);
    assert_eq!(ledger.commit(again).await.unwrap().dead_bytes, kept);
    let other = register(&ledger, "archive").await;
    assert_eq!(other.dead_bytes, 0, "of one pipeline only");
}

pub async fn old_letters_expire_and_their_entries_stay_dead<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 20).await;
    register(&ledger, SIEM).await;
    register(&ledger, "archive").await;
    // These died at DAY + 11, those below at DAY + 1.
    for range in [11..16, 1..6] {
        for pipeline in [SIEM, "archive"] {
            let commit = commit(&ledger, pipeline, range.clone(), dead).await;
            ledger.commit(commit).await.unwrap();
        }
    }
    ledger.retry(SIEM, AUDIT, &[2], DAY).await.unwrap();
    ledger.drop_letters(SIEM, AUDIT, &[3], DAY).await.unwrap();
    let before = figures(20, 0, 1, 8, 11);
    assert_eq!(subject.books(&ledger, SIEM, AUDIT), before);
    let mut bytes = ledger.dead_bytes(SIEM);
    let full = *bytes.borrow_and_update();

    let expire = async |ledger: &S::Ledger, before| {
        let expired = ledger.expire_letters(SIEM, before, DAY + 99).await;
        expired.unwrap()
    };
    assert_eq!(expire(&ledger, DAY + 1).await, 0, "none is older");
    assert!(!bytes.has_changed().unwrap());
    assert_eq!(expire(&ledger, DAY + 11).await, 3, "1, 4 and 5");
    assert_eq!(expire(&ledger, DAY + 11).await, 0, "once only");
    bytes.changed().await.unwrap();
    assert!((1..full).contains(&*bytes.borrow_and_update()));
    assert_eq!(
        subject.books(&ledger, SIEM, AUDIT),
        before,
        "they stay dead"
    );
    let siem = LetterQuery {
        pipeline: Some(SIEM.to_owned()),
        ..all()
    };
    let listed = ledger.dead_letters(&siem).await.unwrap();
    let seqs: Vec<Seq> = listed.iter().map(|kept| kept.letter.seq).collect();
    assert_eq!(seqs, [15, 14, 13, 12, 11]);
    assert_eq!(ledger.dead_letter(SIEM, AUDIT, 4).await.unwrap(), None);
    is_conflict(ledger.retry(SIEM, AUDIT, &[4], DAY).await);
    is_conflict(ledger.drop_letters(SIEM, AUDIT, &[4], DAY).await);
    let counts = LetterCounts {
        retried: 1,
        dropped: 1,
        expired: 3,
    };
    assert_eq!(ledger.letter_counts(SIEM).await.unwrap(), counts);
    let unknown = ledger.expire_letters("none", DAY, DAY).await;
    assert!(
        matches!(unknown, Err(LedgerError::Unknown(_))),
        "{unknown:?}"
    );

    subject.end(ledger).await;
    let ledger = subject.open();
    assert_eq!(subject.books(&ledger, SIEM, AUDIT), before);
    assert_eq!(ledger.letter_counts(SIEM).await.unwrap(), counts);
    // An entry that waits again keeps its event, however old.
    let redrive = ledger.redrive(SIEM, AUDIT, 9, 9999).await.unwrap().unwrap();
    ledger.commit(redriven(&redrive, delivered)).await.unwrap();
    assert_eq!(expire(&ledger, DAY + 999).await, 5);
    assert_eq!(*ledger.dead_bytes(SIEM).borrow(), 0);
    assert_eq!(
        subject.books(&ledger, SIEM, AUDIT),
        figures(20, 1, 1, 8, 10)
    );
    let other = subject.books(&ledger, "archive", AUDIT);
    assert_eq!(other, figures(20, 0, 0, 10, 10));
    assert_eq!(ledger.dead_letters(&all()).await.unwrap().len(), 10);
    assert_eq!(
        ledger.letter_counts("archive").await.unwrap(),
        LetterCounts::default(),
        "of one pipeline only"
    );
}
