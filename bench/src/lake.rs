//! A table as an outside reader sees it: the commits of `_delta_log` and the files that they name.
//!
//! Replays the JSON commits from version 0 on, which are all there in tables as young as those of a benchmark.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// A table, as of the commits that were read.
pub struct Table {
    path: PathBuf,
    /// The version to read next.
    next: u64,
    /// Bytes of each live file, by its path below the table's.
    files: HashMap<String, u64>,
    /// Commits and objects written so far.
    pub written: Written,
}

/// What writing a table took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub commits: u64,
    pub files: u64,
    pub bytes: u64,
}

impl Table {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), next: 0, files: HashMap::new(), written: Written::default() }
    }

    /// The table in its newest version.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut table = Self::new(path);
        while table.advance()?.is_some() {}
        Ok(table)
    }

    /// Reads the next commit, if there is one. Gives the files that it made visible.
    pub fn advance(&mut self) -> anyhow::Result<Option<Vec<String>>> {
        let commit = self.path.join(format!("_delta_log/{:020}.json", self.next));
        let text = match std::fs::read_to_string(&commit) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| commit.display().to_string()),
        };
        let mut added = Vec::new();
        for line in text.lines() {
            let action: Value = serde_json::from_str(line).with_context(|| commit.display().to_string())?;
            if let Some(path) = action["remove"]["path"].as_str() {
                self.files.remove(path);
            }
            if let Some(path) = action["add"]["path"].as_str() {
                let bytes = action["add"]["size"].as_u64().context("size of a file")?;
                self.files.insert(path.to_owned(), bytes);
                self.written.files += 1;
                self.written.bytes += bytes;
                added.push(path.to_owned());
            }
        }
        self.written.commits += 1;
        self.next += 1;
        Ok(Some(added))
    }

    /// Bytes of the live files.
    pub fn bytes(&self) -> u64 {
        self.files.values().sum()
    }

    pub fn files(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    /// Calls `see` with the payload id of every row of a file that has one.
    pub fn payload_ids(&self, file: &str, mut see: impl FnMut(&str)) -> anyhow::Result<()> {
        let path = self.path.join(file);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let columns = ProjectionMask::columns(reader.parquet_schema(), ["payload_id"]);
        for batch in reader.with_projection(columns).build()? {
            let texts = cast(batch?.column(0), &DataType::Utf8)?;
            texts.as_string::<i32>().iter().flatten().for_each(&mut see);
        }
        Ok(())
    }
}

/// Bytes of all files below a folder, live or not.
pub fn folder_bytes(path: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let entry = entry?;
        // Files that come and go while the server runs are none of our business.
        let Ok(meta) = entry.metadata() else { continue };
        bytes += if meta.is_dir() { folder_bytes(&entry.path()).unwrap_or_default() } else { meta.len() };
    }
    Ok(bytes)
}
