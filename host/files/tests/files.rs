//! Files on a real file system, through the crate's public interface. Each test sets its own clock.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use lockgate_files::{
    Appended, Compression, FileError, FileSettings, FileWriter, Rotation, examine,
};
use lockgate_model::{FileTarget, Millis};
use tempfile::TempDir;

/// 2026-01-05T08:30:00Z.
const MORNING: u64 = 1_767_601_800;
const DAY: u64 = 86_400;

/// A clock that a test moves.
macro_rules! clock {
    () => {{
        static NOW: AtomicU64 = AtomicU64::new(MORNING);
        fn now() -> Millis {
            NOW.load(SeqCst) as Millis * 1000
        }
        let set: fn(u64) = |seconds| NOW.store(seconds, SeqCst);
        (now as fn() -> Millis, set)
    }};
}

fn settings(directory: &Path, name: &str, clock: fn() -> Millis) -> FileSettings {
    let url = format!("file://{}/{name}", directory.display());
    FileSettings {
        target: FileTarget::parse(&url).unwrap().unwrap(),
        rotation: Rotation::default(),
        compression: None,
        timeout: Duration::from_secs(300),
        clock,
    }
}

async fn append(writer: &FileWriter, body: &str) -> Result<Appended, FileError> {
    writer.append(Bytes::from(body.to_owned())).await
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Waits for the thread that compresses.
async fn until_names_are(directory: &Path, expected: &[&str]) {
    for _ in 0..3000 {
        if names(directory) == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?}, not {expected:?}", names(directory));
}

#[tokio::test]
async fn a_request_is_appended_with_a_line_break_and_says_where() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = clock!();
    let path = directory.path().join("a.ndjson");
    let writer = FileWriter::new(settings(directory.path(), "a.ndjson", clock));
    assert!(!path.exists(), "nothing is opened before it is needed");
    let at = |offset| {
        Ok(Appended::File {
            path: path.clone(),
            offset,
        })
    };
    assert_eq!(append(&writer, "{\"a\":1}\n{\"b\":2}\n").await, at(0));
    assert_eq!(append(&writer, "{\"c\":3}").await, at(16));
    assert_eq!(append(&writer, "{\"d\":4}\n").await, at(24));
    assert_eq!(text(&path), "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n{\"d\":4}\n");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn the_rest_of_a_line_is_cut_off_when_the_file_is_opened() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = clock!();
    let long = "x".repeat(200_000);
    for (before, kept) in [
        ("whole\npart".to_owned(), "whole\n"),
        ("whole\n".to_owned(), "whole\n"),
        ("part".to_owned(), ""),
        (format!("whole\n{long}"), "whole\n"),
        (long.clone(), ""),
        (String::new(), ""),
    ] {
        let path = directory.path().join("a");
        fs::write(&path, &before).unwrap();
        let writer = FileWriter::new(settings(directory.path(), "a", clock));
        append(&writer, "next").await.unwrap();
        assert_eq!(text(&path), format!("{kept}next\n"));
    }
}

#[tokio::test]
async fn the_path_follows_the_time_and_its_directories_are_made() {
    let directory = TempDir::new().unwrap();
    let (clock, set) = clock!();
    let writer = FileWriter::new(settings(directory.path(), "{date}/{hour}.log", clock));
    append(&writer, "1").await.unwrap();
    set(MORNING + 3600);
    append(&writer, "2").await.unwrap();
    set(MORNING + DAY);
    append(&writer, "3").await.unwrap();
    let first = directory.path().join("2026-01-05");
    assert_eq!(text(first.join("08.log")), "1\n");
    assert_eq!(text(first.join("09.log")), "2\n");
    let mode = fs::metadata(&first).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(text(directory.path().join("2026-01-06/08.log")), "3\n");
}

#[tokio::test]
async fn a_directory_that_the_operator_named_is_not_made() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = clock!();
    let writer = FileWriter::new(settings(directory.path(), "missing/{date}/a", clock));
    let error = append(&writer, "1").await.unwrap_err();
    assert!(error.needs_operator(), "{error:?}");
    assert!(
        error.to_string().contains("/missing/") && error.hint().unwrap().contains("directory"),
        "{error}"
    );
    assert_eq!(
        names(directory.path()),
        [""; 0],
        "an absent mount point stays as it is"
    );
    fs::create_dir(directory.path().join("missing")).unwrap();
    append(&writer, "1").await.expect("it clears by itself");
}

#[tokio::test]
async fn a_file_is_rotated_by_size_and_age() {
    let directory = TempDir::new().unwrap();
    let (clock, set) = clock!();
    let mut by_size = settings(directory.path(), "a", clock);
    by_size.rotation.bytes = Some(10);
    let writer = FileWriter::new(by_size);
    for body in ["12345678", "1234567890123", "1", "2", "345678"] {
        append(&writer, body).await.unwrap();
    }
    assert_eq!(names(directory.path()), ["a", "a.1", "a.2"]);
    let all = ["a.1", "a.2", "a"].map(|name| text(directory.path().join(name)));
    assert_eq!(
        all,
        ["12345678\n", "1234567890123\n", "1\n2\n345678\n"].map(str::to_owned)
    );

    let directory = TempDir::new().unwrap();
    let mut by_age = settings(directory.path(), "a", clock);
    by_age.rotation.age = Some(Duration::from_secs(3600));
    let writer = FileWriter::new(by_age);
    for (at, body) in [(0, "1"), (3599, "2"), (3600, "3"), (7300, "4")] {
        set(MORNING + at);
        append(&writer, body).await.unwrap();
    }
    assert_eq!(names(directory.path()), ["a", "a.1", "a.2"]);
    let all = ["a.1", "a.2", "a"].map(|name| text(directory.path().join(name)));
    assert_eq!(all, ["1\n2\n", "3\n", "4\n"].map(str::to_owned));
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    let file = File::open(path).unwrap();
    match path.extension().unwrap().to_str() {
        Some("gz") => GzDecoder::new(file).read_to_string(&mut text).unwrap(),
        _ => zstd::Decoder::new(file)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap(),
    };
    text
}

#[tokio::test]
async fn closed_files_are_compressed_and_nothing_of_them_is_lost() {
    let (clock, set) = clock!();
    for (compression, suffix) in [(Compression::Gzip, "gz"), (Compression::Zstd, "zst")] {
        let directory = TempDir::new().unwrap();
        set(MORNING);
        let mut settings = settings(directory.path(), "{date}", clock);
        settings.rotation.bytes = Some(4);
        settings.compression = Some(compression);
        // Left behind by an earlier process, and names of others.
        for name in [
            "2026-01-01",
            "2026-01-02.7",
            "2026-01-03.old",
            "other",
            "2026-01-05.01",
        ] {
            fs::write(directory.path().join(name), format!("{name}\n")).unwrap();
        }
        let path = |name: &str| directory.path().join(name.replace('%', suffix));
        fs::write(path("2026-01-02.7.%"), "an earlier attempt").unwrap();
        fs::write(path("2026-01-01.%.part"), "as far as it came").unwrap();
        let writer = FileWriter::new(settings);
        append(&writer, "abc").await.unwrap();
        append(&writer, "def").await.unwrap();
        set(MORNING + DAY);
        append(&writer, "ghi").await.unwrap();
        let expected = [
            "2026-01-01.%",
            "2026-01-02.7.%",
            "2026-01-02.8.%",
            "2026-01-03.old",
            "2026-01-05.%",
            "2026-01-05.01",
            "2026-01-05.1.%",
            "2026-01-06",
            "other",
        ];
        let mut expected = expected.map(|name| name.replace('%', suffix));
        expected.sort();
        until_names_are(directory.path(), &expected.each_ref().map(String::as_str)).await;
        for (name, content) in [
            ("2026-01-01.%", "2026-01-01\n"),
            ("2026-01-02.8.%", "2026-01-02.7\n"),
            ("2026-01-05.1.%", "abc\n"),
            ("2026-01-05.%", "def\n"),
        ] {
            assert_eq!(unpacked(&path(name)), content, "{name}");
            let mode = fs::metadata(path(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(text(path("2026-01-02.7.%")), "an earlier attempt");
        // The clock goes back: the file begins anew, and the archive of before stays.
        set(MORNING);
        append(&writer, "xyz").await.unwrap();
        set(MORNING + DAY);
        append(&writer, "123").await.unwrap();
        let again = path("2026-01-05.2.%");
        for _ in 0..3000 {
            if again.exists() && !path("2026-01-05").exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(unpacked(&again), "xyz\n");
        assert_eq!(unpacked(&path("2026-01-05.%")), "def\n");
    }
}

#[tokio::test]
async fn a_file_that_was_moved_or_removed_is_made_anew() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = clock!();
    let (path, moved) = (directory.path().join("a"), directory.path().join("b"));
    let writer = FileWriter::new(settings(directory.path(), "a", clock));
    append(&writer, "1").await.unwrap();
    fs::rename(&path, &moved).unwrap();
    append(&writer, "2").await.unwrap();
    assert_eq!((text(&moved), text(&path)), ("1\n".into(), "2\n".into()));
    fs::remove_file(&path).unwrap();
    append(&writer, "3").await.unwrap();
    assert_eq!(text(&path), "3\n");
}

#[tokio::test]
async fn a_file_has_one_writer() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = clock!();
    let first = FileWriter::new(settings(directory.path(), "a", clock));
    append(&first, "1").await.unwrap();
    std::os::unix::fs::symlink("a", directory.path().join("b")).unwrap();
    let second = FileWriter::new(settings(directory.path(), "b", clock));
    let error = append(&second, "2").await.unwrap_err();
    assert!(matches!(error, FileError::InUse(_)), "{error:?}");
    drop(first);
    append(&second, "2").await.expect("it is free now");
    assert_eq!(text(directory.path().join("a")), "1\n2\n");
}

/// Whoever waits for the lock stands for a disk that hangs.
#[tokio::test]
async fn a_request_does_not_wait_longer_than_its_time_out() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = clock!();
    let first = FileWriter::new(settings(directory.path(), "a", clock));
    append(&first, "1").await.unwrap();
    let hurried = FileWriter::new(FileSettings {
        timeout: Duration::from_millis(50),
        ..settings(directory.path(), "a", clock)
    });
    let error = append(&hurried, "2").await.unwrap_err();
    assert!(
        matches!(error, FileError::Slow { .. }) && !error.needs_operator(),
        "{error:?}"
    );
    drop(first);
}

/// While a disk hangs, the thread keeps what it is writing and the next, and whoever has given up
/// takes the body along. A clock that hangs stands for the disk.
#[tokio::test]
async fn requests_that_have_given_up_take_no_memory() {
    struct Body(#[expect(dead_code)] Arc<()>);
    impl AsRef<[u8]> for Body {
        fn as_ref(&self) -> &[u8] {
            b"a"
        }
    }
    static HANGS: AtomicBool = AtomicBool::new(true);
    fn clock() -> Millis {
        while HANGS.load(SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        MORNING as Millis * 1000
    }
    let directory = TempDir::new().unwrap();
    let writer = FileWriter::new(FileSettings {
        timeout: Duration::from_millis(10),
        ..settings(directory.path(), "a", clock)
    });
    let alive = Arc::new(());
    for _ in 0..20 {
        let body = Bytes::from_owner(Body(Arc::clone(&alive)));
        let error = writer.append(body).await.unwrap_err();
        assert!(matches!(error, FileError::Slow { .. }), "{error:?}");
    }
    let bodies = Arc::strong_count(&alive) - 1;
    assert!(bodies <= 2, "{bodies} bodies are in memory");
    HANGS.store(false, SeqCst);
    let path = directory.path().join("a");
    for _ in 0..3000 {
        // A request may still give up before the thread has come to it.
        if append(&writer, "b").await.is_ok() {
            break;
        }
    }
    assert!(text(&path).ends_with("b\n"), "{}", text(&path));
}

#[tokio::test]
async fn what_is_not_a_file_is_refused() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = clock!();
    fs::create_dir(directory.path().join("a")).unwrap();
    let writer = FileWriter::new(settings(directory.path(), "a", clock));
    let error = append(&writer, "1").await.unwrap_err();
    assert!(matches!(error, FileError::NotAFile(_)), "{error:?}");
    let link = directory.path().join("b");
    std::os::unix::fs::symlink("/dev/full", &link).unwrap();
    let writer = FileWriter::new(settings(directory.path(), "b", clock));
    let error = append(&writer, "1").await.unwrap_err();
    assert!(matches!(error, FileError::NotAFile(_)), "{error:?}");
}

/// Root may write everywhere, so that permissions are not looked at here.
#[test]
fn what_would_keep_it_from_writing_is_found_beforehand() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = clock!();
    let now = MORNING as i64 * 1000;
    let target = |name: &str| settings(directory.path(), name, clock).target;
    let found = |name: &str| examine(&target(name), Rotation::default(), now);
    assert_eq!(found("a"), Ok(()));
    assert_eq!(found("{date}/{hour}"), Ok(()));
    let error = found("missing/a").unwrap_err();
    let message = error.to_string();
    assert!(message.contains("/missing` cannot be used"), "{message}");
    fs::write(directory.path().join("file"), "").unwrap();
    assert!(found("file/a").unwrap_err().needs_operator());
    fs::create_dir(directory.path().join("directory")).unwrap();
    assert!(matches!(found("directory"), Err(FileError::NotAFile(_))));
    assert_eq!(found("file"), Ok(()));
    assert_eq!(names(directory.path()), ["directory", "file"]);
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("there"), "").unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o500)).unwrap();
    if fs::write(closed.join("probe"), "").is_err() {
        assert!(found("closed/a").unwrap_err().needs_operator());
        // A file that is there can be appended to, and not be rotated.
        assert_eq!(found("closed/there"), Ok(()));
        let rotation = Rotation {
            bytes: Some(1),
            age: None,
        };
        let error = examine(&target("closed/there"), rotation, now).unwrap_err();
        assert!(error.needs_operator(), "{error}");
    } else {
        println!("skipped for the user root: directories that cannot be written to");
    }
}
