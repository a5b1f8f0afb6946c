//! Kills.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::common::Dice;
use crate::worker::{Acknowledged, DIRECTORY};

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
