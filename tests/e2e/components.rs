use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lockgate_tests::root;

/// The components of `tests/components`, built once in each run.
pub fn components() -> &'static [PathBuf] {
    static BUILT: OnceLock<Vec<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = lockgate_guest_build::guests_dir(Path::new(env!("CARGO_TARGET_TMPDIR")));
        lockgate_guest_build::build(&root().join("tests/components/Cargo.toml"), &target)
            .expect("the components are built")
    })
}

/// One of them, such as `counter.wasm`.
pub fn component(file: &str) -> &'static Path {
    let component = components().iter().find(|path| path.ends_with(file));
    component.expect("it is built")
}
