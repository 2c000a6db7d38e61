//! Copies of shards on an object store: a new owner of a shard downloads one and reads the log on from its offset.
//!
//! ```text
//! shard -> publish -> files, then manifest -> restore -> shard on another machine
//! ```
//!
//! | object, below `snapshots/<partition>/` | holds |
//! |---|---|
//! | `files/<epoch>-<number>-<name>` | one file of a Tantivy segment, written once and never changed |
//! | `<sequence>.json` | a [`Manifest`](manifest::Manifest): which files make the shard, and the offset that they cover |
//!
//! Promise: a manifest names only files that were there before it. Manifests are numbered and created, never overwritten;
//! who takes a shard over begins with one of its own (a claim, with the files of the one before), and from then on the
//! owner before finds its next number taken and publishes no more. A copy that is damaged is passed over for an older one.
//! Not here: what the copies are laid over (`shard::restore`), and the table of states, from which a shard comes back
//! when no copy serves.
//!
//! The store is the object store itself, not a trait of ours: it is one already, with a version in memory, and the crate
//! learns nothing of tables by it. Uploading from the commit of the shard was the other choice; a slow store would then
//! keep contexts from being found.

mod manifest;
mod publish;
pub mod restore;
mod store;
mod sweep;

#[cfg(test)]
mod tests;

pub use publish::{RenewOrder, RenewedCopies, Snapshotter};
pub use store::SnapshotStore;
