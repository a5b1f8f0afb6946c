//! Memory and CPU time of this process. Memory is from `/proc` (proc(5)), and unknown on systems
//! other than Linux.

/// Resident memory of this process, in bytes.
pub fn rss_bytes() -> Option<u64> {
    // Lossy: the name of a process may contain any bytes.
    let status = std::fs::read("/proc/self/status").ok()?;
    rss(&String::from_utf8_lossy(&status))
}

/// CPU time of this process so far, user and system, in microseconds, including threads that have
/// ended.
pub fn cpu_micros() -> Option<u64> {
    // More precise than `/proc`, which counts in hundredths of a second.
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(
            u64::try_from(time.tv_sec).ok()? * 1_000_000
                + u64::try_from(time.tv_nsec).ok()? / 1_000,
        )
    }
    #[cfg(not(unix))]
    None
}

/// Open file descriptors of this process.
pub fn open_fds() -> Option<u64> {
    let fds = std::fs::read_dir("/proc/self/fd").ok()?;
    // One is that of the directory.
    Some((fds.count() as u64).saturating_sub(1))
}

fn rss(status: &str) -> Option<u64> {
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .strip_suffix("kB")?;
    Some(kibibytes.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_parsed_or_unknown() {
        assert_eq!(
            rss("Name:\tx\nVmHWM:\t  9999 kB\nVmRSS:\t  1234 kB\n"),
            Some(1234 * 1024)
        );
        for broken in ["", "VmRSS: many kB"] {
            assert_eq!(rss(broken), None, "{broken:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_and_cpu_time_of_this_process_are_read() {
        assert!(rss_bytes().unwrap() > 100_000);
        let before = cpu_micros().unwrap();
        // Far more work than 30 ms.
        let mut sum = 0u64;
        for number in 0..1_000_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
            if number % 1_000_000 == 0 && cpu_micros().unwrap() >= before + 30_000 {
                return;
            }
        }
        panic!("the CPU time stands still");
    }
}
