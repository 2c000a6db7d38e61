//! Brokers for tests, by `tests/servers/kafka.sh`.

use std::process::Command;

use tempfile::TempDir;

/// The address of the broker that `./test` has started.
pub(crate) fn shared_broker() -> String {
    std::env::var("TIDEGATE_TEST_KAFKA").expect("TIDEGATE_TEST_KAFKA is not set; ./test starts a broker and sets it")
}

/// A broker of the test's own. What it keeps survives `kill` and `start`.
pub(super) struct Broker {
    dir: TempDir,
    address: String,
}

impl Broker {
    pub fn new() -> Self {
        let mut broker = Self { dir: TempDir::new().unwrap(), address: String::new() };
        broker.address = broker.run(&["start", broker.path()]);
        broker
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    pub fn start(&self) {
        let port = self.address.rsplit_once(':').unwrap().1;
        self.run(&["start", self.path(), port]);
    }

    pub fn kill(&self) {
        self.run(&["kill", self.path()]);
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn run(&self, words: &[&str]) -> String {
        // Tests run in the folder of their package.
        let ran = Command::new("../tests/servers/kafka.sh").args(words).output().unwrap();
        assert!(ran.status.success(), "kafka.sh {words:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
