//! The context index alone: what indexing costs, and what each sort of question costs, over generated contexts.
//!
//! The contexts are those of the table in the search issue: about 330 bytes of JSON, four environments, three kinds, nested
//! objects and arrays, an attribute that is unique and some that repeat; the same for the same seed. Core-time of indexing is
//! that of the whole process, of a question that of the thread that asks it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use clap::Args;
use eventlog::memory::MemoryLog;
use eventlog::{AppendRecord, LogReader, LogWriter, frame};
use events::context::context_hash;
use events::{Environment, LogBatch, Offset, SightingsBatch, Topic, TopicPartition, schema};
use indexer::attribute::AttributePath;
use indexer::filter::Subject;
use indexer::{Ask as _, AttributeSort, BestMatch, Config, Filter, Indexer, Ranking, SearchRequest, Sort};
use runtime::{ByteSize, Runtime, Shutdown};

pub const PARTITIONS: u32 = 2;
const ENVIRONMENTS: [&str; 4] = ["production", "staging", "test", "dev"];
/// Sightings of one log record.
const BATCH: usize = 2_000;
/// Contexts that are in the log and not yet in the index, so that the log's memory is not what is measured.
const AHEAD_MAX: usize = 100_000;

#[derive(Args)]
pub struct SearchArgs {
    #[arg(long, default_value_t = 1_000_000)]
    contexts: usize,
    /// Questions of each sort.
    #[arg(long, default_value_t = 300)]
    questions: usize,
    /// Where the index is made and left; one that is there is asked as it is.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

impl SearchArgs {
    /// For an index that is asked nothing.
    pub fn only_made(contexts: usize, seed: u64) -> Self {
        Self { contexts, questions: 0, dir: None, seed }
    }
}

/// Chance from a seed, the same on every machine (SplitMix64).
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

const FIRST_NAMES: [&str; 16] = [
    "Ana", "Bo", "Chen", "Dara", "Emil", "Fatima", "Goran", "Hana", "Ivo", "Jo", "Kofi", "Lena", "Mina", "Nils",
    "Olga", "Pia",
];
const LAST_NAMES: [&str; 12] =
    ["Souza", "Lind", "Wei", "Okoro", "Berg", "Haddad", "Novak", "Sato", "Silva", "Moreau", "Owusu", "Kraus"];
const PLANS: [&str; 4] = ["free", "silver", "gold", "enterprise"];

/// One generated context.
struct Made {
    environment: Environment,
    kind: &'static str,
    key: String,
    email: String,
    json: String,
}

fn make(seed: u64, number: usize) -> Made {
    let mut chance = Chance(seed ^ (number as u64).wrapping_mul(0xd134_2543_de82_ef95));
    let mut pick = |bound: usize| chance.below(bound as u64) as usize;
    let environment = Environment::new("shop", ENVIRONMENTS[pick(ENVIRONMENTS.len())]);
    let kind = ["user", "user", "user", "user", "user", "user", "user", "user", "org", "device"][pick(10)];
    let (first, last) = (FIRST_NAMES[pick(FIRST_NAMES.len())], LAST_NAMES[pick(LAST_NAMES.len())]);
    let key = format!("{kind}-{number:09x}");
    let email = format!("{}.{}{number}@mail{}.example", first.to_lowercase(), last.to_lowercase(), pick(20));
    let json = format!(
        r#"{{"kind":"{kind}","key":"{key}","name":"{first} {last}","email":"{email}","plan":"{}","seats":{},"beta":{},"joined":{},"address":{{"city":"City {}","country":"C{}"}},"device":{{"os":"iOS {}.{}","model":"m{}"}},"groups":["g{}","g{}"],"score":{}.{}}}"#,
        PLANS[pick(PLANS.len())],
        pick(500),
        pick(5) == 0,
        1_600_000_000_000_u64 + pick(190_000_000) as u64 * 1000,
        pick(5000),
        pick(60),
        pick(6) + 13,
        pick(8),
        pick(300),
        pick(200),
        pick(200),
        pick(100),
        pick(100),
    );
    Made { environment, kind, key, email, json }
}

impl Made {
    /// With another value of one attribute.
    fn changed(mut self) -> Self {
        self.json = self.json.replacen(r#""plan":""#, r#""plan":"once "#, 1);
        self
    }
}

pub fn run(arguments: &SearchArgs) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = arguments.dir.as_deref().unwrap_or(temporary.path());
    let pool = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let runtime = Runtime::system();
    if !dir.join("0").exists() {
        pool.block_on(fill(dir, arguments))?;
    }
    let log = Arc::new(MemoryLog::new(runtime.clock.clone(), [1, PARTITIONS, 1], "bench"));
    let opened = Instant::now();
    let indexer = Indexer::open(dir, Config::default(), log, &runtime).context("opening the index")?;
    println!("open: {:.0} ms", opened.elapsed().as_secs_f64() * 1e3);
    ask(&indexer, arguments)
}

/// Makes the index and prints what that costs.
pub async fn fill(dir: &Path, arguments: &SearchArgs) -> anyhow::Result<()> {
    let runtime = Runtime::system();
    let log = MemoryLog::new(runtime.clock.clone(), [1, PARTITIONS, 1], "bench");
    let config = Config { memory_budget: ByteSize::mib(512), ..Config::default() };
    let indexer = Arc::new(Indexer::open(dir, config, Arc::new(log.clone()), &runtime)?);
    let shutdown = Shutdown::new();
    let running = tokio::spawn({
        let (indexer, shutdown) = (Arc::clone(&indexer), shutdown.clone());
        async move { indexer.run(shutdown).await }
    });
    let now = runtime.clock.now().0;
    println!("| contexts | rows | core-us each | per core-second | bytes of the index per byte of JSON |");
    println!("|---|---|---|---|---|");
    let mut json_bytes = 0;
    let rounds = [
        ("new", arguments.contexts, 600),
        ("unchanged", arguments.contexts / 2, 599),
        ("seen later", arguments.contexts / 10, 300),
        ("changed", arguments.contexts / 10, 200),
    ];
    for (what, rows, seconds_ago) in rounds {
        let before = process_time();
        let mut frames_made = Duration::ZERO;
        for start in (0..rows).step_by(BATCH) {
            let making = thread_time();
            let numbers = start..rows.min(start + BATCH);
            let made = numbers.map(|number| make(arguments.seed, number));
            let made: Vec<Made> = if what == "changed" { made.map(Made::changed).collect() } else { made.collect() };
            json_bytes += if what == "new" { made.iter().map(|one| one.json.len()).sum() } else { 0 };
            let records = records(&made, now - seconds_ago * 1_000_000)?;
            frames_made += thread_time() - making;
            log.append(records).await?;
            until(|| lag(&indexer) < (AHEAD_MAX / BATCH * PARTITIONS as usize) as u64).await;
            forget(&log);
        }
        wait_for(&indexer, &log).await?;
        let used = process_time() - before - frames_made;
        let each = used.as_secs_f64() * 1e6 / rows as f64;
        let of_json = indexer.status().bytes as f64 / json_bytes.max(1) as f64;
        println!("| {what} | {rows} | {each:.1} | {:.0} | {of_json:.2} |", 1e6 / each);
    }
    shutdown.begin();
    running.await?;
    let status = indexer.status();
    println!(
        "index: {} contexts, {:.0} bytes each, {:.2} of the JSON ({:.0} bytes each)",
        status.contexts,
        status.bytes as f64 / status.contexts.max(1) as f64,
        status.bytes as f64 / json_bytes.max(1) as f64,
        json_bytes as f64 / arguments.contexts.max(1) as f64
    );
    println!("memory: {} MiB at most, {} MiB anonymous now", peak_mib("VmHWM")?, peak_mib("RssAnon")?);
    Ok(())
}

fn lag(indexer: &Indexer) -> u64 {
    indexer.status().lag_records
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Until all that is in the log can be searched.
async fn wait_for(indexer: &Indexer, log: &MemoryLog) -> anyhow::Result<()> {
    let mut ends = Vec::new();
    for partition in 0..PARTITIONS {
        ends.push(log.bounds(TopicPartition::new(Topic::Contexts, partition)).await?.end.0);
    }
    until(|| indexer.status().shards.iter().zip(&ends).all(|(shard, end)| shard.next >= *end)).await;
    Ok(())
}

fn forget(log: &MemoryLog) {
    for partition in 0..PARTITIONS {
        let place = TopicPartition::new(Topic::Contexts, partition);
        log.truncate_before(place, log.committed(indexer::LOG_READER, place).unwrap_or(Offset(0)));
    }
}

fn records(made: &[Made], seen_at: i64) -> anyhow::Result<Vec<AppendRecord>> {
    let mut records = Vec::new();
    for partition in 0..PARTITIONS {
        let here = |one: &&Made| {
            context_hash(&one.environment, one.kind, &one.key) % u64::from(PARTITIONS) == u64::from(partition)
        };
        let rows: Vec<&Made> = made.iter().filter(here).collect();
        let text = |get: fn(&Made) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(|one| get(one))))
        };
        let times: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|_| seen_at)).with_timezone("UTC"));
        let schema = schema::sightings_v1();
        let columns: Vec<ArrayRef> = vec![
            text(|one| &one.environment.project),
            text(|one| &one.environment.key),
            text(|one| one.kind),
            text(|one| &one.key),
            Arc::new(rows.iter().map(|_| Some(false)).collect::<BooleanArray>()),
            text(|one| &one.json),
            Arc::clone(&times),
            times,
            text(|_| "GoSDK/1.2"),
            new_null_array(schema.field(9).data_type(), rows.len()),
        ];
        let batch = SightingsBatch::new(RecordBatch::try_new(schema, columns)?)?;
        let frame = frame::encode(&LogBatch::Sightings(batch))?;
        records.push(AppendRecord::new(TopicPartition::new(Topic::Contexts, partition), frame));
    }
    Ok(records)
}

/// Asks questions of each sort and prints what they cost.
fn ask(indexer: &Indexer, arguments: &SearchArgs) -> anyhow::Result<()> {
    println!("| question | found | p50 ms | p99 ms | core-ms |");
    println!("|---|---|---|---|---|");
    let someone = |chance: &mut Chance| make(arguments.seed, chance.below(arguments.contexts as u64) as usize);
    let start = |text: &str, length: u64| text.chars().take(length as usize).collect::<String>();
    type Text<'a> = &'a dyn Fn(&mut Chance) -> (Environment, String);
    let searches: [(&str, Sort, Text<'_>); 10] = [
        ("exact key", Sort::KindKey, &|chance| {
            let one = someone(chance);
            (one.environment, format!("key equals {}", one.key))
        }),
        ("two attributes, newest first", Sort::NewestFirst, &|chance| {
            let (one, city) = (someone(chance), chance.below(5000));
            (one.environment, format!(r#"user.plan equals gold,user./address/city equals "City {city}""#))
        }),
        ("prefix of an e-mail, 8 letters and more", Sort::KindKey, &|chance| {
            let (one, length) = (someone(chance), 8 + chance.below(6));
            (one.environment, format!("user.email startsWith {}", start(&one.email, length)))
        }),
        ("prefix of an e-mail, 3 letters", Sort::KindKey, &|chance| {
            let one = someone(chance);
            (one.environment, format!("user.email startsWith {}", start(&one.email, 3)))
        }),
        ("part of an e-mail, 6 letters", Sort::KindKey, &|chance| {
            let one = someone(chance);
            let part: String = one.email.chars().skip(4).take(6).collect();
            (one.environment, format!("user.email contains {part}"))
        }),
        ("dates of a week", Sort::NewestFirst, &|chance| {
            let (one, day) = (someone(chance), 1_600_000_000_000 + chance.below(2000) * 86_400_000);
            (one.environment, format!("user.joined after {day},user.joined before {}", day + 7 * 86_400_000))
        }),
        ("dates of half of all", Sort::NewestFirst, &|chance| {
            let one = someone(chance);
            (one.environment, "user.joined after 1695000000000".to_owned())
        }),
        ("everything, newest first", Sort::NewestFirst, &|chance| (someone(chance).environment, String::new())),
        ("word with a typo", Sort::KindKey, &|chance| {
            let one = someone(chance);
            (one.environment, format!("q equals \"mureau city {}\"", chance.below(5000)))
        }),
        ("not equal", Sort::KindKey, &|chance| (someone(chance).environment, "user.plan notEquals gold".to_owned())),
    ];
    for (what, sort, text) in searches {
        let mut chance = Chance(arguments.seed ^ 0x5eed);
        measure(what, arguments.questions, || {
            let (environment, text) = text(&mut chance);
            let filter = Filter::parse(&text, Subject::Contexts).map_err(|error| anyhow::anyhow!("{text}: {error}"))?;
            let request = SearchRequest { environment, filter, sort, limit: 20, after: None };
            Ok(Box::new(move || Ok(indexer.search(&request)?.total)))
        })?;
    }
    let look_ups: [(&str, &str, u64, u64); 5] = [
        ("values of e-mail, first letter and on", "email", 1, 8),
        ("values of e-mail, all", "email", 0, 1),
        ("values of city, first letter and on", "/address/city", 1, 8),
        ("values of city, all", "/address/city", 0, 1),
        ("values of plan, all", "plan", 0, 1),
    ];
    for (what, attribute, from, letters) in look_ups {
        let mut chance = Chance(arguments.seed ^ 0x10ad);
        let path = AttributePath::parse(attribute);
        measure(what, arguments.questions, || {
            let one = someone(&mut chance);
            let length = from + chance.below(letters);
            let text = if attribute == "email" { one.email } else { format!("City {}", chance.below(5000)) };
            let (prefix, path) = (vec![start(&text, length)], path.clone());
            Ok(Box::new(move || {
                let found = indexer.attribute_values(&one.environment, Some("user"), &path, &prefix, 50)?;
                Ok(found.iter().map(|(_, values)| values.len() as u64).sum())
            }))
        })?;
    }
    let mut chance = Chance(arguments.seed);
    measure("names of attributes", arguments.questions, || {
        let one = someone(&mut chance);
        Ok(Box::new(move || Ok(indexer.attribute_names(&one.environment, None, &[])?.len() as u64)))
    })?;
    ask_ordered(indexer, arguments)?;
    ask_within(indexer, arguments)
}

/// Searches in orders that no column has.
fn ask_ordered(indexer: &Indexer, arguments: &SearchArgs) -> anyhow::Result<()> {
    let by = |name: &str| AttributeSort::from_name(name).map(Ranking::Attribute);
    let city = |chance: &mut Chance| format!(r#"user./address/city equals "City {}""#, chance.below(5000));
    type Text<'a> = &'a dyn Fn(&mut Chance) -> String;
    let searches: [(&str, Option<Ranking>, Text<'_>); 5] = [
        ("everything, by e-mail", by("attr:/email"), &|_| String::new()),
        ("everything, by a date that is a number", by("-attr:/joined"), &|_| String::new()),
        ("one plan, by city", by("attr:/address/city"), &|_| "user.plan equals gold".to_owned()),
        ("one city, by e-mail", by("attr:/email"), &city),
        ("words, best matches first", None, &|chance| format!("q equals \"City {}\"", chance.below(5000))),
    ];
    for (what, ranking, text) in searches {
        let mut chance = Chance(arguments.seed ^ 0x0bd3);
        measure(what, arguments.questions, || {
            let one = make(arguments.seed, chance.below(arguments.contexts as u64) as usize);
            let filter = Filter::parse(&text(&mut chance), Subject::Contexts)?;
            let best_match = || BestMatch::of(&filter).map(Ranking::BestMatch);
            let ranking = ranking.clone().or_else(best_match).context("an order")?;
            let environment = one.environment;
            let request = SearchRequest { environment, filter, sort: Sort::KindKey, limit: 20, after: None };
            Ok(Box::new(move || Ok(indexer.search_ranked(&request, &ranking)?.total)))
        })?;
    }
    Ok(())
}

/// Look-ups among the contexts that a filter finds.
fn ask_within(indexer: &Indexer, arguments: &SearchArgs) -> anyhow::Result<()> {
    let look_ups = [
        ("values of plan within a city", "plan", "city"),
        ("values of city within a plan", "/address/city", "plan"),
        ("values of e-mail within a plan", "email", "plan"),
        ("names of attributes within a plan", "", "plan"),
    ];
    for (what, attribute, within) in look_ups {
        let mut chance = Chance(arguments.seed ^ 0x17_1d);
        let path = AttributePath::parse(attribute);
        measure(what, arguments.questions, || {
            let one = make(arguments.seed, chance.below(arguments.contexts as u64) as usize);
            let text = match within {
                "city" => format!(r#"user./address/city equals "City {}""#, chance.below(5000)),
                _ => "user.plan equals gold".to_owned(),
            };
            let (filter, path) = (Filter::parse(&text, Subject::Contexts)?, path.clone());
            Ok(Box::new(move || {
                if attribute.is_empty() {
                    let names = indexer.attribute_names_within(&one.environment, &filter, None, &[])?;
                    return Ok(names.found.len() as u64);
                }
                let kind = Some("user");
                let found = indexer.attribute_values_within(&one.environment, &filter, kind, &path, &[], 50)?.found;
                Ok(found.iter().map(|(_, values)| values.len() as u64).sum())
            }))
        })?;
    }
    Ok(())
}

type Question<'a> = Box<dyn Fn() -> indexer::Result<u64> + 'a>;

/// Asks `count` questions that `next` makes; making them is not counted.
fn measure<'a>(what: &str, count: usize, mut next: impl FnMut() -> anyhow::Result<Question<'a>>) -> anyhow::Result<()> {
    let (mut times, mut used, mut found) = (Vec::with_capacity(count), Duration::ZERO, 0);
    for _ in 0..count {
        let question = next()?;
        let (began, core) = (Instant::now(), thread_time());
        found += question()?;
        used += thread_time() - core;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    let each = used.as_secs_f64() * 1e3 / count as f64;
    println!("| {what} | {} | {:.2} | {:.2} | {each:.3} |", found / count as u64, at(50), at(99));
    Ok(())
}

fn clock_time(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local of the type that the call fills.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn thread_time() -> Duration {
    clock_time(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn process_time() -> Duration {
    clock_time(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn peak_mib(field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field)).context("a field of /proc/self/status")?;
    let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kib / 1024)
}
