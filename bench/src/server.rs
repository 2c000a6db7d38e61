//! Servers under measurement, as processes of their own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// The fake SDK key that the configuration of these benchmarks knows.
pub const SDK_KEY: &str = "sdk-00000000-0000-4000-8000-00000000000a";
const API_TOKEN: &str = "api-00000000-0000-4000-8000-00000000000a";

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// The bare server: this program again.
    pub fn bare() -> anyhow::Result<Self> {
        Self::this_program(Command::new(std::env::current_exe()?).args(["bare", "127.0.0.1:0"]))
    }

    /// Endpoint and embedded log alone: this program again.
    pub fn durable(data_dir: &Path) -> anyhow::Result<Self> {
        Self::this_program(Command::new(std::env::current_exe()?).args(["durable", "127.0.0.1:0"]).arg(data_dir))
    }

    /// Starts a command that prints its address.
    fn this_program(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }

    /// `tidegate serve` on `data_dir`, with the named stages running.
    pub fn tidegate(binary: &Path, data_dir: &Path, compactor: bool, indexer: bool) -> anyhow::Result<Self> {
        let address: SocketAddr = free_address()?;
        let config = data_dir.with_extension("toml");
        std::fs::write(
            &config,
            format!(
                "listen = \"{address}\"\n[compactor]\nenabled = {compactor}\n[indexer]\nenabled = {indexer}\n\
                 [[environments]]\nproject = \"default\"\nkey = \"dev\"\nsdk_keys = [\"{SDK_KEY}\"]\n\
                 [[api_tokens]]\ntoken = \"{API_TOKEN}\"\nrole = \"writer\"\n"
            ),
        )?;
        let child = Command::new(binary)
            .arg("serve")
            .args(["--log-level", "warn"])
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(data_dir)
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let server = Self { child, address };
        server.wait_until(Duration::from_secs(30), || Ok(server.get("/readyz")?.0 == 200))?;
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// User and system time of the process so far.
    pub fn core_time(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("stat line")?.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 1_000 / 100))
    }

    /// Largest resident set so far, in MiB.
    pub fn peak_mib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM")).context("VmHWM")?;
        Ok(line.split_whitespace().nth(1).context("VmHWM")?.parse::<u64>()? / 1024)
    }

    /// `GET path`: status and body.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        use std::io::{Read, Write};
        let Ok(mut stream) = std::net::TcpStream::connect(self.address) else { return Ok((0, String::new())) };
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: {API_TOKEN}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        Ok((status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())))
    }

    /// Asks `condition` again and again until it holds.
    pub fn wait_until(
        &self,
        limit: Duration,
        mut condition: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !condition()? {
            ensure!(Instant::now() < deadline, "waited {limit:?} in vain");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends the server as an operator would and waits for it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        // SAFETY: plain system call on the process this struct started and has not yet waited for.
        let sent = unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        ensure!(sent == 0, "SIGTERM could not be sent");
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the server ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Runs the load generator in a process of its own and gives its report.
pub fn load(
    server: &Server,
    body: &str,
    connections: usize,
    requests: usize,
    vary: bool,
) -> anyhow::Result<serde_json::Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["load", "--address", &server.address.to_string(), "--key", SDK_KEY, "--body", body]);
    command.args(["--connections", &connections.to_string(), "--requests", &requests.to_string()]);
    if vary {
        command.arg("--vary");
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the load generator failed");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["refused"] == 0, "refused requests: {report}");
    Ok(report)
}
