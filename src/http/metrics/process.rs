//! What the kernel says of this process, under the names that every Prometheus client uses.

/// Of this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    /// User and system time.
    pub(super) cpu_seconds: f64,
    /// In memory now.
    pub(super) resident_bytes: u64,
    /// Address space, the store's map included.
    pub(super) virtual_bytes: u64,
    /// Since the Unix epoch.
    pub(super) start_seconds: f64,
    /// Open files and sockets.
    pub(super) open_fds: u64,
    /// How many it may have.
    pub(super) max_fds: Option<u64>,
    /// Threads.
    pub(super) threads: u64,
}

/// Asks the kernel; `None` where it does not say.
#[cfg(target_os = "linux")]
pub(super) fn read() -> Option<Process> {
    use procfs::process::{LimitValue, Process as Own};

    let own = Own::myself().ok()?;
    let stat = own.stat().ok()?;
    let ticks = procfs::ticks_per_second() as f64;
    let max_fds = own.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
        LimitValue::Value(max) => Some(max),
        LimitValue::Unlimited => None,
    });
    Some(Process {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        resident_bytes: stat.rss * procfs::page_size(),
        virtual_bytes: stat.vsize,
        start_seconds: procfs::boot_time_secs().ok()? as f64 + stat.starttime as f64 / ticks,
        open_fds: own.fd_count().ok()? as u64,
        max_fds,
        threads: u64::try_from(stat.num_threads).unwrap_or_default(),
    })
}

/// Elsewhere nothing is known.
#[cfg(not(target_os = "linux"))]
pub(super) fn read() -> Option<Process> {
    None
}
