//! More than a server can take: payloads arrive at a fixed rate, whatever becomes of those before them.
//!
//! The clients come from many addresses of this machine. Half of them behave like SDKs: they keep connections, wait 3, 5 or
//! 15 s for an answer (Go, Node, Python), and after a refusal or a broken connection try once more under the same payload id,
//! one second later. The others are rude: a new connection for each try, up to four tries without a pause, one second of
//! patience; some hang up in the middle of a body or without waiting for the answer. An arrival for which no client is free is
//! not sent; it is counted.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::time::timeout;

use crate::bodies;
use crate::client::{Connection, Template};
use crate::load::append_lines;

/// Different bodies, enough for all contexts of the peaks; filling one anew for each arrival would cost the generator
/// more than sending it.
const VARIANTS: usize = 2048;
const STEP: Duration = Duration::from_millis(1);
const SDK_PATIENCE_SECONDS: [u64; 3] = [3, 5, 15];
const SDK_PAUSE: Duration = Duration::from_secs(1);
const RUDE_PATIENCE: Duration = Duration::from_secs(1);
const RUDE_TRIES: usize = 4;
/// Addresses that the clients come from.
const SOURCES: usize = 1000;

#[derive(Args, Clone)]
pub struct StormArgs {
    #[arg(long)]
    pub address: SocketAddr,
    #[arg(long)]
    pub key: String,
    #[arg(long, default_value = "python")]
    pub body: String,
    /// Payloads per second.
    #[arg(long)]
    pub rate: f64,
    #[arg(long)]
    pub seconds: f64,
    /// Clients, and with it connections, at once.
    #[arg(long, default_value_t = 12_000)]
    pub clients: usize,
    /// File that gets the payload ids that were answered 202, one per line.
    #[arg(long)]
    pub acknowledged: PathBuf,
}

/// Sends the storm and prints one line of JSON about it.
pub fn run(args: &StormArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let storm = Arc::new(Storm::new(args)?);
    let unsent = runtime.block_on(blow(&storm, args))?;
    let tally = storm.tally.lock().expect("no panic while locked");
    append_lines(&args.acknowledged, &tally.acknowledged)?;
    println!(
        "{}",
        serde_json::json!({
            "payloads": tally.payloads, "tries": tally.tries, "unsent": unsent, "acceptedInTime": tally.accepted_in_time,
            "accepted": tally.acknowledged.len(), "answers": tally.answers, "timedOut": tally.timed_out,
            "broken": tally.broken, "unconnected": tally.unconnected, "hungUp": tally.hung_up,
        })
    );
    Ok(())
}

#[derive(Default)]
struct Tally {
    payloads: u64,
    tries: u64,
    answers: BTreeMap<u16, u64>,
    /// Payloads answered 202 before the storm was over.
    accepted_in_time: u64,
    timed_out: u64,
    broken: u64,
    unconnected: u64,
    hung_up: u64,
    acknowledged: Vec<String>,
}

struct Storm {
    address: SocketAddr,
    template: Template,
    variants: Vec<Vec<u8>>,
    run: u128,
    idle: Mutex<Vec<Connection>>,
    tally: Mutex<Tally>,
    ends: Instant,
}

/// How a try ended.
enum Outcome {
    Accepted,
    /// Worth another try.
    Again,
    /// A client never tries again after this.
    Ended,
}

impl Storm {
    fn new(args: &StormArgs) -> anyhow::Result<Self> {
        let body = bodies::by_name(&args.body)?;
        let template = Template::new(&args.key, &body.json, true);
        let run = uuid::Uuid::new_v4().as_u128();
        let variant = |number| {
            let mut request = template.bytes.clone();
            template.fill(&mut request, run, number * 131);
            request
        };
        Ok(Self {
            address: args.address,
            variants: (0..VARIANTS).map(variant).collect(),
            template,
            run,
            idle: Mutex::default(),
            tally: Mutex::default(),
            ends: Instant::now() + Duration::from_secs_f64(args.seconds),
        })
    }

    fn count(&self, note: impl FnOnce(&mut Tally)) {
        note(&mut self.tally.lock().expect("no panic while locked"));
    }

    /// The head and the body of a payload.
    fn payload(&self, number: usize) -> (Vec<u8>, &[u8], String) {
        let request = &self.variants[number % VARIANTS];
        let split = request.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(request.len(), |end| end + 4);
        let mut head = request[..split].to_vec();
        let id = self.template.fill_id(&mut head, self.run ^ number as u128).to_owned();
        (head, &request[split..], id)
    }

    /// A connection from the address of client `number`.
    async fn open(&self, number: usize) -> std::io::Result<Connection> {
        let [high, low] = ((number % SOURCES) as u16 + 1).to_be_bytes();
        Connection::open_from(Ipv4Addr::new(127, 1, high, low), self.address).await
    }

    /// One try; gives the connection back if there was an answer on it.
    async fn attempt(
        &self,
        number: usize,
        connection: Option<Connection>,
        (head, body): (&[u8], &[u8]),
        patience: Duration,
    ) -> (Outcome, Option<Connection>) {
        self.count(|tally| tally.tries += 1);
        let exchange = async {
            let mut connection = match connection {
                Some(connection) => connection,
                None => self.open(number).await.map_err(|_| false)?,
            };
            let answer = async {
                connection.send(head).await?;
                connection.send(body).await?;
                connection.read_answer().await
            };
            let status = answer.await.map_err(|_| true)?;
            Ok((status, connection))
        };
        match timeout(patience, exchange).await {
            Err(_) => self.count(|tally| tally.timed_out += 1),
            Ok(Err(true)) => self.count(|tally| tally.broken += 1),
            Ok(Err(false)) => self.count(|tally| tally.unconnected += 1),
            Ok(Ok((status, connection))) => {
                self.count(|tally| *tally.answers.entry(status).or_default() += 1);
                let outcome = match status {
                    202 => Outcome::Accepted,
                    400 | 408 | 429 | 500.. => Outcome::Again,
                    _ => Outcome::Ended,
                };
                return (outcome, Some(connection));
            }
        }
        (Outcome::Again, None)
    }

    fn accept(&self, id: String) {
        let in_time = Instant::now() < self.ends;
        self.count(|tally| {
            tally.accepted_in_time += u64::from(in_time);
            tally.acknowledged.push(id);
        });
    }

    async fn sdk(self: Arc<Self>, number: usize) {
        let (head, body, id) = self.payload(number);
        let patience = Duration::from_secs(SDK_PATIENCE_SECONDS[number / 2 % SDK_PATIENCE_SECONDS.len()]);
        let (outcome, connection) = self.attempt(number, self.idle(), (&head, body), patience).await;
        self.keep(connection);
        match outcome {
            Outcome::Accepted => return self.accept(id),
            Outcome::Ended => return,
            Outcome::Again => tokio::time::sleep(SDK_PAUSE).await,
        }
        let (outcome, connection) = self.attempt(number, None, (&head, body), patience).await;
        self.keep(connection);
        if let Outcome::Accepted = outcome {
            self.accept(id);
        }
    }

    /// A kept connection that the server has not closed meanwhile.
    fn idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().expect("no panic while locked");
        std::iter::from_fn(|| idle.pop()).find(Connection::is_open)
    }

    fn keep(&self, connection: Option<Connection>) {
        self.idle.lock().expect("no panic while locked").extend(connection);
    }

    async fn rude(self: Arc<Self>, number: usize) {
        let (head, body, id) = self.payload(number);
        let sent = match number % 20 {
            1 => &body[..body.len() / 2],
            3 => body,
            _ => {
                for _ in 0..RUDE_TRIES {
                    match self.attempt(number, None, (&head, body), RUDE_PATIENCE).await.0 {
                        Outcome::Accepted => return self.accept(id),
                        Outcome::Ended => return,
                        Outcome::Again => {}
                    }
                }
                return;
            }
        };
        let hang_up = async {
            let mut connection = self.open(number).await?;
            connection.send(&head).await?;
            connection.send(sent).await
        };
        let _ = timeout(RUDE_PATIENCE, hang_up).await;
        self.count(|tally| tally.hung_up += 1);
    }
}

/// Sends arrivals as they are due; gives the number of those for which no client was free.
async fn blow(storm: &Arc<Storm>, args: &StormArgs) -> anyhow::Result<u64> {
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    let (mut arrived, mut unsent) = (0_usize, 0_u64);
    let mut step = tokio::time::interval(STEP);
    while Instant::now() < storm.ends {
        step.tick().await;
        while clients.try_join_next().is_some() {}
        let due = (started.elapsed().as_secs_f64() * args.rate) as usize;
        while arrived < due {
            if clients.len() >= args.clients {
                unsent += 1;
            } else if arrived.is_multiple_of(2) {
                clients.spawn(storm.clone().sdk(arrived));
            } else {
                clients.spawn(storm.clone().rude(arrived));
            }
            arrived += 1;
        }
    }
    storm.count(|tally| tally.payloads = arrived as u64);
    while clients.join_next().await.is_some() {}
    Ok(unsent)
}
