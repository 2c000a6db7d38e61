//! Takes erasures from step to step.

use std::sync::Arc;
use std::time::Duration;

use events::ErasedContexts;
use runtime::{Runtime, Shutdown, UnixMicros};

use super::book::Book;
use super::certificate::{Leftovers, certificate};
use super::places::Places;
use super::record::{Record, Step, Subject, TableDone, Window, sha256_of, sha256_of_one};

/// Contexts of one window: some megabytes of keys, in memory and in the record.
pub const WINDOW_CONTEXTS: usize = 20_000;
/// Contexts of which the certificate has a SHA-256 each.
const TOLD_APART_MAX: usize = 1_000;
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Works on erasures, one after the other as they are due, until shutdown begins. One that fails lets the others go first.
pub async fn run(book: Arc<Book>, places: Arc<dyn Places>, leftovers: Leftovers, runtime: Runtime, shutdown: Shutdown) {
    let job = Job { book, places, leftovers, runtime, window: WINDOW_CONTEXTS };
    tokio::select! {
        () = job.work() => {}
        () = shutdown.begun() => {}
    }
}

pub(super) struct Job {
    pub book: Arc<Book>,
    pub places: Arc<dyn Places>,
    pub leftovers: Leftovers,
    pub runtime: Runtime,
    /// Contexts of one window.
    pub window: usize,
}

impl Job {
    async fn work(&self) {
        let mut failed: Vec<String> = Vec::new();
        let mut pause = RETRY_FIRST;
        loop {
            let (due, next) = self.book.due(self.runtime.clock.now(), &failed);
            if let Some(mut record) = due {
                match self.finish(&mut record).await {
                    Ok(()) => pause = RETRY_FIRST,
                    Err(error) => {
                        tracing::info!(erasure = record.id, step = ?record.step, error = format!("{error:#}"), "an erasure waits and is tried again");
                        record.waits_for = Some(format!("{error:#}"));
                        self.book.show(&record);
                        failed.push(record.id);
                    }
                }
                continue;
            }
            let until_next = next.map(|next| next.since(self.runtime.clock.now()));
            let retry = (!failed.is_empty()).then_some(pause);
            let wait = until_next.into_iter().chain(retry).min();
            // A new one is no reason to try again sooner.
            let is_over = tokio::select! {
                () = self.book.asked.notified() => false,
                () = self.runtime.clock.wait(wait.unwrap_or_default()), if wait.is_some() => true,
            };
            if is_over && retry.is_some() {
                failed.clear();
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }

    /// Takes a record through all steps that are left.
    async fn finish(&self, record: &mut Record) -> anyhow::Result<()> {
        // Also after a restart, when nothing is known where events come in: it costs nothing.
        self.places.distrust(UnixMicros(record.at));
        while !record.is_done() {
            self.step(record).await?;
            record.waits_for = None;
            self.book.save(record).await?;
        }
        tracing::info!(erasure = record.id, contexts = record.totals.contexts, "contexts erased");
        Ok(())
    }

    pub(super) async fn step(&self, record: &mut Record) -> anyhow::Result<()> {
        let contexts = || {
            let names = record.window.contexts.iter().cloned();
            Arc::new(ErasedContexts::new(record.environment(), record.at, names))
        };
        let id = record.id.clone();
        record.step = match record.step {
            Step::Scheduled => Step::Resolving,
            Step::Resolving => self.resolve(record).await?,
            Step::Telling => {
                record.window.told = self.places.tell(contexts()).await?;
                Step::Indexing
            }
            Step::Indexing => {
                self.places.indexed(record.window.told.clone()).await?;
                Step::Events
            }
            Step::Events => {
                let done = self.places.erase_events(id, contexts()).await?;
                record.totals.events = with(record.totals.events, done);
                Step::States
            }
            Step::States => {
                let done = self.places.erase_states(id, contexts()).await?;
                record.totals.states = with(record.totals.states, done);
                if record.window.is_last { Step::Merging } else { Step::Resolving }
            }
            Step::Merging => {
                record.totals.merged_segments = self.places.merge().await?;
                Step::Copying
            }
            Step::Copying => {
                record.totals.copies = self.places.renew_copies().await?;
                Step::Certifying
            }
            Step::Certifying => {
                record.certificate = Some(certificate(record, self.leftovers, self.runtime.clock.now()));
                // What was asked is what was to be forgotten.
                record.subject = None;
                record.window = Window::default();
                Step::Done
            }
            Step::Done => Step::Done,
        };
        Ok(())
    }

    /// Names the contexts of the next window.
    async fn resolve(&self, record: &mut Record) -> anyhow::Result<Step> {
        let before = &record.window;
        let (number, last) = (before.number + 1, before.contexts.last().cloned());
        let (mut contexts, is_last) = match &record.subject {
            Some(Subject::Contexts(names)) => {
                let mut names = names.clone();
                names.sort_unstable();
                (names, true)
            }
            Some(Subject::Filter(text)) => {
                let found = self.places.matching(record.environment(), text.clone(), last, self.window).await?;
                let is_last = found.len() < self.window;
                (found, is_last)
            }
            None => (Vec::new(), true),
        };
        contexts.dedup();
        if contexts.is_empty() {
            record.window.contexts.clear();
            return Ok(Step::Merging);
        }
        let named = Arc::new(ErasedContexts::new(record.environment(), record.at, contexts.iter().cloned()));
        record.totals.documents += self.places.documents(named).await?;
        record.totals.contexts += contexts.len() as u64;
        record.totals.windows_sha256.push(sha256_of(&contexts));
        let room = TOLD_APART_MAX.saturating_sub(record.totals.contexts_sha256.len());
        record.totals.contexts_sha256.extend(contexts.iter().take(room).map(sha256_of_one));
        record.window = Window { number, contexts, is_last, told: Vec::new() };
        Ok(Step::Telling)
    }
}

/// What a table says of all windows so far, with the files of each that were searched.
fn with(before: Option<TableDone>, now: Option<TableDone>) -> Option<TableDone> {
    let searched = before.map_or(0, |before| before.searched_files);
    now.map(|now| TableDone { searched_files: searched + now.searched_files, ..now })
}
