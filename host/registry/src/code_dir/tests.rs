//! Tests of the directory of compiled code.

use std::os::unix::fs::symlink;
use std::time::Duration;

use super::*;

const KEY: &str = "sha256:00ff/engine 48 x86_64";

struct Fixture {
    parent: tempfile::TempDir,
    cache: CodeDir,
}

fn cache(capacity: u64) -> Fixture {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let cache = CodeDir::open(&parent.path().join("a/code"), capacity).expect("it can be made");
    Fixture { parent, cache }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").mode() & 0o7777
}

#[test]
fn saved_code_is_loaded_unchanged_and_only_its_owner_can_read_it() {
    let Fixture {
        parent: _parent,
        cache,
    } = cache(1 << 20);
    assert_eq!(cache.load(KEY), None);
    for content in [&b"native code"[..], b"other code", b""] {
        cache.save(KEY, content).expect("there is room");
        assert_eq!(cache.load(KEY).as_deref(), Some(content));
    }
    assert_eq!(cache.load("another key"), None);
    assert_eq!((mode(&cache.dir), mode(&cache.path(KEY))), (0o700, 0o600));
    let names: Vec<_> = fs::read_dir(&cache.dir)
        .expect("a directory")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert_eq!(names, [cache.path(KEY)], "no temporary file is left");
}

#[test]
fn another_process_finds_the_code() {
    let Fixture { parent, cache } = cache(1 << 20);
    cache.save(KEY, b"code").expect("there is room");
    let again = CodeDir::open(&parent.path().join("a/code"), 1 << 20).expect("it is ours");
    assert_eq!(again.load(KEY).as_deref(), Some(&b"code"[..]));
}

#[test]
fn a_file_larger_than_the_cache_is_not_read() {
    let Fixture {
        parent: _parent,
        cache,
    } = cache(1000);
    cache.save(KEY, b"code").expect("there is room");
    fs::write(cache.path(KEY), [0; 1001]).expect("ours");
    assert_eq!(cache.read(KEY), Err(CodeReadError::Size));
    cache.save(KEY, b"code").expect("there is room");
    assert_eq!(
        cache.load(KEY).as_deref(),
        Some(&b"code"[..]),
        "the next save replaces it"
    );
}

#[test]
fn a_file_that_others_may_write_is_not_used() {
    let Fixture {
        parent: _parent,
        cache,
    } = cache(1 << 20);
    cache.save(KEY, b"code").expect("there is room");
    for (bits, expected) in [
        (0o620, Err(CodeReadError::Mode(0o620))),
        (0o602, Err(CodeReadError::Mode(0o602))),
        (0o644, Ok(Some(b"code".to_vec()))),
    ] {
        fs::set_permissions(cache.path(KEY), Permissions::from_mode(bits)).expect("ours");
        assert_eq!(cache.read(KEY), expected, "mode {bits:o}");
    }
}

#[test]
fn a_file_of_another_user_is_not_used() {
    let Fixture {
        parent: _parent,
        cache,
    } = cache(1 << 20);
    cache.save(KEY, b"code").expect("there is room");
    // To the next user id, the file belongs to somebody else.
    let other = CodeDir {
        owner: cache.owner + 1,
        dir: cache.dir.clone(),
        capacity: cache.capacity,
    };
    assert_eq!(other.read(KEY), Err(CodeReadError::Owner(cache.owner)));
}

#[test]
fn a_link_or_a_directory_in_place_of_a_file_is_not_used() {
    let Fixture { parent, cache } = cache(1 << 20);
    cache.save(KEY, b"code").expect("there is room");
    let elsewhere = parent.path().join("elsewhere");
    fs::rename(cache.path(KEY), &elsewhere).expect("ours");
    symlink(&elsewhere, cache.path(KEY)).expect("a link");
    assert_eq!(cache.read(KEY), Err(CodeReadError::Kind));
    fs::remove_file(cache.path(KEY)).expect("ours");
    fs::create_dir(cache.path(KEY)).expect("a directory");
    assert_eq!(cache.read(KEY), Err(CodeReadError::Kind));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the times of files")]
fn the_least_recently_used_code_is_removed_when_the_cache_is_full() {
    let Fixture {
        parent: _parent,
        cache,
    } = cache(3000);
    for (age, key) in [(30, "a"), (20, "b"), (10, "c")] {
        cache.save(key, &[0; 1000]).expect("there is room");
        let file = File::open(cache.path(key)).expect("it was saved");
        file.set_modified(SystemTime::now() - Duration::from_secs(age))
            .expect("ours");
    }
    assert!(cache.load("a").is_some(), "and that counts as use");
    cache.save("d", &[0; 1000]).expect("there is room");
    let kept: Vec<_> = ["a", "b", "c", "d"]
        .into_iter()
        .filter(|key| cache.load(key).is_some())
        .collect();
    assert_eq!(kept, ["a", "c", "d"]);
}

#[test]
fn code_larger_than_the_cache_is_refused_and_removes_nothing() {
    let Fixture {
        parent: _parent,
        cache,
    } = cache(1000);
    cache.save("small", b"code").expect("there is room");
    let refused = cache.save(KEY, &[0; 1001]).expect_err("too large");
    assert!(
        refused
            .to_string()
            .ends_with("does not fit into a cache of 1000 bytes"),
        "{refused}"
    );
    assert!(cache.load("small").is_some());
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let dir = parent.path().join("code");
    fs::create_dir(&dir).expect("a directory");
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).expect("ours");
    let refused = CodeDir::open(&dir, 1000).expect_err("everybody may write it");
    let at = dir.display();
    assert_eq!(
        refused.to_string(),
        format!(
            "Other users may write to the directory for compiled code `{at}` (mode 0777).\nhint: `chmod 700 {at}`"
        )
    );
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("ours");
    CodeDir::open(&dir, 1000).expect("nobody else may write it");
    assert_eq!(mode(&dir), 0o700, "and now nobody else may read it");
}
