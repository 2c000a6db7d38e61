//! Erases contexts for good: a job that goes through all places that keep them, whatever happens to the process.
//!
//! In: what a client asks for, by the search API. Out: an index, copies and tables without it, and a certificate.
//! Here because no crate below knows all of these places; what each of them does is theirs.
//!
//! | step | does | again after a death |
//! |---|---|---|
//! | `scheduled` | waits for the time; what is received later stays | waits on |
//! | `resolving` | names the contexts of the next window, and counts their documents | names them again |
//! | `telling` | writes into every `contexts` partition of the log what is to be erased | twice does no harm |
//! | `indexing` | waits until all shards have read that: from here on nothing is found | waits on |
//! | `events` | waits until the table has what was received before, then blanks its rows | finds what is left |
//! | `states` | takes rows out of the table `contexts` | finds what is left |
//! | `merging` | merges the segments that lost documents, which frees their bytes and terms | merges what is left |
//! | `copying` | copies the shards anew, and removes all earlier copies | does it again |
//! | `certifying` | writes down what was done, and forgets what was asked | does it again |
//!
//! Windows bound memory and the record of the job: one is worked through up to `states` before the next. A record is a file
//! of its own below `<data-dir>/erasures/`, replaced in one step after each step; the step it names is repeated.
//! Keys stand in it only until the job is done. The certificate has their SHA-256, so that it can be held against a request
//! by who knows the key, and tells nobody else anything.
//! Not here: the dead letters, whose bytes nobody can read as events; the certificate names them, and when they go.

mod book;
mod certificate;
mod places;
mod record;
mod run;

#[cfg(test)]
mod tests;

pub use book::Book;
pub use certificate::Leftovers;
pub use places::ServedPlaces;
pub use run::run;
