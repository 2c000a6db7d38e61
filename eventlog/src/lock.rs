//! One process at a time in one directory.
//!
//! A file `lock` is locked (flock) by the process that has the directory, and holds its process id for whoever meets it.
//! The lock ends with the process, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::{Error, Result};

const LOCK_FILE: &str = "lock";

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held for its lock")] File);

impl DirectoryLock {
    /// Makes the directory if there is none, and locks it.
    ///
    /// # Errors
    /// `Refused` with the process id if another process has it.
    pub fn take(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(|error| Error::io("creating", directory, error))?;
        let path = directory.join(LOCK_FILE);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|error| Error::io("opening", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = file.read_to_string(&mut owner);
                let owner = if owner.trim().is_empty() { "unknown".into() } else { owner.trim().to_owned() };
                let what = format!("another process has it open, process id {owner}");
                return Err(Error::Refused { path: directory.into(), what });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("locking", path, error)),
        }
        // Only a courtesy to whoever meets the lock, so a full disk is no reason to stop here.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self(file))
    }
}
