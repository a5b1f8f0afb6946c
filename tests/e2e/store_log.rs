//! Another program that reads the store for long, and what that does to its log.

use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Auth, Running, configuration, lockgate, started, status, until};
use rusqlite::Connection;

/// In batches so small that the log grows quickly.
#[test]
fn a_program_that_keeps_the_log_from_being_folded_is_told_of_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "500000"]);
    let receiver = LocalReceiver::start(dir.path());
    let pipeline = crate::truth::pipeline("main", &receiver, "batch = { events = 5 }");
    let config = configuration(dir.path(), &auth, &pipeline);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("events are read", shown, || {
        status(&config)["pipelines"]["main"]["read"].as_u64() > Some(0)
    });
    let reader = Connection::open(dir.path().join("store/store.db")).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM blocks;")
        .unwrap();

    let log = || status(&config)["host"]["store_log"].clone();
    until("status has it", shown, || log().is_object());
    assert!(log()["bytes"].as_u64() >= Some(128 << 20), "{}", log());
    assert!(log()["since"].is_i64(), "{}", log());
    let mut command = lockgate();
    command.args(["status", "--config"]).arg(&config);
    let text = Running::start("status", &mut command).ended().stdout;
    let head = "\nready, but not everything works: see below\n";
    assert!(text.contains(head), "{text}");
    assert!(
        text.contains("because another program reads from `store.db`"),
        "{text}"
    );
    host.line_with("its log `store.db-wal` cannot be folded into `store.db`");

    reader.execute_batch("COMMIT").unwrap();
    until("status has it no longer", shown, || log().is_null());
    host.line_with("the log of the store was folded into its file again");
    host.stop().exits_with(0);
}
