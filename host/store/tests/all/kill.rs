//! Kills.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use lockgate_store::{AuditQuery, Inspector, Store};

use crate::common::Dice;
use crate::worker::{Acknowledged, DIRECTORY, FOLDING, forgetful};

/// Starts child processes; kills each with SIGKILL in the middle of its work.
#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut dice = Dice(20260105);
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["worker::child_process", "--exact", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = dice.roll(300) + 10;
        for line in lines.by_ref() {
            let line = line.unwrap();
            assert!(!line.starts_with("BROKEN"), "{line}");
            left -= u64::from(acknowledged.hear(&line));
            if left == 0 {
                break;
            }
        }
        child.kill().unwrap();
        assert!(
            !child.wait().unwrap().success(),
            "it was to be killed in round {round}"
        );
        // The last lines before the kill count, too.
        for line in lines.map_while(Result::ok) {
            acknowledged.hear(&line);
        }
        acknowledged.check(directory.path()).await;
    }
    assert!(acknowledged.len() > 100);
}

/// Kills in the middle of retention, folding and operations on dead letters.
#[tokio::test]
async fn an_audit_holds_after_kill_9_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let mut dice = Dice(20260106);
    let mut folded = 0;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["worker::folding_child_process", "--exact", "--nocapture"])
            .env(FOLDING, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = dice.roll(60) + 20;
        let mut acknowledged = 0;
        for line in lines.map_while(Result::ok) {
            if let Some(end) = line.strip_prefix("F ") {
                acknowledged = end.parse::<u64>().unwrap();
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "killed in round {round}");
        let inspector = Inspector::open(directory.path()).unwrap();
        let audit = inspector.audit(&AuditQuery::default()).unwrap();
        assert!(
            audit.findings.is_empty(),
            "round {round}: {:?}",
            audit.findings
        );
        let chain = &audit.pipelines[0].epochs[0].chain;
        assert!(chain.folded >= folded, "round {round}: {chain:?}");
        folded = chain.folded;
        drop(inspector);
        let store = Store::open(forgetful(directory.path())).unwrap();
        store.reads().verify_chain("siem").unwrap();
        let books = store.reads().books("siem").unwrap()[0].1;
        let finished = books.read - books.waiting;
        assert!(
            books.balance() && finished + books.waiting >= acknowledged - 1,
            "{books:?}"
        );
        lockgate_store::Ledger::close(store).await.unwrap();
    }
    assert!(folded > 50, "{folded}");
}
