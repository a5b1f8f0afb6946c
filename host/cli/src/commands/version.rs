//! `lockgate version`.

use crate::failure::Failure;
use crate::print;

pub(crate) fn run() -> Result<(), Failure> {
    let mut text = format!("lockgate {}\n", env!("CARGO_PKG_VERSION"));
    let builtins = lockgate_registry::builtins();
    let width = builtins.iter().map(|builtin| builtin.name.len()).max();
    let width = width.unwrap_or_default();
    for builtin in builtins {
        text += &format!(
            "builtin:{:<width$} {:<7} {}\n",
            builtin.name,
            builtin.version,
            builtin.digest()
        );
    }
    print::data(&text)
}
