//! What `/proc` tells about a process under measurement. Linux only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

/// Ticks of `/proc/<pid>/stat` in a second; fixed by the kernel's interface, whatever its own clock.
const TICKS_PER_SECOND: u64 = 100;

/// A process, by its id.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

/// Sizes in bytes, as `/proc/<pid>/status` names them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// `VmRSS`.
    pub resident: u64,
    /// `RssAnon`: without pages of files.
    pub anonymous: u64,
    /// `VmHWM`: largest `VmRSS` so far.
    pub peak: u64,
    pub threads: u64,
}

/// One thread since its start.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    pub name: String,
    pub on_core: Duration,
    /// Times that it waited for something and was woken.
    pub wakeups: u64,
}

impl Process {
    /// User and system time so far, of threads that have ended too.
    pub fn core_time(self) -> anyhow::Result<Duration> {
        let stat = self.read("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("stat line")?.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    }

    pub fn memory(self) -> anyhow::Result<Memory> {
        let status = self.read("status")?;
        let number = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            Ok(line.with_context(|| name.to_owned())?.split_whitespace().next().context("a number")?.parse()?)
        };
        Ok(Memory {
            resident: number("VmRSS")? * 1024,
            anonymous: number("RssAnon")? * 1024,
            peak: number("VmHWM")? * 1024,
            threads: number("Threads")?,
        })
    }

    pub fn open_files(self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(self.path("fd"))?.count())
    }

    /// The threads that live now, by id.
    pub fn threads(self) -> anyhow::Result<BTreeMap<u32, Thread>> {
        let mut threads = BTreeMap::new();
        for entry in std::fs::read_dir(self.path("task"))? {
            let entry = entry?;
            let read = |file: &str| std::fs::read_to_string(entry.path().join(file));
            // One that ends meanwhile is left out.
            if let (Ok(name), Ok(times), Ok(status)) = (read("comm"), read("schedstat"), read("status")) {
                let nanos = times.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default();
                let wakeups = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
                let thread = Thread {
                    name: name.trim().to_owned(),
                    on_core: Duration::from_nanos(nanos),
                    wakeups: wakeups.and_then(|count| count.trim().parse().ok()).unwrap_or_default(),
                };
                threads.insert(entry.file_name().to_string_lossy().parse()?, thread);
            }
        }
        Ok(threads)
    }

    fn read(self, file: &str) -> anyhow::Result<String> {
        let path = self.path(file);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    fn path(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0))
    }
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
