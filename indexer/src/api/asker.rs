//! Asks for one request of a client: the shards of this process, or the processes that have them.
//!
//! Notes on the way what the answers lacked, for the header that says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use runtime::Runtime;

use crate::ask::{Ask, Inquiry};
use crate::export::Window;
use crate::page::Place;
use crate::peers::{PeerWindow, Peers, Told};
use crate::search::{FoundContext, SearchRequest};
use crate::{Error, Indexer, Result};

/// Who knows the contexts.
#[derive(Clone)]
pub enum Source {
    /// This process, with all shards or some.
    Here(Arc<Indexer>),
    /// Other processes, which have them all together.
    Peers(Arc<Peers>),
}

impl From<Arc<Indexer>> for Source {
    fn from(indexer: Arc<Indexer>) -> Self {
        Self::Here(indexer)
    }
}

impl Source {
    pub fn runtime(&self) -> &Runtime {
        match self {
            Self::Here(indexer) => indexer.runtime(),
            Self::Peers(peers) => peers.runtime(),
        }
    }
}

/// What the answers lacked from which that to one request is made.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    shards: AtomicBool,
    rebuilding: AtomicBool,
}

impl Lacks {
    fn note(&self, shards: bool, rebuilding: bool) {
        self.shards.fetch_or(shards, Ordering::Relaxed);
        self.rebuilding.fetch_or(rebuilding, Ordering::Relaxed);
    }

    /// Shards were missing.
    pub fn shards(&self) -> bool {
        self.shards.load(Ordering::Relaxed)
    }

    /// Shards were being made again.
    pub fn rebuilding(&self) -> bool {
        self.rebuilding.load(Ordering::Relaxed)
    }
}

/// Asks for one request.
#[derive(Clone)]
pub(super) struct Asker {
    pub source: Source,
    pub lacks: Arc<Lacks>,
}

impl Ask for Asker {
    fn ask<I: Inquiry>(&self, inquiry: &I) -> Result<I::Answer> {
        match &self.source {
            Source::Here(indexer) => {
                let answer = indexer.ask(inquiry)?;
                self.lacks.note(indexer.lacks_shards(), indexer.is_rebuilding());
                Ok(answer)
            }
            Source::Peers(peers) => {
                let Told { answer, lacks_shards, is_rebuilding } = peers.ask(inquiry)?;
                self.lacks.note(lacks_shards, is_rebuilding);
                Ok(answer)
            }
        }
    }

    fn lacks_shards(&self) -> bool {
        self.lacks.shards()
    }
}

impl Asker {
    /// Locates rows of an export. `is_exact`: whether none that goes meanwhile may be left out.
    pub fn rows<'a>(&self, request: &'a SearchRequest, counts: bool, is_exact: bool) -> Result<Rows<'a>> {
        match &self.source {
            Source::Here(indexer) => {
                let window = indexer.export_window(request, counts)?;
                self.lacks.note(indexer.lacks_shards(), indexer.is_rebuilding());
                Ok(Rows::Here(window))
            }
            Source::Peers(peers) => {
                let kinds = self.kinds_for(&request.environment, &request.filter)?;
                if self.lacks_shards() {
                    return Err(Error::Unreached { why: "an export is of all shards, and some are missing".into() });
                }
                Ok(Rows::Peers(peers.export_window(request, kinds, counts, is_exact)?))
            }
        }
    }
}

/// Located rows.
pub(super) enum Rows<'a> {
    Here(Window<'a>),
    Peers(PeerWindow),
}

impl Rows<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::Here(window) => window.len(),
            Self::Peers(window) => window.len(),
        }
    }

    /// All matches, if they were counted.
    pub fn total(&self) -> Option<u64> {
        match self {
            Self::Here(window) => window.total,
            Self::Peers(window) => window.total,
        }
    }

    /// Place of the last row, if there are more.
    pub fn next(&self) -> Option<&Place> {
        match self {
            Self::Here(window) => window.next.as_ref(),
            Self::Peers(window) => window.next.as_ref(),
        }
    }

    /// Calls `visit` with each row, in order, until it fails.
    pub fn for_each<E: From<Error>>(
        &self,
        visit: impl FnMut(FoundContext) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        match self {
            Self::Here(window) => window.for_each(visit),
            Self::Peers(window) => window.for_each(visit),
        }
    }
}
