//! `tidegate index`: work on the index by order. What a running server does is in `orders`.
//!
//! Here: `rebuild`, which makes shards of the index anew from the table `contexts` and the log, while nothing else runs.
//!
//! Copies of shards are left out on purpose: whoever asks for this does not trust them either. The next start of the index
//! copies what was made here. A shard is only thrown away after it is certain that table and log together hold all of it.

mod orders;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use eventlog::LogReader;
use events::{Topic, TopicPartition};
use indexer::table::StateTable;
use indexer::{Beyond, Indexer};
use runtime::{Runtime, Shutdown};

use crate::args::IndexRebuild;
use crate::config;
use crate::serve::contexts_table;
use crate::serve::log::{self, Appends, Log};
use crate::{UsageError, command_runtime, logging};

pub use orders::{check, merge};

/// How often progress is looked at and shown.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Nothing was appended, so nothing is waited for.
const LOG_CLOSE: Duration = Duration::from_secs(1);
/// Folder of the index in the data directory.
const FOLDER: &str = "index";

pub fn rebuild(arguments: &IndexRebuild) -> anyhow::Result<()> {
    if arguments.online {
        return orders::rebuild(arguments);
    }
    if arguments.shards.server.server.is_some() {
        bail!(UsageError("--server: only a rebuild with --online asks a server".into()));
    }
    let settings = config::load(&arguments.shards.common.layers())?;
    let count = settings.log.contexts_partitions;
    if let Some(wrong) = arguments.shards.partitions.iter().find(|partition| **partition >= count) {
        bail!(UsageError(format!("--partition {wrong}: there are {count}, counted from 0")));
    }
    if !settings.data_dir.join(log::FOLDER).exists() {
        bail!(UsageError(format!("--data-dir {}: there is no data of tidegate", settings.data_dir.display())));
    }
    logging::start("warn", None)?;
    let partitions = match arguments.shards.partitions.as_slice() {
        [] => (0..count).collect(),
        given => given.to_vec(),
    };
    command_runtime()?.block_on(async {
        let runtime = Runtime::system();
        // Holds the lock of the data directory to the end.
        let opened = Log::open(&settings, Appends::Little, &runtime).await;
        let opened = opened.context("an index is rebuilt while nothing else uses the data directory")?;
        let log = opened.reader();
        // What other stages have not read stays in the log.
        compactor::TOPICS.into_iter().for_each(|topic| log.register(compactor::LOG_READER, topic));
        let table = contexts_table::open(&settings, &runtime, None).await?;
        for partition in &partitions {
            check_covered(log.as_ref(), table.as_ref(), *partition).await?;
        }
        let dir = settings.data_dir.join(FOLDER);
        for partition in &partitions {
            indexer::discard_shard(&dir, *partition)?;
        }
        let beyond = Beyond { table: Some(table), ..Beyond::default() };
        let indexer = Arc::new(Indexer::open_with(&dir, settings.indexer.clone(), log.clone(), &runtime, beyond)?);
        let done = follow_to_end(&indexer, log.as_ref(), &runtime).await;
        opened.close(LOG_CLOSE).await;
        let contexts = done?;
        writeln!(
            std::io::stdout(),
            "rebuilt {} of {count} shards; the index has {contexts} contexts",
            partitions.len()
        )?;
        Ok(())
    })
}

/// Whether everything that the shard held is in the table or in the log.
async fn check_covered(log: &dyn LogReader, table: &dyn StateTable, partition: u32) -> anyhow::Result<()> {
    let topic_id = log.topic_id(Topic::Contexts).to_string();
    let position = table.position(partition, &topic_id).await;
    let position = position.map_err(|error| anyhow::anyhow!("asking the table contexts where it stands: {error}"))?;
    let start = log.bounds(TopicPartition::new(Topic::Contexts, partition)).await?.start.0;
    match position.next {
        Some(next) if next >= start => Ok(()),
        None if start == 0 => Ok(()),
        Some(next) => bail!(
            "the table contexts ends at offset {next} of partition {partition}, the log begins at {start}: a rebuild would lose what lies between"
        ),
        None => bail!(
            "the table contexts has nothing of partition {partition}, and the log begins at offset {start}: a rebuild would lose what lies before"
        ),
    }
}

/// Runs the indexer until every shard has all that the log held at the beginning. Returns the number of contexts.
async fn follow_to_end(indexer: &Arc<Indexer>, log: &dyn LogReader, runtime: &Runtime) -> anyhow::Result<u64> {
    let mut ends = Vec::new();
    for partition in 0..log.partitions(Topic::Contexts) {
        ends.push(log.bounds(TopicPartition::new(Topic::Contexts, partition)).await?.end.0);
    }
    let shutdown = Shutdown::new();
    let running = tokio::spawn({
        let (indexer, shutdown) = (Arc::clone(indexer), shutdown.clone());
        async move { indexer.run(shutdown).await }
    });
    let mut shown = 0;
    let status = loop {
        let asked = Arc::clone(indexer);
        let status = tokio::task::spawn_blocking(move || asked.status()).await?;
        let is_done =
            |(shard, end): (&indexer::ShardStatus, &i64)| shard.is_open && !shard.is_rebuilding && shard.next >= *end;
        if status.shards.iter().zip(&ends).all(is_done) {
            break status;
        }
        if status.contexts >= shown + 100_000 {
            shown = status.contexts;
            writeln!(std::io::stderr(), "{shown} contexts")?;
        }
        if running.is_finished() {
            bail!("the index stopped");
        }
        runtime.clock.wait(LOOK_INTERVAL).await;
    };
    shutdown.begin();
    running.await?;
    Ok(status.contexts)
}
