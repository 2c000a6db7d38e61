//! Servers under measurement, as processes of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::process::{Process, mib};

/// The fake SDK key that the configuration of these benchmarks knows.
pub const SDK_KEY: &str = "sdk-00000000-0000-4000-8000-00000000000a";
const API_TOKEN: &str = "api-00000000-0000-4000-8000-00000000000a";
/// Path of the search in its only environment.
const SEARCH: &str = "/api/v2/projects/default/environments/dev/contexts/search";

/// How a server differs from one with the default settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Subcommand of the part of the pipeline that it is; without it all of them (`serve`).
    pub task: Option<&'static str>,
    /// Lines of TOML for the section `[compactor]`.
    pub compactor: String,
    /// Lines of TOML for the section `[indexer]`.
    pub indexer: String,
    /// More sections, as TOML.
    pub sections: String,
    /// Cores that the process may use, as `taskset` takes them; without it all.
    pub cores: Option<String>,
}

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

    /// Endpoint and log alone: this program again. The log is the embedded one, or on the given brokers.
    pub fn durable(data_dir: &Path, kafka: Option<&str>) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["durable", "127.0.0.1:0"]).arg(data_dir);
        Self::this_program(command.args(kafka.into_iter().flat_map(|brokers| ["--kafka", brokers])))
    }

    /// Starts a command that prints its address.
    fn this_program(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        let address = line.trim().parse().context("the server ended before it listened")?;
        Ok(Self { child, address })
    }

    /// `tidegate serve` on `data_dir`, with the named stages running.
    pub fn tidegate(binary: &Path, data_dir: &Path, compactor: bool, indexer: bool) -> anyhow::Result<Self> {
        let enabled = |enabled: bool| format!("enabled = {enabled}");
        let settings = Settings { compactor: enabled(compactor), indexer: enabled(indexer), ..Settings::default() };
        Self::with_settings(binary, data_dir, &settings)
    }

    /// `tidegate serve`, or a part of it, on `data_dir`, ready.
    pub fn with_settings(binary: &Path, data_dir: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let address: SocketAddr = free_address()?;
        let config = data_dir.with_extension("toml");
        std::fs::write(
            &config,
            format!(
                "listen = \"{address}\"\n[compactor]\n{}\n[indexer]\n{}\n{}\n\
                 [[environments]]\nproject = \"default\"\nkey = \"dev\"\nsdk_keys = [\"{SDK_KEY}\"]\n\
                 [[api_tokens]]\ntoken = \"{API_TOKEN}\"\nrole = \"writer\"\n",
                settings.compactor, settings.indexer, settings.sections
            ),
        )?;
        let mut command = on_cores(settings.cores.as_deref(), binary);
        command
            .args([settings.task.unwrap_or("serve"), "--log-level", "warn", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(data_dir);
        let child = command.stdout(Stdio::null()).spawn().with_context(|| format!("starting {}", binary.display()))?;
        let server = Self { child, address };
        server.wait_until(Duration::from_secs(30), || Ok(server.get("/readyz")?.0 == 200))?;
        Ok(server)
    }

    pub fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// User and system time of the process so far.
    pub fn core_time(&self) -> anyhow::Result<Duration> {
        self.process().core_time()
    }

    /// Largest resident set so far, in MiB.
    pub fn peak_mib(&self) -> anyhow::Result<u64> {
        Ok(mib(self.process().memory()?.peak) as u64)
    }

    /// `GET path`: status and body.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        self.request("GET", path, "")
    }

    /// The answer of `/api/tidegate/pipeline`.
    pub fn pipeline(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.get("/api/tidegate/pipeline")?.1).context("pipeline answer")
    }

    /// A metric, with labels as it shows them; 0 if it is not there.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.get("/metrics")?.1;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        Ok(value.unwrap_or_default())
    }

    /// The contexts that match a filter, 50 at most.
    pub fn search(&self, filter: &str) -> anyhow::Result<Vec<Value>> {
        let (status, body) =
            self.request("POST", SEARCH, &serde_json::json!({"filter": filter, "limit": 50}).to_string())?;
        ensure!(status == 200, "a search was answered {status}: {body}");
        let mut answer: Value = serde_json::from_str(&body)?;
        Ok(answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// Posts events as an SDK would; gives the status.
    pub fn post_events(&self, events: &str, payload_id: &str) -> anyhow::Result<u16> {
        let headers = format!("X-LaunchDarkly-Event-Schema: 4\r\nX-LaunchDarkly-Payload-ID: {payload_id}\r\n");
        Ok(self.exchange("POST", "/bulk", SDK_KEY, &headers, events)?.0)
    }

    /// One request of the REST API: status and body; status 0 if nobody answers.
    pub fn request(&self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        self.exchange(method, path, API_TOKEN, "", body)
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        credential: &str,
        headers: &str,
        body: &str,
    ) -> anyhow::Result<(u16, String)> {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return Ok((0, String::new())) };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: {credential}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        Ok((status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())))
    }

    /// Asks `condition` again and again until it holds.
    pub fn wait_until(&self, limit: Duration, condition: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        self.look_until(Duration::from_millis(20), limit, condition)
    }

    /// The same with a time between two looks, which are part of what is measured.
    pub fn look_until(
        &self,
        every: Duration,
        limit: Duration,
        mut condition: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !condition()? {
            ensure!(Instant::now() < deadline, "waited {limit:?} in vain");
            std::thread::park_timeout(every);
        }
        Ok(())
    }

    /// Waits until a stage (`table`, `index`) has everything that the log holds.
    pub fn wait_caught_up(&self, stage: &str, limit: Duration) -> anyhow::Result<()> {
        self.wait_until(limit, || self.has_caught_up(stage))
    }

    /// Whether a stage has everything that the log holds.
    pub fn has_caught_up(&self, stage: &str) -> anyhow::Result<bool> {
        // Before its first commit a stage has not yet looked at the log and knows of no lag.
        let result = if stage == "table" { "files" } else { "contexts" };
        let pipeline = self.pipeline()?;
        Ok(pipeline[stage]["lagRecords"] == 0 && pipeline[stage][result].as_u64().unwrap_or(0) > 0)
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

/// A command that runs on the given cores only; `taskset` becomes the program, so that the process id is its own.
pub fn on_cores(cores: Option<&str>, program: &Path) -> Command {
    match cores {
        None => Command::new(program),
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", cores]).arg(program);
            command
        }
    }
}

/// What the load generator sends.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    pub body: &'a str,
    pub connections: usize,
    pub requests: usize,
    /// Whether each request has contexts of its own.
    pub vary: bool,
    /// Requests per second; without it as many as are answered.
    pub rate: Option<f64>,
}

impl<'a> Load<'a> {
    /// Contexts vary, and as much is sent as is answered.
    pub fn varied(body: &'a str, connections: usize, requests: usize) -> Self {
        Self { body, connections, requests, vary: true, rate: None }
    }
}

/// What a load came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// Core-time of the server.
    pub core_time: Duration,
    pub elapsed: Duration,
    /// From sending to the answer.
    pub p50: Duration,
    pub p99: Duration,
    /// From the time that a request was due at the given rate: later than that it was sent when all connections waited.
    pub p99_since_due: Duration,
}

/// Runs the load generator in a process of its own; every request must be accepted.
pub fn load(server: &Server, load: &Load<'_>) -> anyhow::Result<Loaded> {
    let mut command = load_command(server, None)?;
    command.args(["--body", load.body, "--connections", &load.connections.to_string()]);
    command.args(["--requests", &load.requests.to_string()]);
    command.args(load.vary.then_some("--vary"));
    command.args(load.rate.into_iter().flat_map(|rate| ["--rate".to_owned(), rate.to_string()]));
    let before = server.core_time()?;
    let report = report_of(command)?;
    let core_time = server.core_time()? - before;
    ensure!(report["refused"] == 0 && report["broken"] == 0, "refused or broken requests: {report}");
    let micros = |name: &str| Duration::from_micros(report[name].as_u64().unwrap_or_default());
    Ok(Loaded {
        core_time,
        elapsed: Duration::from_millis(report["elapsedMillis"].as_u64().unwrap_or_default()),
        p50: micros("p50Micros"),
        p99: micros("p99Micros"),
        p99_since_due: micros("p99SinceDueMicros"),
    })
}

/// The load generator against `server`, to be given more arguments.
pub fn load_command(server: &Server, cores: Option<&str>) -> anyhow::Result<Command> {
    let mut command = on_cores(cores, &std::env::current_exe()?);
    command.args(["load", "--address", &server.address.to_string(), "--key", SDK_KEY]);
    Ok(command)
}

/// Runs a command that prints JSON.
pub fn report_of(mut command: Command) -> anyhow::Result<Value> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the load generator failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}
