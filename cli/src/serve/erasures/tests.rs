//! The job over places that are only told of: order, windows, deaths between any two steps, failures.

use std::sync::Arc;
use std::time::Duration;

use events::{Environment, ErasedContexts};
use futures::FutureExt;
use futures::future::BoxFuture;
use indexer::ContextName;
use indexer::api::{AskedErasure, ErasureRefusal, ErasureSubject, Erasures, Role};
use parking_lot::Mutex;
use runtime::{Runtime, Shutdown, UnixMicros};
use serde_json::Value;

use super::book::Book;
use super::certificate::Leftovers;
use super::places::Places;
use super::record::{Step, TableDone};
use super::run::Job;

const LEFTOVERS: Leftovers = Leftovers {
    vacuum_age: Duration::from_secs(86_400),
    table_log: Duration::from_secs(7 * 86_400),
    log_retention: Duration::from_secs(3_600),
    table_retention: Duration::ZERO,
    index_retention: Duration::from_secs(30 * 86_400),
};

/// Notes what is asked, and knows contexts `user` `0` to `known`.
#[derive(Default)]
struct Told {
    known: usize,
    calls: Mutex<Vec<String>>,
    /// The next calls of this name fail.
    fails: Mutex<Option<(&'static str, usize)>>,
}

impl Told {
    fn call<T: Send + 'static>(&self, name: &'static str, of: String, answer: T) -> BoxFuture<'_, anyhow::Result<T>> {
        self.calls.lock().push(format!("{name}{of}"));
        let mut fails = self.fails.lock();
        if let Some((failing, times)) = fails.as_mut().filter(|(failing, times)| *failing == name && *times > 0) {
            *times -= 1;
            let error = anyhow::anyhow!("{failing} is away");
            return async move { Err(error) }.boxed();
        }
        async move { Ok(answer) }.boxed()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock())
    }
}

fn count(contexts: &ErasedContexts) -> String {
    format!(" {}", contexts.iter().count())
}

fn table(rows: u64) -> Option<TableDone> {
    Some(TableDone {
        searched_files: 3,
        replaced_files: 1,
        rows,
        version_before: 4,
        version_after: 5,
        foreign_files: 0,
    })
}

impl Places for Told {
    fn distrust(&self, _: UnixMicros) {}

    fn matching(
        &self,
        _: Environment,
        filter: String,
        after: Option<ContextName>,
        limit: usize,
    ) -> BoxFuture<'_, anyhow::Result<Vec<ContextName>>> {
        let first = after.map_or(0, |(_, key)| key.parse::<usize>().unwrap() + 1);
        let found = (first..self.known).take(limit).map(|number| ("user".to_owned(), format!("{number:03}")));
        self.call("matching", format!(" {filter} from {first}"), found.collect())
    }

    fn documents(&self, contexts: Arc<ErasedContexts>) -> BoxFuture<'_, anyhow::Result<u64>> {
        let documents = contexts.iter().count() as u64 * 2;
        self.call("documents", count(&contexts), documents)
    }

    fn tell(&self, contexts: Arc<ErasedContexts>) -> BoxFuture<'_, anyhow::Result<Vec<i64>>> {
        self.call("tell", count(&contexts), vec![7, 9])
    }

    fn indexed(&self, told: Vec<i64>) -> BoxFuture<'_, anyhow::Result<()>> {
        self.call("indexed", format!(" {told:?}"), ())
    }

    fn erase_events(
        &self,
        _: String,
        contexts: Arc<ErasedContexts>,
    ) -> BoxFuture<'_, anyhow::Result<Option<TableDone>>> {
        self.call("events", count(&contexts), table(11))
    }

    fn erase_states(
        &self,
        _: String,
        contexts: Arc<ErasedContexts>,
    ) -> BoxFuture<'_, anyhow::Result<Option<TableDone>>> {
        self.call("states", count(&contexts), table(2))
    }

    fn merge(&self) -> BoxFuture<'_, anyhow::Result<Vec<u64>>> {
        self.call("merge", String::new(), vec![1, 0])
    }

    fn renew_copies(&self) -> BoxFuture<'_, anyhow::Result<Option<Vec<(u64, u64)>>>> {
        self.call("copies", String::new(), Some(vec![(4, 9), (2, 0)]))
    }
}

struct World {
    folder: tempfile::TempDir,
    runtime: Runtime,
    places: Arc<Told>,
}

impl World {
    fn new(known: usize) -> Self {
        let places = Arc::new(Told { known, ..Told::default() });
        Self { folder: tempfile::tempdir().unwrap(), runtime: Runtime::system(), places }
    }

    fn book(&self) -> Arc<Book> {
        Arc::new(Book::open(self.folder.path().join("erasures"), self.runtime.clone()).unwrap())
    }

    fn job(&self, book: &Arc<Book>, window: usize) -> Job {
        let (book, runtime) = (Arc::clone(book), self.runtime.clone());
        Job { book, places: self.places.clone(), leftovers: LEFTOVERS, runtime, window }
    }

    fn asked(&self, subject: ErasureSubject) -> AskedErasure {
        let at = self.runtime.clock.now();
        AskedErasure { environment: environment(), subject, at, role: Role::Writer }
    }
}

fn environment() -> Environment {
    Environment::new("shop", "prod")
}

fn filter() -> ErasureSubject {
    ErasureSubject::Filter("plan equals gold".into())
}

/// Every step by a process of its own, which knows only what is written down.
async fn step_by_step(world: &World, window: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    loop {
        let book = world.book();
        let Some(mut record) = book.due(world.runtime.clock.now(), &[]).0 else { return steps };
        steps.push(record.step);
        // It dies once before it writes down what it did.
        world.job(&book, window).step(&mut record.clone()).await.unwrap();
        world.job(&book, window).step(&mut record).await.unwrap();
        book.save(&record).await.unwrap();
    }
}

#[tokio::test]
async fn windows_go_one_after_the_other_through_any_death() {
    let world = World::new(5);
    let noted = world.book().ask(world.asked(filter())).await.unwrap();
    let steps = step_by_step(&world, 2).await;
    use Step::{Certifying, Copying, Events, Indexing, Merging, Resolving, Scheduled, States, Telling};
    let window = [Resolving, Telling, Indexing, Events, States];
    let expected: Vec<Step> = [&[Scheduled][..], &window, &window, &window, &[Merging, Copying, Certifying]].concat();
    assert_eq!(steps, expected);
    let calls = world.places.calls();
    let found: Vec<&String> = calls.iter().filter(|call| call.starts_with("matching")).collect();
    assert_eq!(found.len(), 6, "each twice");
    assert!(found[0].ends_with("from 0") && found[2].ends_with("from 2") && found[4].ends_with("from 4"), "{found:?}");
    let done = world.book().find(&environment(), noted["id"].as_str().unwrap()).unwrap();
    assert_eq!((&done["state"], &done["progress"]["contexts"]), (&"done".into(), &5.into()));
    let certificate = &done["certificate"];
    assert_eq!(certificate["removed"]["index"]["documents"], 10);
    assert_eq!(certificate["removed"]["eventsTable"]["rows"], 11);
    assert_eq!(certificate["removed"]["eventsTable"]["searchedFiles"], 9, "of three windows");
    assert_eq!(certificate["contexts"]["sha256"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn what_was_asked_is_forgotten_when_it_is_done() {
    let world = World::new(0);
    let names = vec![("user".to_owned(), "secret@shop.example".to_owned()); 2];
    let noted = world.book().ask(world.asked(ErasureSubject::Contexts(names))).await.unwrap();
    assert_eq!(noted["contexts"][0]["key"], "secret@shop.example");
    step_by_step(&world, 100).await;
    let files: Vec<_> = std::fs::read_dir(world.folder.path().join("erasures")).unwrap().collect();
    assert_eq!(files.len(), 1);
    let text = std::fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["certificate"]["contexts"]["count"], 1, "named twice, erased once");
}

#[tokio::test]
async fn nothing_that_matches_is_certified_too() {
    let world = World::new(0);
    world.book().ask(world.asked(filter())).await.unwrap();
    let steps = step_by_step(&world, 2).await;
    assert_eq!(steps.len(), 5, "{steps:?}");
    assert!(!world.places.calls().iter().any(|call| call.starts_with("tell")));
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_lets_others_go_first_and_is_tried_again() {
    let world = World::new(1);
    let book = world.book();
    *world.places.fails.lock() = Some(("copies", 2));
    let first = book.ask(world.asked(filter())).await.unwrap();
    let second = book.ask(world.asked(ErasureSubject::Contexts(vec![("user".into(), "b".into())]))).await.unwrap();
    let shutdown = Shutdown::new();
    let places: Arc<dyn Places> = world.places.clone();
    let running =
        tokio::spawn(super::run(Arc::clone(&book), places, LEFTOVERS, world.runtime.clone(), shutdown.clone()));
    let state = |noted: &Value| book.find(&environment(), noted["id"].as_str().unwrap()).unwrap();
    let mut waited = false;
    // Time is paused, so this passes at once; what is shown between two attempts is announced to nobody.
    let watched = async {
        while [&first, &second].iter().any(|noted| state(noted)["state"] != "done") {
            waited |= state(&first)["waitsFor"] == "copies is away";
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), watched).await.expect("both are done in the end");
    assert!(waited);
    assert_eq!(state(&first).get("waitsFor"), None);
    shutdown.begin();
    running.await.unwrap();
}

#[tokio::test]
async fn there_is_a_bound_on_what_waits() {
    let world = World::new(0);
    let book = world.book();
    for _ in 0..100 {
        book.ask(world.asked(filter())).await.unwrap();
    }
    assert!(matches!(book.ask(world.asked(filter())).await, Err(ErasureRefusal::TooMany(100))));
    assert_eq!(book.list(&environment()).len(), 100);
    assert!(book.list(&Environment::new("shop", "test")).is_empty());
    assert_eq!(book.find(&environment(), "../../etc/passwd"), None);
}
