//! Signals that ask the process to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// As a shell reports a process that SIGINT ended.
pub const EXIT_CODE: u8 = 130;

/// SIGTERM and SIGINT, caught from construction on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of them; its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
