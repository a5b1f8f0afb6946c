//! Memory and CPU time of processes, from `/proc` (proc(5)); unknown on systems other than Linux.

/// Resident memory of this process, in bytes.
pub fn rss_bytes() -> Option<u64> {
    read("self", "status").as_deref().and_then(rss)
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

/// Resident memory of another process, in bytes. `None` if it has ended or may not be inspected.
pub fn rss_of(pid: u32) -> Option<u64> {
    read(&pid.to_string(), "status").as_deref().and_then(rss)
}

/// CPU time of another process so far, in microseconds, to 10 ms.
pub fn cpu_of(pid: u32) -> Option<u64> {
    read(&pid.to_string(), "stat").as_deref().and_then(cpu)
}

fn read(process: &str, file: &str) -> Option<String> {
    // Lossy: the name of a process may contain any bytes.
    Some(
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{process}/{file}")).ok()?)
            .into_owned(),
    )
}

fn rss(status: &str) -> Option<u64> {
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .strip_suffix("kB")?;
    Some(kibibytes.trim().parse::<u64>().ok()? * 1024)
}

fn cpu(stat: &str) -> Option<u64> {
    /// `USER_HZ`, the unit of `/proc`, whatever the kernel's own tick: 100 per second on every
    /// architecture except Alpha.
    const TICK_MICROS: u64 = 10_000;
    // `pid (comm) state …`, where comm may contain spaces and parentheses. utime and stime are
    // fields 14 and 15; state is field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) * TICK_MICROS)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn any_name_of_a_process_is_parsed() {
        let stat = "4242 (a) b) c) R 1 4242 4242 0 -1 4194304 100 0 0 0 250 50 7 8 20 0 4 0 100 1000000 200";
        assert_eq!(cpu(stat), Some(3_000_000));
        assert_eq!(
            rss("Name:\tx\nVmHWM:\t  9999 kB\nVmRSS:\t  1234 kB\n"),
            Some(1234 * 1024)
        );
        for broken in ["", ")", "1 (x) R 1 2", "VmRSS: many kB"] {
            assert_eq!((cpu(broken), rss(broken)), (None, None), "{broken:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_and_cpu_time_of_a_process_are_read() {
        assert!(rss_bytes().unwrap() > 100_000);
        let before = cpu_micros().unwrap();
        let mut sum = 0u64;
        while cpu_micros().unwrap() < before + 30_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert!(rss_of(child.id()).unwrap() > 0);
        assert!(cpu_of(child.id()).is_some());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(rss_of(child.id()), None);
    }
}
