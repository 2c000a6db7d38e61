//! A disk that does what a test tells it to: every operation asks a closure first.

use std::io::{self, IoSlice};
use std::path::Path;

use super::super::disk::{Disk, DiskFile, LocalDisk};
use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create,
    Rename,
    Remove,
    SyncDir,
    Write,
    Sync,
    SetLen,
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nothing is done.
    Error(i32),
    /// Half of a write is done, then it fails; like `Error` for other operations.
    Half(i32),
}

impl Fault {
    fn error(self) -> io::Error {
        let (Self::Error(code) | Self::Half(code)) = self;
        io::Error::from_raw_os_error(code)
    }
}

type Plan = Box<dyn FnMut(Op) -> Option<Fault> + Send>;

/// Clones share one plan.
#[derive(Clone)]
pub struct FaultyDisk(Arc<Mutex<Plan>>);

impl FaultyDisk {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Box::new(|_| None))))
    }

    pub fn plan(&self, plan: impl FnMut(Op) -> Option<Fault> + Send + 'static) {
        *self.0.lock() = Box::new(plan);
    }

    /// Counts operations from now on.
    pub fn count(&self) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        self.plan(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            None
        });
        count
    }

    pub fn open(&self, dir: &Path, config: &Config) -> Arc<EmbeddedLog> {
        self.open_for(Usage::Log, dir, config)
    }

    pub fn open_for(&self, usage: Usage, dir: &Path, config: &Config) -> Arc<EmbeddedLog> {
        EmbeddedLog::open_on(Arc::new(self.clone()), dir, config, usage, &Runtime::system()).unwrap()
    }

    fn ask(&self, op: Op) -> io::Result<()> {
        (self.0.lock())(op).map_or(Ok(()), |fault| Err(fault.error()))
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.ask(Op::Create)?;
        Ok(Arc::new(FaultyFile(self.clone(), LocalDisk.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(self.clone(), LocalDisk.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Op::Rename)?;
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask(Op::Remove)?;
        LocalDisk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.ask(Op::SyncDir)?;
        LocalDisk.sync_dir(path)
    }
}

struct FaultyFile(FaultyDisk, Arc<dyn DiskFile>);

impl DiskFile for FaultyFile {
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let fault = (self.0.0.lock())(Op::Write);
        if let Some(fault) = fault {
            if let Fault::Half(_) = fault {
                let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                self.1.write_at(&[IoSlice::new(&all[..all.len() / 2])], position)?;
            }
            return Err(fault.error());
        }
        self.1.write_at(slices, position)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.1.read_at(buffer, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.ask(Op::Sync)?;
        self.1.sync()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.ask(Op::SetLen)?;
        self.1.set_len(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.1.bytes()
    }
}
