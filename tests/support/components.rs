//! The components of `tests/components`, and cases that are directories.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::root;

/// The file of one of them, such as `hostile_filter`. They are compiled when first asked for.
pub fn component(name: &str) -> PathBuf {
    static BUILT: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let target = lockgate_guest_build::guests_dir(test.parent().unwrap_or(Path::new("")));
        lockgate_guest_build::build(&root().join("tests/components/Cargo.toml"), &target)
            .expect("the components are built")
    });
    let found = built
        .iter()
        .find(|path| path.file_stem().is_some_and(|stem| stem == name));
    found.expect("a component of this name").clone()
}

/// `[plugins]` with the hostile components. Their limits are so generous that only a component
/// that never ends reaches them.
pub fn hostile_plugins() -> String {
    let mut text = String::new();
    for name in ["filter", "mapper", "sink"] {
        let file = component(&format!("hostile_{name}"));
        writeln!(
            text,
            "[plugins.hostile-{name}]\nsource = \"file:{}\"\n\
             limits = {{ time = \"60s\", batch-time = \"10m\" }}\n",
            file.display()
        )
        .expect("a String takes everything");
    }
    text
}

/// The directories of `tests/cases/KIND`, sorted by name.
pub fn cases(kind: &str) -> Vec<PathBuf> {
    let directory = root().join("tests/cases").join(kind);
    let entries = std::fs::read_dir(&directory).expect("the cases are readable");
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} has cases", directory.display());
    cases
}

/// `pipeline.toml` of a case, with what is only known when it runs: the receiver's address, the
/// directory of the components, and the key of the event that sets them off.
pub fn pipeline_of(case: &Path, receiver: &str, victim: &str) -> String {
    let components = component("hostile_filter");
    let components = components.parent().expect("it lies in a directory");
    let text = std::fs::read_to_string(case.join("pipeline.toml")).expect("a pipeline");
    text.replace("RECEIVER", &receiver.replace("127.0.0.1", "localhost"))
        .replace("COMPONENTS", &components.display().to_string())
        .replace("VICTIM", victim)
        + "\n"
}
