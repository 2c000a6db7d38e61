//! One shard on disk: a Tantivy index of the newest states of one `contexts` partition.
//!
//! In: changed [`ContextRecord`]s and the log offset they cover. Out: documents, replaced by identity, and a searcher.
//! Promise: documents and offset become visible together, as the offset rides in the commit. A directory that is
//! missing, of another format or damaged is begun anew; one that another process holds is not touched.
//!
//! | field | kind | holds |
//! |---|---|---|
//! | `terms` | indexed bytes | see `terms` |
//! | `order` | fast bytes | kind, `00`, key (cut after 1 KiB, with its hash): the default order |
//! | `last_seen` | fast i64 | microseconds |
//! | `alone_at` | fast i64 | when the context was last seen alone, where that is not when it was last seen |
//! | `content`, `seen_by` | fast u64 | [`Seen`]: tells that a sighting changes nothing, without reading the record |
//! | `record` | stored text | [`ContextRecord`]; stored bytes before format 5, which Tantivy writes and reads one by one |
//!
//! A JSON field of Tantivy was the other choice; it cannot tell `44` from `"44"` by term, ties path and type to its own
//! encoding, and lists no values without reading it back.
//! Everything a new owner needs is in the directory and the commit payload; `snapshot` copies both.

use std::collections::{BinaryHeap, HashSet};
use std::ffi::OsStr;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tantivy::collector::Count;
use tantivy::directory::error::LockError;
use tantivy::directory::{Directory as _, INDEX_WRITER_LOCK, MmapDirectory};
use tantivy::index::{SegmentComponent, SegmentId, SegmentMeta};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy, NoMergePolicy};
use tantivy::query::{RangeQuery, TermQuery};
use tantivy::schema::{
    BytesOptions, Field, IndexRecordOption, NumericOptions, Schema, SchemaBuilder, TextOptions, Value as _,
};
use tantivy::store::{Compressor, ZstdCompressor};
use tantivy::{
    DocAddress, DocId, DocSet, FutureResult, Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher,
    SegmentReader, TERMINATED, TantivyDocument, TantivyError, Term,
};
use xxhash_rust::xxh3::xxh3_128;

use crate::config::ShardBudget;
use crate::fold::Seen;
use crate::record::ContextRecord;
use crate::shard::MergeScope;
use crate::terms::{self, DistinctTerms, EnvironmentPrefix, KEY_BYTES_MAX};
use crate::{Error, Result};

/// Version of schema, terms and records. A directory of another version is made anew.
pub const FORMAT: u32 = 5;
/// Directories from this version on can be searched meanwhile. In 3, orders by an attribute take a list for a single value; up to
/// 4, no stored array or object equals a given one.
const OLDEST_SEARCHED: u32 = 3;

/// Terms and record of a usual context fit into this without growing.
const DOCUMENT_BYTES: usize = 4096;

/// Names of the files that are not a segment's, as Tantivy gives them.
pub const META_FILE: &str = "meta.json";
pub const MANAGED_FILE: &str = ".managed.json";

/// A merge notices that its writer is gone with its next file: a second is long.
const DISCARD_ATTEMPTS: u32 = 100;
const DISCARD_PAUSE: Duration = Duration::from_millis(10);

/// Term of documents that are no listed contexts, so that they can be counted out.
pub const UNLISTED: &[u8] = b"unlisted";
/// No document has this term.
const NOTHING: &[u8] = b"nothing";
/// Term of documents that say what is erased: where it is missing, nothing needs to be asked of any context.
const ERASURES: &[u8] = b"erasures";

/// What a commit covers; its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub format: u32,
    /// Identity of the topic that was read.
    pub topic_id: String,
    /// First offset not covered.
    pub next: i64,
    /// Newest received-at time covered, microseconds.
    pub received_at: i64,
    /// The states of the table are still being taken over: what is here can be searched, but is not all that was covered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
}

/// The fields of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    pub terms: Field,
    pub record: Field,
    pub last_seen: Field,
    alone_at: Field,
    content: Field,
    seen_by: Field,
    order: Field,
}

pub const LAST_SEEN: &str = "last_seen";
pub const ALONE_AT: &str = "alone_at";
pub const ORDER: &str = "order";
const CONTENT: &str = "content";
const SEEN_BY: &str = "seen_by";
const RECORD: &str = "record";

fn schema() -> (Schema, Fields) {
    schema_with(|builder| builder.add_text_field(RECORD, TextOptions::default().set_stored()))
}

/// That of older formats, which can be searched: it has the same fields.
fn schema_before() -> Schema {
    schema_with(|builder| builder.add_bytes_field(RECORD, BytesOptions::default().set_stored())).0
}

fn schema_with(add_record: impl FnOnce(&mut SchemaBuilder) -> Field) -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let fields = Fields {
        terms: builder.add_bytes_field("terms", BytesOptions::default().set_indexed()),
        order: builder.add_bytes_field(ORDER, BytesOptions::default().set_fast()),
        last_seen: builder.add_i64_field(LAST_SEEN, NumericOptions::default().set_fast()),
        alone_at: builder.add_i64_field(ALONE_AT, NumericOptions::default().set_fast()),
        content: builder.add_u64_field(CONTENT, NumericOptions::default().set_fast()),
        seen_by: builder.add_u64_field(SEEN_BY, NumericOptions::default().set_fast()),
        record: add_record(&mut builder),
    };
    (builder.build(), fields)
}

/// Bytes whose order is: kind, then key.
pub fn order_bytes(kind: &str, key: &str) -> Vec<u8> {
    let mut bytes = kind.as_bytes().to_vec();
    bytes.push(0);
    if key.len() <= KEY_BYTES_MAX {
        bytes.extend_from_slice(key.as_bytes());
    } else {
        bytes.extend_from_slice(&key.as_bytes()[..KEY_BYTES_MAX]);
        bytes.extend_from_slice(&xxh3_128(key.as_bytes()).to_be_bytes());
    }
    bytes
}

/// The reading half of a shard. Cheap to clone; sees the last commit.
#[derive(Clone)]
pub struct ShardReader {
    reader: IndexReader,
    fields: Fields,
}

impl ShardReader {
    fn open(index: &Index, fields: Fields) -> Result<Self> {
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(64)
            .try_into()
            .map_err(Error::index("open the index for reading"))?;
        Ok(Self { reader, fields })
    }

    pub fn searcher(&self) -> Searcher {
        self.reader.searcher()
    }

    pub fn fields(&self) -> Fields {
        self.fields
    }

    /// The stored state of a context.
    pub fn find(&self, identity: &[u8]) -> Result<Option<ContextRecord>> {
        Ok(self.find_unless(identity, |_| false)?.and_then(|(_, record)| record))
    }

    /// What is stored of a context: always how it was seen, and its state unless `is_enough` says that this does.
    pub fn find_unless(
        &self,
        identity: &[u8],
        is_enough: impl FnOnce(&Seen) -> bool,
    ) -> Result<Option<(Seen, Option<ContextRecord>)>> {
        let searcher = self.reader.searcher();
        let Some(address) = self.locate(&searcher, identity).map_err(Error::index("look up a context"))? else {
            return Ok(None);
        };
        let segment = searcher.segment_reader(address.segment_ord);
        let seen = seen_columns(segment, address.doc_id).map_err(Error::index("read columns of a context"))?;
        let record = if is_enough(&seen) { None } else { Some(self.record(&searcher, address)?) };
        Ok(Some((seen, record)))
    }

    /// Whether any context is erased.
    pub fn has_erasures(&self) -> bool {
        self.has_term(&self.searcher(), ERASURES)
    }

    /// When the state with this identity was last seen, microseconds.
    pub fn last_seen_of(&self, identity: &[u8]) -> Result<Option<i64>> {
        let searcher = self.reader.searcher();
        let Some(address) = self.locate(&searcher, identity).map_err(Error::index("look up a state"))? else {
            return Ok(None);
        };
        let columns = searcher.segment_reader(address.segment_ord).fast_fields();
        let last_seen = columns.i64(LAST_SEEN).map_err(Error::index("read columns of a state"))?;
        Ok(last_seen.first(address.doc_id))
    }

    /// The environments that have any states.
    pub fn environments(&self, searcher: &Searcher) -> Result<Vec<EnvironmentPrefix>> {
        let failed = || Error::index("list environments");
        let mut found: Vec<EnvironmentPrefix> = Vec::new();
        for segment in searcher.segment_readers() {
            let index = segment.inverted_index(self.fields.terms).map_err(failed())?;
            let mut from = Some(Vec::new());
            while let Some(start) = from {
                let stream = index.terms().range().ge(&start).into_stream();
                let mut stream = stream.map_err(|error| failed()(error.into()))?;
                // Terms of no environment are few.
                let next = loop {
                    match stream.advance() {
                        true => match EnvironmentPrefix::of_term(stream.key()) {
                            Some(environment) => break Some(environment),
                            None => continue,
                        },
                        false => break None,
                    }
                };
                if let Some(environment) = next.filter(|environment| !found.contains(environment)) {
                    found.push(environment);
                }
                from = next.and_then(|environment| environment.after());
            }
        }
        Ok(found)
    }

    /// How many more living states than `bound` have a term.
    pub fn living_beyond(&self, searcher: &Searcher, term: &[u8], bound: u64) -> Result<u64> {
        let all = searcher.doc_freq(&Term::from_field_bytes(self.fields.terms, term));
        // Dead ones are counted too: where all are within the bound, nothing needs to be looked through.
        if all.map_err(Error::index("count states"))? <= bound {
            return Ok(0);
        }
        Ok(self.count_with(searcher, term)?.saturating_sub(bound))
    }

    /// Of the living states with a term, the `count` that were last seen longest ago.
    pub fn oldest_with(&self, searcher: &Searcher, term: &[u8], count: usize) -> Result<Vec<DocAddress>> {
        let term = Term::from_field_bytes(self.fields.terms, term);
        // The newest of the oldest is on top.
        let mut oldest: BinaryHeap<(i64, DocAddress)> = BinaryHeap::with_capacity(count + 1);
        for (segment_ord, segment) in searcher.segment_readers().iter().enumerate() {
            let failed = || Error::index("look for the oldest states");
            let index = segment.inverted_index(self.fields.terms).map_err(failed())?;
            let postings = index.read_postings(&term, IndexRecordOption::Basic);
            let Some(mut postings) = postings.map_err(|error| failed()(error.into()))? else { continue };
            let last_seen = segment.fast_fields().i64(LAST_SEEN).map_err(failed())?;
            while postings.doc() != TERMINATED {
                let document = postings.doc();
                if !segment.is_deleted(document) {
                    let seen = last_seen.first(document).unwrap_or(i64::MIN);
                    if oldest.len() < count || oldest.peek().is_some_and(|(newest, _)| seen < *newest) {
                        oldest.push((seen, DocAddress::new(segment_ord as u32, document)));
                    }
                    if oldest.len() > count {
                        oldest.pop();
                    }
                }
                postings.advance();
            }
        }
        let mut addresses: Vec<DocAddress> = oldest.into_iter().map(|(_, address)| address).collect();
        // In the order in which they lie there.
        addresses.sort_unstable();
        Ok(addresses)
    }

    /// How many states have a term.
    pub fn count_with(&self, searcher: &Searcher, term: &[u8]) -> Result<u64> {
        let query = TermQuery::new(Term::from_field_bytes(self.fields.terms, term), IndexRecordOption::Basic);
        searcher.search(&query, &Count).map(|count| count as u64).map_err(Error::index("count states"))
    }

    /// All states that have a term.
    pub fn for_each_with(&self, searcher: &Searcher, term: &[u8], mut visit: impl FnMut(ContextRecord)) -> Result<()> {
        let term = Term::from_field_bytes(self.fields.terms, term);
        for (segment_ord, segment) in searcher.segment_readers().iter().enumerate() {
            let failed = || Error::index("read a posting list");
            let index = segment.inverted_index(self.fields.terms).map_err(failed())?;
            let postings = index.read_postings(&term, IndexRecordOption::Basic);
            let Some(mut postings) = postings.map_err(|error| failed()(error.into()))? else { continue };
            while postings.doc() != TERMINATED {
                if !segment.is_deleted(postings.doc()) {
                    visit(self.record(searcher, DocAddress::new(segment_ord as u32, postings.doc()))?);
                }
                postings.advance();
            }
        }
        Ok(())
    }

    /// Sees the last commit, and what was merged since.
    pub fn reload(&self) -> Result<()> {
        self.reader.reload().map_err(Error::index("read the newest commit"))
    }

    fn locate(&self, searcher: &Searcher, identity: &[u8]) -> tantivy::Result<Option<DocAddress>> {
        let term = Term::from_field_bytes(self.fields.terms, identity);
        for (segment_ord, segment) in searcher.segment_readers().iter().enumerate() {
            let Some(mut postings) =
                segment.inverted_index(self.fields.terms)?.read_postings(&term, IndexRecordOption::Basic)?
            else {
                continue;
            };
            while postings.doc() != TERMINATED {
                if !segment.is_deleted(postings.doc()) {
                    return Ok(Some(DocAddress::new(segment_ord as u32, postings.doc())));
                }
                postings.advance();
            }
        }
        Ok(None)
    }

    /// Whether some document, living or not, has a term. Also true where that cannot be told.
    pub fn has_term(&self, searcher: &Searcher, term: &[u8]) -> bool {
        let term = Term::from_field_bytes(self.fields.terms, term);
        searcher.doc_freq(&term).map_or(true, |documents| documents > 0)
    }

    pub fn record(&self, searcher: &Searcher, address: DocAddress) -> Result<ContextRecord> {
        let document: TantivyDocument = searcher.doc(address).map_err(Error::index("read a stored context"))?;
        record_of(&document, self.fields.record)
    }

    /// Where contexts are stored, by identity; in the order in which they lie there.
    pub fn locate_all<'a>(
        &self,
        searcher: &Searcher,
        identities: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<(DocAddress, usize)>> {
        let mut found = Vec::new();
        for (number, identity) in identities.enumerate() {
            let address = self.locate(searcher, identity).map_err(Error::index("look up a context"))?;
            found.extend(address.map(|address| (address, number)));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Calls `visit` with every stored state until it says false.
    pub fn for_each_record(
        &self,
        searcher: &Searcher,
        mut visit: impl FnMut(ContextRecord) -> Result<bool>,
    ) -> Result<()> {
        for segment in searcher.segment_readers() {
            let store = segment
                .get_store_reader(1)
                .map_err(|error| Error::Index { action: "open stored contexts", source: error.into() })?;
            for document in store.iter::<TantivyDocument>(segment.alive_bitset()) {
                let document = document.map_err(Error::index("read a stored context"))?;
                if !visit(record_of(&document, self.fields.record)?)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Documents, and how many of them are listed.
    pub fn listed_contexts(&self) -> u64 {
        let searcher = self.reader.searcher();
        let term = Term::from_field_bytes(self.fields.terms, UNLISTED);
        let mut unlisted = 0;
        for segment in searcher.segment_readers() {
            let Ok(index) = segment.inverted_index(self.fields.terms) else { continue };
            let Ok(Some(mut postings)) = index.read_postings(&term, IndexRecordOption::Basic) else { continue };
            if segment.alive_bitset().is_none() {
                unlisted += u64::from(postings.doc_freq());
                continue;
            }
            while postings.doc() != TERMINATED {
                unlisted += u64::from(!segment.is_deleted(postings.doc()));
                postings.advance();
            }
        }
        searcher.num_docs().saturating_sub(unlisted)
    }
}

/// The state that a document holds.
pub fn record_of(document: &TantivyDocument, field: Field) -> Result<ContextRecord> {
    let value = document.get_first(field);
    let bytes = value.and_then(|value| value.as_str().map(str::as_bytes).or_else(|| value.as_bytes()));
    ContextRecord::from_bytes(bytes.unwrap_or_default())
}

fn seen_columns(segment: &SegmentReader, document: DocId) -> tantivy::Result<Seen> {
    let columns = segment.fast_fields();
    let content = columns.u64(CONTENT)?.first(document).unwrap_or_default();
    let last_seen = columns.i64(LAST_SEEN)?.first(document).unwrap_or_default();
    Ok(Seen::from_numbers(content, last_seen, columns.u64(SEEN_BY)?.values_for_doc(document)))
}

/// The writing half of a shard. One per directory, fenced by a lock file.
pub struct ShardWriter {
    path: PathBuf,
    writer: IndexWriter,
    reader: ShardReader,
    index: Index,
    terms: DistinctTerms,
}

/// A merge that was begun.
pub struct MergeUnderWay {
    pub ended: FutureResult<Option<SegmentMeta>>,
    pub segments: usize,
    /// Documents that were removed from these segments before.
    pub removed_documents: u64,
}

/// A shard as found or made.
pub struct OpenedShard {
    pub writer: ShardWriter,
    /// None: the directory is new.
    pub position: Option<Position>,
    /// Why a directory that was there had to go.
    pub discarded: Option<String>,
}

/// Opens the shard at `path`, beginning it anew if need be.
///
/// # Errors
/// `Locked` if another process writes to it; `Io` and `Index` where a new beginning would not help.
pub fn open(path: &Path, budget: ShardBudget) -> Result<OpenedShard> {
    if !path.join(META_FILE).exists() && !has_entries(path) {
        return create(path, budget, None);
    }
    // Tantivy answers some kinds of damage with a panic.
    let opened = catch_unwind(AssertUnwindSafe(|| open_existing(path, budget)))
        .unwrap_or_else(|_| Err(Error::Damaged { what: "opening it panicked".into() }));
    match opened {
        Ok(opened) => Ok(opened),
        Err(error) if error.kind() == runtime::ErrorKind::Corrupt => {
            discard(path)?;
            create(path, budget, Some(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// Removes a shard that is not open. Blocks for a moment where a merge of the writer before, which cannot be awaited, is
/// still writing there.
pub fn discard(path: &Path) -> Result<()> {
    for _ in 0..DISCARD_ATTEMPTS {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => std::thread::sleep(DISCARD_PAUSE),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", path)(error)),
            _ => return Ok(()),
        }
    }
    Err(Error::io("remove", path)(std::io::ErrorKind::DirectoryNotEmpty.into()))
}

/// [`discard`], unless a process has it open.
///
/// # Errors
/// `Locked` then.
pub fn discard_closed(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let directory = MmapDirectory::open(path).map_err(|error| Error::index("open the index")(error.into()))?;
    let lock = directory.acquire_lock(&INDEX_WRITER_LOCK);
    let _lock = lock.map_err(|_| Error::Locked { path: path.to_owned() })?;
    discard(path)
}

fn has_entries(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

fn create(path: &Path, budget: ShardBudget, discarded: Option<String>) -> Result<OpenedShard> {
    std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
    let (schema, fields) = schema();
    let settings = IndexSettings {
        docstore_compression: Compressor::Zstd(ZstdCompressor { compression_level: Some(1) }),
        // Small blocks: the fold and a page of results read single documents.
        docstore_blocksize: 8 << 10,
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    };
    let index = Index::builder()
        .schema(schema)
        .settings(settings)
        .create_in_dir(path)
        .map_err(Error::index("create the index"))?;
    let writer = ShardWriter::new(path, index, fields, budget)?;
    Ok(OpenedShard { writer, position: None, discarded })
}

fn open_existing(path: &Path, budget: ShardBudget) -> Result<OpenedShard> {
    let (index, fields, position) = read_existing(path)?;
    if let Some(position) = &position
        && position.format != FORMAT
    {
        return Err(Error::Damaged { what: format!("it is of format {}, not {FORMAT}", position.format) });
    }
    if index.schema() != schema().0 {
        return Err(other_schema());
    }
    let writer = ShardWriter::new(path, index, fields, budget)?;
    Ok(OpenedShard { writer, position, discarded: None })
}

/// What a directory holds, whatever its format, and what its last commit covers.
fn read_existing(path: &Path) -> Result<(Index, Fields, Option<Position>)> {
    let index = Index::open_in_dir(path).map_err(Error::index("open the index"))?;
    let (expected, fields) = schema();
    if ![expected, schema_before()].contains(&index.schema()) {
        return Err(other_schema());
    }
    let meta = index.load_metas().map_err(Error::index("read the index's metadata"))?;
    let position = match &meta.payload {
        None if meta.segments.is_empty() => None,
        None => return Err(Error::Damaged { what: "its commit names no offset".into() }),
        Some(payload) => match serde_json::from_str::<Position>(payload) {
            Ok(position) if position.is_partial => {
                return Err(Error::Damaged { what: "the rebuild of it was not finished".into() });
            }
            Ok(position) => Some(position),
            Err(error) => return Err(Error::Damaged { what: format!("its commit payload does not read: {error}") }),
        },
    };
    Ok((index, fields, position))
}

fn other_schema() -> Error {
    Error::Damaged { what: "its schema is of another version".into() }
}

/// Whether the directory is of an older format that can still be searched.
pub fn is_outdated(path: &Path) -> bool {
    let read = catch_unwind(AssertUnwindSafe(|| read_existing(path)));
    let position = read.ok().and_then(|read| read.ok()).and_then(|(_, _, position)| position);
    position.is_some_and(|position| (OLDEST_SEARCHED..FORMAT).contains(&position.format))
}

/// Opens a directory for searches alone, and tells what it covers.
///
/// # Errors
/// `Damaged` if this program cannot search it; `Io`, `Index`.
pub fn open_to_search(path: &Path) -> Result<(ShardReader, Position)> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let (index, fields, position) = read_existing(path)?;
        let is_searched = |position: &Position| (OLDEST_SEARCHED..=FORMAT).contains(&position.format);
        let Some(position) = position.filter(is_searched) else {
            return Err(Error::Damaged { what: "it is of a format that cannot be searched".into() });
        };
        Ok((ShardReader::open(&index, fields)?, position))
    }));
    opened.unwrap_or_else(|_| Err(Error::Damaged { what: "opening it panicked".into() }))
}

impl ShardWriter {
    fn new(path: &Path, index: Index, fields: Fields, budget: ShardBudget) -> Result<Self> {
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(budget.writer_bytes_per_thread)
            .num_worker_threads(budget.writer_threads)
            .num_merge_threads(1)
            .build();
        let writer: IndexWriter = index.writer_with_options(options).map_err(|error| match error {
            TantivyError::LockFailure(LockError::LockBusy, _) => Error::Locked { path: path.to_owned() },
            error => Error::Index { action: "open the index for writing", source: error },
        })?;
        remove_leftovers(path, &index)?;
        let reader = ShardReader::open(&index, fields)?;
        let opened = Self { path: path.to_owned(), writer, reader, index, terms: DistinctTerms::default() };
        // The first stamp after an opening is that of the last commit again. A merge that begins before the next commit takes a
        // removal with this stamp for done in segments that the last commit removed something from: what was removed would be
        // there again. So the first removal is of nothing.
        opened.remove_with(NOTHING);
        opened.merge_by_policy();
        Ok(opened)
    }

    pub fn reader(&self) -> &ShardReader {
        &self.reader
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The index, for checking its files beside the writer.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Writes a state with the next commit. `is_stored`: an older state of it is in the index.
    pub fn put(&mut self, environment: &EnvironmentPrefix, record: &ContextRecord, is_stored: bool) -> Result<()> {
        let fields = self.reader.fields;
        let mut document = TantivyDocument::with_capacity(DOCUMENT_BYTES);
        if is_stored {
            self.writer.delete_term(Term::from_field_bytes(fields.terms, &record.identity(environment)));
        }
        let applications = record.applications.iter().map(|(name, _)| name.as_str());
        let (kind, key) = (record.kind.as_str(), record.key.as_str());
        let mut add = |term: &[u8]| document.add_bytes(fields.terms, term);
        let others = match record.is_listed() {
            false if record.is_erasure() => vec![record.identity(environment), ERASURES.to_vec()],
            false if record.is_instance() => terms::of_deleted_instance(environment, kind, key),
            false => vec![record.identity(environment)],
            true if record.is_instance() => terms::of_instance(environment, kind, key, applications),
            true => {
                self.terms.of_context(environment, (kind, key), &record.parsed(), applications, &mut add);
                Vec::new()
            }
        };
        others.iter().for_each(|term| add(term));
        if !record.is_listed() || record.is_instance() {
            document.add_bytes(fields.terms, UNLISTED);
        } else if let Some(alone_at) = record.alone_at() {
            document.add_bytes(fields.terms, &environment.alone());
            if alone_at != record.last_seen {
                document.add_i64(fields.alone_at, alone_at);
            }
        }
        document.add_bytes(fields.order, &order_bytes(&record.kind, &record.key));
        document.add_i64(fields.last_seen, record.last_seen);
        let (content, seen_by) = Seen::of(record).to_numbers();
        document.add_u64(fields.content, content);
        seen_by.for_each(|packed| document.add_u64(fields.seen_by, packed));
        document.add_text(fields.record, record.to_text());
        self.writer.add_document(document).map_err(Error::index("add a context"))?;
        Ok(())
    }

    /// Removes the states that have a term with the next commit, as far as they were put before.
    pub fn remove_with(&self, term: &[u8]) {
        self.writer.delete_term(Term::from_field_bytes(self.reader.fields.terms, term));
    }

    /// Removes contexts last seen before `cutoff` with the next commit. Returns whether there may be any.
    pub fn expire(&self, cutoff: i64) -> Result<bool> {
        let searcher = self.reader.searcher();
        let mut any = false;
        for segment in searcher.segment_readers() {
            let column = segment.fast_fields().i64(LAST_SEEN).map_err(Error::index("read last-seen times"))?;
            any |= segment.num_docs() > 0 && column.min_value() < cutoff;
        }
        if any {
            let before = Bound::Excluded(Term::from_field_i64(self.reader.fields.last_seen, cutoff));
            let from = Bound::Included(Term::from_field_i64(self.reader.fields.last_seen, i64::MIN));
            self.writer
                .delete_query(Box::new(RangeQuery::new(from, before)))
                .map_err(Error::index("expire contexts"))?;
        }
        Ok(any)
    }

    /// Makes everything put so far visible, together with `position`.
    pub fn commit(&mut self, position: &Position) -> Result<()> {
        assert_eq!(position.format, FORMAT);
        let payload = serde_json::to_string(position).expect("numbers and texts are written without fail");
        let mut prepared = self.writer.prepare_commit().map_err(Error::index("prepare a commit"))?;
        prepared.set_payload(&payload);
        prepared.commit().map_err(Error::index("commit"))?;
        self.reader.reader.reload().map_err(Error::index("read back a commit"))
    }

    /// Begins to merge segments of the last commit; none if there is nothing to merge. No other merge begins until
    /// [`Self::merge_by_policy`].
    pub fn begin_merge(&mut self, scope: MergeScope) -> Result<Option<MergeUnderWay>> {
        self.writer.set_merge_policy(Box::new(NoMergePolicy));
        // A merge that ends takes its segments out of use first and out of the metadata then, with an fsync between. This
        // waits in line behind it: segments that the metadata names now are in use, unless another merge ends right here.
        self.writer.garbage_collect_files().wait().map_err(Error::index("wait for a merge to end"))?;
        let meta = self.index.load_metas().map_err(Error::index("read the index's metadata"))?;
        let is_wanted = |segment: &&SegmentMeta| scope == MergeScope::All || segment.has_deletes();
        let wanted: Vec<&SegmentMeta> = meta.segments.iter().filter(is_wanted).collect();
        let is_one = |segments: &[&SegmentMeta]| matches!(segments, [only] if !only.has_deletes());
        if wanted.is_empty() || is_one(&wanted) {
            return Ok(None);
        }
        let ids: Vec<SegmentId> = wanted.iter().map(|segment| segment.id()).collect();
        let removed_documents = wanted.iter().map(|segment| u64::from(segment.num_deleted_docs())).sum();
        Ok(Some(MergeUnderWay { ended: self.writer.merge(&ids), segments: ids.len(), removed_documents }))
    }

    /// Lets segments merge by their sizes and by how much of them is dead.
    pub fn merge_by_policy(&self) {
        let mut merge_policy = LogMergePolicy::default();
        // A context seen again replaces its document: let no segment be more than a third dead.
        merge_policy.set_del_docs_ratio_before_merge(0.3);
        self.writer.set_merge_policy(Box::new(merge_policy));
    }

    /// Removes files that the last commit does not name. Returns whether none is left; readers of earlier commits keep some.
    pub fn remove_unnamed_files(&self) -> Result<bool> {
        self.writer.garbage_collect_files().wait().map_err(Error::index("remove files of merged segments"))?;
        let meta = self.index.load_metas().map_err(Error::index("read the index's metadata"))?;
        let named: HashSet<PathBuf> = meta.segments.iter().flat_map(files_of).collect();
        let entries = std::fs::read_dir(&self.path).map_err(Error::io("list", &self.path))?;
        let is_left = |name: &OsStr| name.to_str().is_some_and(is_of_a_segment) && !named.contains(Path::new(name));
        Ok(!entries.filter_map(|entry| Some(entry.ok()?.file_name())).any(|name| is_left(&name)))
    }

    /// Ends when merges under way have.
    pub fn close(self) -> Result<()> {
        self.writer.set_merge_policy(Box::new(NoMergePolicy));
        self.writer.wait_merging_threads().map_err(Error::index("wait for merges"))
    }

    /// Whether the directory is still what this writer opened.
    pub fn is_in_place(&self) -> bool {
        self.path.join(META_FILE).exists()
    }
}

/// Removes what a killed process wrote and no commit names.
///
/// Not only for the room: the number in the name of a list of deleted documents is counted on from the last commit, so
/// the next commit would want the very name that the leftover has, and fail for ever as that file is there already.
fn remove_leftovers(path: &Path, index: &Index) -> Result<()> {
    let meta = index.load_metas().map_err(Error::index("read the index's metadata"))?;
    let named: HashSet<PathBuf> = meta.segments.iter().flat_map(files_of).collect();
    for entry in std::fs::read_dir(path).map_err(Error::io("list", path))? {
        let file = entry.map_err(Error::io("list", path))?.path();
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if (is_of_a_segment(name) && !named.contains(Path::new(name))) || name.starts_with(".tmp") {
            match std::fs::remove_file(&file) {
                // A merge of the writer before this one, which nobody waits for, may be removing it too.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &file)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Files of a segment begin with its id, 32 hexadecimal digits.
pub fn is_of_a_segment(name: &str) -> bool {
    name.split('.').next().is_some_and(|stem| stem.len() == 32 && stem.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether some file of the index at `path` does not fit its checksum, or is gone. Reads all of them.
pub fn has_damaged_files(index: &Index, path: &Path) -> bool {
    match index.validate_checksum() {
        Ok(damaged) => !damaged.is_empty(),
        // A merge may have removed a file since the check began; only one that is still wanted counts.
        Err(_) => index
            .load_metas()
            .is_ok_and(|meta| meta.segments.iter().flat_map(files_of).any(|file| !path.join(file).exists())),
    }
}

/// Whether the index at `path`, which nobody has open, can be read: all of its files fit their checksums.
///
/// # Errors
/// `Damaged` with what is wrong.
pub fn verify(path: &Path) -> Result<()> {
    let damaged = |error: TantivyError| Error::Damaged { what: error.to_string() };
    let index = Index::open_in_dir(path).map_err(damaged)?;
    if index.schema() != schema().0 {
        return Err(other_schema());
    }
    let meta = index.load_metas().map_err(damaged)?;
    if let Some(missing) = meta.segments.iter().flat_map(files_of).find(|file| !path.join(file).exists()) {
        return Err(Error::Damaged { what: format!("it has no {}", missing.display()) });
    }
    match index.validate_checksum().map_err(damaged)?.into_iter().next() {
        Some(file) => Err(Error::Damaged { what: format!("{} does not fit its checksum", file.display()) }),
        None => Ok(()),
    }
}

/// The files that every segment of our schema has.
const SEGMENT_PARTS: [SegmentComponent; 6] = [
    SegmentComponent::Postings,
    SegmentComponent::Positions,
    SegmentComponent::Terms,
    SegmentComponent::Store,
    SegmentComponent::FastFields,
    SegmentComponent::FieldNorms,
];

pub fn files_of(segment: &SegmentMeta) -> impl Iterator<Item = PathBuf> {
    let deleted = segment.has_deletes().then_some(SegmentComponent::Delete);
    SEGMENT_PARTS.into_iter().chain(deleted).map(|part| segment.relative_path(part))
}

/// Bytes of all files of the shard at `path`.
pub fn size_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use events::Environment;
    use serde_json::value::RawValue;

    use super::*;

    fn record(key: &str, plan: &str) -> ContextRecord {
        let context = format!(r#"{{"kind":"user","key":"{key}","plan":"{plan}"}}"#);
        ContextRecord {
            project: "default".into(),
            environment: "dev".into(),
            kind: "user".into(),
            key: key.into(),
            context: RawValue::from_string(context).unwrap(),
            anonymous: false,
            last_seen: 1,
            attributes_at: 1,
            content: 0,
            applications: vec![(String::new(), 1)],
            alone: Vec::new(),
        }
    }

    fn position(next: i64) -> Position {
        Position { format: FORMAT, topic_id: "t".into(), next, received_at: 1, is_partial: false }
    }

    fn budget() -> ShardBudget {
        ShardBudget {
            writer_threads: 1,
            writer_bytes_per_thread: 16 << 20,
            pending_bytes: 1 << 20,
            seen_entries: 100,
            environment_contexts: None,
        }
    }

    #[test]
    fn directories_of_the_schema_before_are_searched_and_not_written() {
        let prefix = EnvironmentPrefix::new(&Environment::new("default", "dev"));
        let dir = tempfile::tempdir().unwrap();
        let index = Index::builder().schema(schema_before()).create_in_dir(dir.path()).unwrap();
        let mut writer: IndexWriter = index.writer_with_num_threads(1, 16 << 20).unwrap();
        let (fields, record) = (schema().1, record("a", "old"));
        let mut document = TantivyDocument::default();
        document.add_bytes(fields.terms, &record.identity(&prefix));
        document.add_bytes(fields.record, record.to_text().as_bytes());
        writer.add_document(document).unwrap();
        let mut prepared = writer.prepare_commit().unwrap();
        prepared.set_payload(&serde_json::to_string(&Position { format: FORMAT - 1, ..position(1) }).unwrap());
        prepared.commit().unwrap();
        writer.wait_merging_threads().unwrap();
        assert!(is_outdated(dir.path()));
        let (reader, before) = open_to_search(dir.path()).unwrap();
        assert_eq!((before.format, before.next), (FORMAT - 1, 1));
        assert_eq!(reader.find(&prefix.identity("user", "a")).unwrap().unwrap().parsed()["plan"], "old");
        assert!(open(dir.path(), budget()).unwrap().discarded.is_some());
    }

    /// The first context that is replaced after an opening, while segments merge that the last commit has removed from.
    #[test]
    fn replaced_context_does_not_come_back_with_a_merge() {
        let prefix = EnvironmentPrefix::new(&Environment::new("default", "dev"));
        let dir = tempfile::tempdir().unwrap();
        let opened = || {
            let writer = open(dir.path(), budget()).unwrap().writer;
            writer.writer.set_merge_policy(Box::new(NoMergePolicy));
            writer
        };
        let mut writer = opened();
        for key in ["a", "b"] {
            writer.put(&prefix, &record(key, "old"), false).unwrap();
        }
        writer.commit(&position(1)).unwrap();
        for key in ["c", "d", "e", "f"] {
            writer.put(&prefix, &record(key, "old"), false).unwrap();
        }
        writer.put(&prefix, &record("b", "new"), true).unwrap();
        writer.commit(&position(2)).unwrap();
        writer.close().unwrap();
        for key in ["a", "c"] {
            let mut writer = opened();
            writer.put(&prefix, &record(key, "new"), true).unwrap();
            let merge = writer.begin_merge(MergeScope::All).unwrap();
            merge.unwrap().ended.wait().unwrap();
            writer.commit(&position(3)).unwrap();
            let reader = writer.reader().clone();
            let searcher = reader.searcher();
            assert_eq!(searcher.num_docs(), 6, "{key}");
            let term = prefix.identity("user", key);
            assert_eq!(reader.count_with(&searcher, &term).unwrap(), 1);
            assert_eq!(reader.find(&term).unwrap().unwrap().parsed()["plan"], "new");
            writer.close().unwrap();
        }
    }
}
