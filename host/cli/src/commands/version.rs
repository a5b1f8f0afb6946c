//! `lockgate version`.

use crate::failure::Failure;
use crate::print;

pub(crate) fn run() -> Result<(), Failure> {
    let mut text = format!("lockgate {}\n", env!("CARGO_PKG_VERSION"));
    for builtin in lockgate_registry::builtins() {
        text += &format!(
            "builtin:{:<8} {:<7} {}\n",
            builtin.name,
            builtin.version,
            builtin.digest()
        );
    }
    print::data(&text)
}
