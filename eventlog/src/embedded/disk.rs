//! The few operations on files that the log's durability rests on, behind a trait.
//!
//! [`LocalDisk`] is the file system. Tests put a disk in its place that runs out of room, writes half of what it was
//! given, fails to sync or stops at any step. Reading goes through the same trait, so that one test double sees all.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

pub(super) trait Disk: Send + Sync {
    /// Creates a file for reading and writing; an existing one is emptied.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Replaces `to` by `from` in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory survive the loss of power.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

pub(super) trait DiskFile: Send + Sync {
    /// Writes some of `slices`, in order, at `position`; returns how many bytes. One writer at a time.
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Makes what was written survive the loss of power.
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    fn bytes(&self) -> io::Result<u64>;
}

/// `IOV_MAX` of Linux and macOS.
const SLICES_MAX: usize = 1024;

/// Writes all of `slices` at `position`. After an error any part of them may be in the file.
pub(super) fn write_all(file: &dyn DiskFile, mut slices: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_at(&slices[..slices.len().min(SLICES_MAX)], position) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut slices, written);
                position += written as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `buffer` from `position` on.
pub(super) fn read_exact(file: &dyn DiskFile, mut buffer: &mut [u8], mut position: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, position) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                position += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes a small file so that it is there whole or not at all, even after the loss of power.
pub(super) fn replace_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    let temporary = Path::new(&temporary);
    let write = || {
        let file = disk.create(temporary)?;
        write_all(&*file, &mut [IoSlice::new(content)], 0)?;
        file.sync()?;
        disk.rename(temporary, path)?;
        Ok(file)
    };
    let file = write().inspect_err(|_: &io::Error| {
        // Best effort: what stays behind is removed at the next start.
        let _ = disk.remove(temporary);
    })?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

/// What the names of files end with until they are complete.
pub(super) const TEMPORARY: &str = ".new";

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LocalFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

struct LocalFile(File);

impl DiskFile for LocalFile {
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        // The standard library has no stable pwritev; the cursor is free for this, as readers use pread.
        (&self.0).seek(SeekFrom::Start(position))?;
        (&self.0).write_vectored(slices)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
