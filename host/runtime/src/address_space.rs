//! The limit on the address space of this process (`ulimit -v`). Few services have one, and an
//! instance of a component takes far more of it than of memory.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Bytes that one memory of an instance reserves, with what surrounds it.
pub(crate) const OF_INSTANCE: u64 = (4 << 30) + (64 << 20);

/// The way out for an operator.
pub(crate) const ADVICE: &str =
    "raise the limit, with `LimitAS=` in the unit of systemd or with `ulimit -v`, or remove it";

/// In bytes. `None`: there is no limit.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// How many instances fit into what is left of it. `None`: there is no limit.
pub(crate) fn instances() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Some(limit()?.saturating_sub(used(&status)) / OF_INSTANCE)
}

/// What the process has of it, in bytes.
fn used(status: &str) -> u64 {
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kilobytes = size.and_then(|size| size.trim().strip_suffix(" kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0_u64).saturating_mul(1024)
}

/// What is added to a message about memory that the system refused.
pub(crate) fn remark(limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!(
            "; the address space of this process is limited to {} MiB: {ADVICE}",
            limit >> 20
        ),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_process_is_read_from_its_status() {
        assert_eq!(
            used("VmPeak:\t  9 kB\nVmSize:\t    2048 kB\nVmRSS: 1 kB\n"),
            2 << 20
        );
        assert_eq!(used(""), 0);
        assert!(used(&fs::read_to_string("/proc/self/status").unwrap_or_default()) > 1 << 20);
    }

    #[test]
    fn a_refusal_names_the_limit_and_the_way_out() {
        let text = remark(Some(3 << 30));
        for part in ["limited to 3072 MiB", "LimitAS=", "ulimit -v"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(remark(None), "");
    }
}
