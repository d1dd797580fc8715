//! The machine: what it is, who uses its processors, and how much of that is not ours. Read from
//! `/proc`; elsewhere everything is unknown and nothing is noticed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `/proc` counts processor time in these, whatever the kernel's own tick (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// Above this share of the machine, other work has spoiled a run. The kernel's own threads, which
/// write our pages to the disk, stay below it.
const OTHERS_MAX: f64 = 0.06;

/// What a result was measured on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// Bytes.
    pub(crate) memory: u64,
    /// Of the operating system.
    pub(crate) kernel: String,
    /// Where the stores were.
    pub(crate) filesystem: String,
    /// The compiler found on this machine; empty without one.
    pub(crate) rustc: String,
    /// Of the program, and whether it was optimised.
    pub(crate) program: String,
}

impl Machine {
    /// Describes this machine, with the filesystem that `dir` is on.
    pub(super) fn here(dir: &Path) -> Machine {
        let build = if cfg!(debug_assertions) { " (not optimised)" } else { "" };
        Machine {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: available_parallelism().map_or(1, usize::from),
            memory: field("/proc/meminfo", "MemTotal").map_or(0, |text| kibibytes(&text)),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&read("/proc/self/mountinfo"), dir),
            rustc: rustc(),
            program: format!("wavegate {}{build}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let gib = self.memory as f64 / f64::from(1 << 30);
        let rustc = if self.rustc.is_empty() { String::new() } else { format!(", {}", self.rustc) };
        format!(
            "{}; {} cores of {}, {gib:.0} GiB, Linux {}, {}{rustc}",
            self.program, self.cores, self.cpu, self.kernel, self.filesystem
        )
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = read(path);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

fn kibibytes(text: &str) -> u64 {
    text.trim().trim_end_matches("kB").trim().parse().map_or(0, |n: u64| n << 10)
}

/// The type and the source of the mount that `dir` is on.
fn filesystem(mounts: &str, dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mount = |line: &str| {
        // proc_pid_mountinfo(5): fifth the mount point; after the dash the type and the source.
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.to_owned();
        let mut after = after.split(' ');
        let name = format!("{} on {}", after.next()?, after.next()?);
        dir.starts_with(&point).then_some((point.len(), name))
    };
    let on = mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length);
    on.map_or_else(|| "unknown filesystem".into(), |(_, name)| name)
}

fn rustc() -> String {
    let said = Command::new("rustc").arg("--version").output().ok().filter(|o| o.status.success());
    let text = said.and_then(|o| String::from_utf8(o.stdout).ok()).unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Processor time of a process, all threads.
pub(super) fn cpu_of(pid: u32) -> Duration {
    stat_of(&read(&format!("/proc/{pid}/stat"))).map_or(Duration::ZERO, |stat| ticks(stat.own))
}

/// `RssAnon` of a process in bytes.
pub(super) fn memory_of(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/status"), "RssAnon").map_or(0, |text| kibibytes(&text))
}

/// The same of a process and its children.
pub(super) fn memory_of_tree(pid: u32) -> u64 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    memory_of(pid) + children.map(memory_of).sum::<u64>()
}

fn ticks(n: u64) -> Duration {
    TICK * u32::try_from(n).unwrap_or(u32::MAX)
}

/// One process's line: its parent, its processor time and that of its children that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own: u64,
    ended_children: u64,
}

fn stat_of(line: &str) -> Option<Stat> {
    // proc_pid_stat(5). The name in brackets may hold anything, brackets too.
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<u64>().ok());
    let (own, children) = (number(14)? + number(15)?, number(16)? + number(17)?);
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, own, ended_children: children })
}

/// Processor time of this process and its children, running and ended, in ticks.
fn ours() -> u64 {
    let me = std::process::id();
    let own = stat_of(&read("/proc/self/stat")).map_or(0, |s| s.own + s.ended_children);
    let Ok(processes) = fs::read_dir("/proc") else { return own };
    let children = processes.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        stat_of(&read(&format!("/proc/{pid}/stat"))).filter(|stat| stat.parent == me)
    });
    own + children.map(|stat| stat.own).sum::<u64>()
}

/// The first line of `/proc/stat`: ticks of all processors since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Total {
    /// In processes. Interrupts are left out: ours cause most of them and nobody is charged.
    working: u64,
    stolen: u64,
    all: u64,
}

fn total(text: &str) -> Option<Total> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|f| f.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, _irq, _softirq, stolen, ..] = fields[..] else { return None };
    // The guest fields that follow are in user and nice already.
    Some(Total { working: user + nice + system, stolen, all: fields.iter().take(8).sum() })
}

/// Watches from its making how much of the machine others use.
pub(super) struct Watch {
    total: Option<Total>,
    ours: u64,
}

impl Watch {
    /// Begins.
    pub(super) fn begin() -> Watch {
        Watch { total: total(&read("/proc/stat")), ours: ours() }
    }

    /// The share of all processors, 0.0 to 1.0, that went elsewhere since the beginning: to other
    /// processes, or to other machines on the same host.
    pub(super) fn others(&self) -> f64 {
        let (Some(before), Some(now)) = (self.total, total(&read("/proc/stat"))) else { return 0.0 };
        elsewhere(before, now, ours().saturating_sub(self.ours))
    }
}

fn elsewhere(before: Total, now: Total, ours: u64) -> f64 {
    let others = now.working.saturating_sub(before.working).saturating_sub(ours);
    let stolen = now.stolen.saturating_sub(before.stolen);
    (others + stolen) as f64 / now.all.saturating_sub(before.all).max(1) as f64
}

/// Whether so much use by others has spoiled a run.
pub(super) fn is_spoiled(others: f64) -> bool {
    others > OTHERS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_line_is_read_whatever_its_name() {
        let line = "42 (a) b (c) S 7 1 1 0 -1 4194304 100 0 0 0 11 22 33 44 20 0 9 0 100 1000 10";
        assert_eq!(stat_of(line), Some(Stat { parent: 7, own: 33, ended_children: 77 }));
        assert_eq!(stat_of("42 (a"), None);
    }

    #[test]
    fn what_is_neither_ours_nor_idle_is_others() {
        let before = total("cpu  100 10 50 1000 0 5 5 0 0 0\ncpu0 1 1").unwrap();
        let after = total("cpu  160 10 90 1090 0 5 5 10 0 0\ncpu0 1 1").unwrap();
        assert_eq!(before.working, 160);
        assert_eq!((after.working - before.working, after.all - before.all), (100, 200));
        // 100 worked, 80 of them ours, 10 stolen, of 200.
        assert!((elsewhere(before, after, 80) - 0.15).abs() < 1e-9);
        assert!((elsewhere(before, after, 300) - 0.05).abs() < 1e-9, "ours may be counted ahead");
        assert!(is_spoiled(0.15) && !is_spoiled(0.05));
        assert_eq!(total("intr 1"), None);
    }

    #[test]
    fn a_directory_is_on_the_innermost_mount() {
        let mounts = "21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                      22 21 0:5 / /proc rw - proc proc rw\n\
                      30 21 0:9 / /proc/x rw shared:3 - tmpfs small rw\n";
        assert_eq!(filesystem(mounts, Path::new("/proc/x/y")), "tmpfs on small");
        assert_eq!(filesystem(mounts, Path::new("/srv/data")), "ext4 on /dev/vda");
        assert_eq!(filesystem("", Path::new("/srv")), "unknown filesystem");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_ours_and_has_memory() {
        let watch = Watch::begin();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        let before = cpu_of(std::process::id());
        while cpu_of(std::process::id()) < before + 5 * TICK {
            assert!(std::time::Instant::now() < until, "no processor time is counted");
        }
        assert!(ours() > watch.ours);
        assert!(memory_of(std::process::id()) > 100_000);
        assert!(!Machine::here(Path::new("/")).kernel.is_empty());
    }
}
