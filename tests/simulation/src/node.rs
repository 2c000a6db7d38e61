//! A process: something that can die or stand still between any two of its steps.
//!
//! The futures of a process run inside [`Node::live`], which drops them when it dies and does not poll them while it
//! stands still; time goes on, and requests that it has sent take effect. What a process spawned elsewhere is cut off at
//! [`Node::step`], which every request to log and store passes when it is sent and when its answer comes back.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::Poll;

use tokio::sync::Notify;

use crate::world::World;

pub struct Node {
    pub name: String,
    pub world: Arc<World>,
    dead: AtomicBool,
    paused: AtomicBool,
    /// Steps before it dies.
    steps_left: AtomicI64,
    changed: Notify,
}

impl Node {
    pub fn new(name: String, world: &Arc<World>) -> Arc<Self> {
        world.note(format_args!("{name} begins"));
        Arc::new(Self {
            name,
            world: Arc::clone(world),
            dead: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            steps_left: AtomicI64::new(i64::MAX),
            changed: Notify::new(),
        })
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn kill(&self) {
        if !self.dead.swap(true, Ordering::Relaxed) {
            self.world.note(format_args!("{} dies", self.name));
            self.changed.notify_waiters();
        }
    }

    /// Dies at that step from now on.
    pub fn kill_after(&self, steps: i64) {
        self.steps_left.store(steps.max(1), Ordering::Relaxed);
    }

    pub fn pause(&self) {
        self.world.note(format_args!("{} stands still", self.name));
        self.paused.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub fn wake(&self) {
        if self.paused.swap(false, Ordering::Relaxed) {
            self.world.note(format_args!("{} wakes up", self.name));
            self.changed.notify_waiters();
        }
    }

    fn is_running(&self) -> bool {
        !self.is_dead() && !self.paused.load(Ordering::Relaxed)
    }

    /// Between two steps.
    pub async fn step(&self) {
        if self.steps_left.fetch_sub(1, Ordering::Relaxed) == 1 && !self.world.is_calm() {
            self.kill();
        }
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_dead() {
                pending::<()>().await;
            }
            if self.is_running() {
                return;
            }
            changed.await;
        }
    }

    /// Runs as long as the process does; `None` if it died first.
    pub async fn live<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_dead() {
                return None;
            }
            if !self.is_running() {
                changed.await;
                continue;
            }
            let done = poll_fn(|context| {
                if let Poll::Ready(done) = work.as_mut().poll(context) {
                    return Poll::Ready(Some(done));
                }
                changed.as_mut().poll(context).map(|()| None)
            });
            if let Some(done) = done.await {
                return Some(done);
            }
        }
    }
}
