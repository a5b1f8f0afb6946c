use std::os::unix::fs::symlink;
use std::time::Duration;

use super::*;

const KEY: &str = "sha256:00ff/engine 48 x86_64";

struct Fixture {
    parent: tempfile::TempDir,
    store: CodeStore,
}

fn store(capacity: u64) -> Fixture {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let store = CodeStore::open(&parent.path().join("a/code"), capacity).expect("it can be made");
    Fixture { parent, store }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").mode() & 0o7777
}

#[test]
fn code_comes_back_as_it_was_saved_and_only_its_owner_can_see_it() {
    let Fixture {
        parent: _parent,
        store,
    } = store(1 << 20);
    assert_eq!(store.load(KEY), None);
    for content in [&b"native code"[..], b"other code", b""] {
        store.save(KEY, content).expect("there is room");
        assert_eq!(store.load(KEY).as_deref(), Some(content));
    }
    assert_eq!(store.load("another key"), None);
    assert_eq!(
        (mode(&store.folder), mode(&store.path(KEY))),
        (0o700, 0o600)
    );
    let names: Vec<_> = fs::read_dir(&store.folder)
        .expect("a folder")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert_eq!(names, [store.path(KEY)], "no temporary file stays behind");
}

#[test]
fn another_process_finds_the_code() {
    let Fixture { parent, store } = store(1 << 20);
    store.save(KEY, b"code").expect("there is room");
    let again = CodeStore::open(&parent.path().join("a/code"), 1 << 20).expect("it is ours");
    assert_eq!(again.load(KEY).as_deref(), Some(&b"code"[..]));
}

#[test]
fn a_file_larger_than_everything_is_not_read() {
    let Fixture {
        parent: _parent,
        store,
    } = store(1000);
    store.save(KEY, b"code").expect("there is room");
    fs::write(store.path(KEY), [0; 1001]).expect("ours");
    assert_eq!(store.read(KEY), Err(Refusal::Size));
    store.save(KEY, b"code").expect("there is room");
    assert_eq!(
        store.load(KEY).as_deref(),
        Some(&b"code"[..]),
        "the next save replaces it"
    );
}

#[test]
fn a_file_that_others_may_write_is_not_handed_out() {
    let Fixture {
        parent: _parent,
        store,
    } = store(1 << 20);
    store.save(KEY, b"code").expect("there is room");
    for (bits, expected) in [
        (0o620, Err(Refusal::Mode(0o620))),
        (0o602, Err(Refusal::Mode(0o602))),
        (0o644, Ok(Some(b"code".to_vec()))),
    ] {
        fs::set_permissions(store.path(KEY), Permissions::from_mode(bits)).expect("ours");
        assert_eq!(store.read(KEY), expected, "mode {bits:o}");
    }
}

#[test]
fn a_file_of_another_user_is_not_handed_out() {
    let Fixture {
        parent: _parent,
        store,
    } = store(1 << 20);
    store.save(KEY, b"code").expect("there is room");
    // To the store of the user after us, the file is foreign.
    let other = CodeStore {
        owner: store.owner + 1,
        folder: store.folder.clone(),
        capacity: store.capacity,
    };
    assert_eq!(other.read(KEY), Err(Refusal::Owner(store.owner)));
}

#[test]
fn a_link_or_a_folder_in_place_of_a_file_is_not_followed() {
    let Fixture { parent, store } = store(1 << 20);
    store.save(KEY, b"code").expect("there is room");
    let elsewhere = parent.path().join("elsewhere");
    fs::rename(store.path(KEY), &elsewhere).expect("ours");
    symlink(&elsewhere, store.path(KEY)).expect("a link");
    assert_eq!(store.read(KEY), Err(Refusal::Kind));
    fs::remove_file(store.path(KEY)).expect("ours");
    fs::create_dir(store.path(KEY)).expect("a folder");
    assert_eq!(store.read(KEY), Err(Refusal::Kind));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the times of files")]
fn the_code_not_used_for_longest_is_removed_when_room_is_short() {
    let Fixture {
        parent: _parent,
        store,
    } = store(3000);
    for (age, key) in [(30, "a"), (20, "b"), (10, "c")] {
        store.save(key, &[0; 1000]).expect("there is room");
        let file = File::open(store.path(key)).expect("it was saved");
        file.set_modified(SystemTime::now() - Duration::from_secs(age))
            .expect("ours");
    }
    assert!(store.load("a").is_some(), "and that counts as use");
    store.save("d", &[0; 1000]).expect("there is room");
    let kept: Vec<_> = ["a", "b", "c", "d"]
        .into_iter()
        .filter(|key| store.load(key).is_some())
        .collect();
    assert_eq!(kept, ["a", "c", "d"]);
}

#[test]
fn code_larger_than_the_store_is_refused_and_removes_nothing() {
    let Fixture {
        parent: _parent,
        store,
    } = store(1000);
    store.save("small", b"code").expect("there is room");
    let refused = store.save(KEY, &[0; 1001]).expect_err("too large");
    assert!(
        refused
            .to_string()
            .ends_with("does not fit into a cache of 1000 bytes"),
        "{refused}"
    );
    assert!(store.load("small").is_some());
}

#[test]
fn a_folder_that_others_may_write_is_refused() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("code");
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).expect("ours");
    let refused = CodeStore::open(&folder, 1000).expect_err("everybody may write it");
    let at = folder.display();
    assert_eq!(
        refused.to_string(),
        format!(
            "Other users may write to the folder for compiled code `{at}` (mode 0777).\nhint: `chmod 700 {at}`"
        )
    );
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("ours");
    CodeStore::open(&folder, 1000).expect("nobody else may write it");
    assert_eq!(mode(&folder), 0o700, "and now nobody else may read it");
}
