//! The command line: what can be typed, and the help that teaches it.
//!
//! Flags that are also settings become the highest layer of the configuration (`Common::layers`).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::config::{Flag, Layers};

/// Receives feature-flag evaluation events, keeps them as an open table and makes their contexts searchable.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true, after_help = EXAMPLES, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidegate serve                                   start with a development environment
  tidegate serve --config pipeline.toml            start with your environments
  tidegate query 'SELECT flag_key, sum(evaluations) FROM evaluation_counts GROUP BY 1'
  tidegate contexts search 'plan equals gold'      find contexts by any attribute
  tidegate contexts erase --key ana --wait         erase one for good, with a certificate
  tidegate dead-letters list                       what could not be read, and why
  tidegate config check --config pipeline.toml     every mistake of a configuration at once

Exit codes: 0 success, 1 failure, 2 wrong usage or configuration.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the pipeline: event endpoint, log, tables, context index, search API and page.
    #[command(after_help = SERVE_HELP)]
    Serve(Serve),
    /// Run the event endpoint alone; any number of processes may, on one Kafka log.
    #[command(after_help = INGEST_HELP)]
    Ingest(Serve),
    /// Run the filling of the tables alone; processes that do share the partitions of the log.
    #[command(after_help = COMPACT_HELP)]
    Compact(Serve),
    /// Run the search API and the page alone, over the shards of all index processes.
    #[command(after_help = API_HELP)]
    Api(Serve),
    /// Run SQL over the tables and views; with or without a running server.
    #[command(after_help = QUERY_HELP)]
    Query(Query),
    /// Work with contexts.
    #[command(subcommand)]
    Contexts(Contexts),
    /// Look at what could not be read.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Run the context index alone, its shards shared with other processes; or work on an index.
    #[command(after_help = INDEX_HELP, args_conflicts_with_subcommands = true)]
    Index(IndexCommand),
    /// Check or print the configuration.
    #[command(subcommand)]
    Config(Config),
    /// Print the completion script of a shell.
    #[command(after_help = "Example:\n  tidegate completions bash > /etc/bash_completion.d/tidegate")]
    Completions { shell: clap_complete::Shell },
}

const SERVE_HELP: &str = "\
Without [[environments]] in the configuration, one development environment (project default, key dev) is made; its keys
are kept in <data-dir>/dev-keys.toml and printed at the start.

SIGTERM or SIGINT drains: requests under way are answered, the log is synced, the exit code is 0. A second signal ends
the process at once; nothing that was acknowledged is lost by that.

Examples:
  tidegate serve --data-dir /var/lib/tidegate --listen 0.0.0.0:8030
  TIDEGATE__COMPACTOR__COMMIT_INTERVAL=5s tidegate serve
  TIDEGATE__KAFKA__BROKERS=kafka-1:9092 tidegate serve --log kafka";

const INGEST_HELP: &str = "\
Takes events as `serve` does, into a log on Kafka, and does nothing else with them. Needs log.kind = \"kafka\", a storage.url
that all processes reach, and environments. Each process has a data directory of its own.

Example:
  tidegate ingest --config cluster.toml --data-dir /var/lib/tidegate/ingest --listen 0.0.0.0:8030";

const COMPACT_HELP: &str = "\
Follows the partitions that its consumer group gives it. When a process comes or goes, they are divided anew; what two hold at
the same time still lands once, as the table decides. With kafka.member, a restart moves nothing. The process that has the
first partition of `events` also merges files and drops what is too old.

Example:
  tidegate compact --config cluster.toml --data-dir /var/lib/tidegate/compact --listen 127.0.0.1:8040";

const INDEX_HELP: &str = "\
Without a subcommand: follows the shards that its consumer group gives it, and answers the search API with what it holds; with
an api.secret it also answers `tidegate api`, which has the answers of all such processes. A shard that comes from another process begins with the newest copy in the bucket and reads the log on from there.

Examples:
  tidegate index --config cluster.toml --data-dir /var/lib/tidegate/index --listen 127.0.0.1:8050
  tidegate index rebuild --data-dir /var/lib/tidegate/index";

const API_HELP: &str = "\
Has no shards: asks the index processes of api.peers, each partition of one of them, and makes one answer of theirs. One that
is slow or gone is made up for once by whoever has its shards then; what is missing at the deadline (api.deadline) is missing in
the answer, which says so: X-Tidegate-Index: partial. An export waits for it instead. All processes have the same api.secret.

Example:
  tidegate api --config cluster.toml --data-dir /var/lib/tidegate/api --listen 0.0.0.0:8060";

const QUERY_HELP: &str = "\
Tables: events, dead_letters, context_states. Views: evaluations, evaluation_counts, custom_events, migration_ops,
experiment_exposures, contexts, contexts_seen, diagnostics, ledger. `SHOW TABLES` and `DESCRIBE events` tell more.

Examples:
  tidegate query 'SELECT kind, count(*) FROM events GROUP BY kind'
  tidegate query --format csv 'SELECT * FROM evaluations LIMIT 100' > evaluations.csv
  tidegate query --format parquet --output day.parquet \"SELECT * FROM events WHERE event_date = DATE '2026-03-01'\"";

const SEARCH_HELP: &str = "\
Filter: predicates `field operator value`, joined by `,` (and) or `|` (or), grouped by parentheses. Fields: kind, key,
name, or any attribute (`plan`, `user.plan`, `user./address/city`). Operators: equals, notEquals, anyOf, contains,
startsWith, exists, before, after.

Examples:
  tidegate contexts search 'kind equals user,plan equals gold'
  tidegate contexts search 'user.email startsWith \"ana@\"' --columns key,name,email,lastSeen
  tidegate contexts search 'device.os startsWith ios' --format json --limit 500
  tidegate contexts search 'plan equals gold' --sort -attr:seats --columns key,seats
  tidegate contexts search                                   everything, newest last seen first";

const EXPORT_HELP: &str = "\
The filter is that of `contexts search`. Rows come by kind and key. An export that was interrupted goes on where it stopped
when the same command is given again; PATH.resume keeps the place until it is complete. In CSV and Parquet texts stand as
they are and all other values as JSON; NDJSON keeps types.

Examples:
  tidegate contexts export 'plan equals gold' --columns key,name,email --output gold.csv
  tidegate contexts export --format ndjson --columns context > contexts.ndjson
  tidegate contexts export --keys customers.txt --columns key,email
  tidegate contexts export --format parquet --columns kind,key,lastSeen,plan --output contexts";

const ERASE_HELP: &str = "\
The filter is that of `contexts search`. Erased are all contexts that match when the time has come, and all combinations with
one of them: from the index, its look-ups and copies, and from the tables `contexts` and `events`, where rows keep their
place and lose what is about a person, so that counts stay. What is received later brings a context back. At the end there
is a certificate that says what was removed, and what is left until when. Nothing takes an erasure back.

Examples:
  tidegate contexts erase --kind user --key ana@lagoa.example --wait
  tidegate contexts erase 'user.email startsWith \"ana@\"' --yes --wait > certificate.json
  tidegate contexts erase 'plan equals trial' --at 2026-12-01T00:00:00Z --yes
  tidegate contexts erasures                                 all of them, and how they stand";

const INDEX_MERGE_HELP: &str = "\
Each shard becomes one segment, which takes about the time of indexing it, and room for it once more meanwhile. It frees what
was removed, and makes searches a little faster; the index merges by itself what is worth it.

Examples:
  tidegate index merge
  tidegate index merge --partition 1";

const INDEX_CHECK_HELP: &str = "\
A state that changes while it is compared is no difference. What the index has dropped by age or bound is none either.
Exit code 1 if there are differences that were not mended.

Examples:
  tidegate index check
  tidegate index check --repair";

const INDEX_REBUILD_HELP: &str = "\
Without --online nothing else may use the data directory meanwhile: stop the server first. With it the running server makes
the shards anew, one after the other, beside those of now, which are searched until the new ones have caught up; what comes
in meanwhile is found then. It takes room for one shard more.
A shard goes only if the table and the log together hold all of it. An index that is missing or damaged needs no command: it
comes back by itself.

Examples:
  tidegate index rebuild --online
  tidegate index rebuild --config pipeline.toml
  tidegate index rebuild --data-dir data --partition 1";

/// Where the configuration and the data are.
#[derive(Args, Clone, Debug, Default)]
pub struct Common {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Folder of log, tables and index [default: data].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
}

impl Common {
    /// The layers of the configuration: file, this process's environment, these flags.
    pub fn layers(&self) -> Layers {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .collect();
        let data_dir = self.data_dir.as_ref().map(|dir| Flag {
            name: "data-dir",
            path: "data_dir",
            value: dir.to_string_lossy().into_owned(),
        });
        Layers { file: self.config.clone(), variables, flags: data_dir.into_iter().collect() }
    }
}

#[derive(Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    pub common: Common,
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8030].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// The log to use: embedded, or kafka with the brokers of the configuration [default: embedded].
    #[arg(long, value_name = "KIND")]
    pub log: Option<String>,
    /// Lowest level that is logged, or a filter such as `info,ingest=debug`.
    #[arg(long, value_name = "FILTER", env = "TIDEGATE_LOG", default_value = "info")]
    pub log_level: String,
    /// Shape of log lines; by default text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT", env = "TIDEGATE_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl Serve {
    pub fn layers(&self) -> Layers {
        let mut layers = self.common.layers();
        let flags = [("listen", "listen", &self.listen), ("log", "log.kind", &self.log)];
        layers.flags.extend(
            flags.into_iter().filter_map(|(name, path, value)| Some(Flag { name, path, value: value.clone()? })),
        );
        layers
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Args, Debug)]
pub struct Query {
    /// One SELECT, SHOW, DESCRIBE or EXPLAIN statement.
    pub sql: String,
    #[command(flatten)]
    pub common: Common,
    /// How rows are written. `json`: one object per line. `parquet` needs --output.
    #[arg(long, value_enum, default_value_t = QueryFormat::Table)]
    pub format: QueryFormat,
    /// File to write; standard output without it.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueryFormat {
    Table,
    Csv,
    Json,
    Parquet,
}

#[derive(Debug, Subcommand)]
pub enum Contexts {
    /// Find contexts of an environment in a running server.
    #[command(after_help = SEARCH_HELP)]
    Search(Search),
    /// Write all contexts that match to a file.
    #[command(after_help = EXPORT_HELP)]
    Export(Export),
    /// Erase one context, or all that match, for good.
    #[command(after_help = ERASE_HELP)]
    Erase(Erase),
    /// List erasures, or show one with its certificate.
    #[command(after_help = "Examples:\n  tidegate contexts erasures\n  tidegate contexts erasures erasure-7e0…")]
    Erasures(Erasures),
    /// List names of attributes, the most frequent first.
    #[command(
        after_help = "Examples:\n  tidegate contexts attributes add --kind user\n  tidegate contexts attributes --filter \
                      'plan equals gold'"
    )]
    Attributes(Attributes),
    /// List the values of an attribute, the most frequent first.
    #[command(
        after_help = "Examples:\n  tidegate contexts values plan\n  tidegate contexts values /address/city re --kind user\n  \
                      tidegate contexts values plan --filter 'seats after 1000'"
    )]
    Values(Values),
}

/// Which environment of which running server.
#[derive(Args, Clone, Debug)]
pub struct Target {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub server: Server,
    /// Project; needed when several environments are configured.
    #[arg(long, value_name = "KEY")]
    pub project: Option<String>,
    /// Environment; needed when several are configured.
    #[arg(long, value_name = "KEY")]
    pub environment: Option<String>,
}

#[derive(Args, Debug)]
pub struct Export {
    /// What to look for; everything without it.
    #[arg(default_value = "")]
    pub filter: String,
    #[command(flatten)]
    pub target: Target,
    /// Columns, in this order: kind, key, lastSeen, applicationId, context (all of its JSON), names of attributes or
    /// pointers such as /address/city.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "kind,key,lastSeen,context")]
    pub columns: Vec<String>,
    /// `ndjson` keeps the types of values; `parquet` writes a folder of files that engines read as one table.
    #[arg(long, value_enum, default_value_t = ExportFormat::Csv)]
    pub format: ExportFormat,
    /// Only contexts with one of the keys in this file, one a line, at most 10,000.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub keys: Option<PathBuf>,
    /// File to write, with `parquet` a folder of files; standard output without it.
    #[arg(long, short, value_name = "PATH", value_hint = ValueHint::FilePath, required_if_eq("format", "parquet"))]
    pub output: Option<PathBuf>,
    /// Replace what is there.
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["filter", "key"]))]
pub struct Erase {
    /// Which contexts.
    pub filter: Option<String>,
    #[command(flatten)]
    pub target: Target,
    /// Kind of the one context that --key names.
    #[arg(long, default_value = "user", conflicts_with = "filter")]
    pub kind: String,
    /// Key of the one context to erase.
    #[arg(long)]
    pub key: Option<String>,
    /// When to erase, such as 2026-12-01T00:00:00Z; now without it.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Wait until it is done, and print the certificate.
    #[arg(long)]
    pub wait: bool,
}

#[derive(Args, Debug)]
pub struct Erasures {
    /// Id of one, to see all of it.
    pub id: Option<String>,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    Csv,
    Ndjson,
    Parquet,
}

#[derive(Args, Debug)]
pub struct Attributes {
    /// How the names begin.
    #[arg(default_value = "")]
    pub prefix: String,
    #[command(flatten)]
    pub target: Target,
    /// Only of contexts of this kind.
    #[arg(long)]
    pub kind: Option<String>,
    /// Only of contexts that this filter finds; it is that of `contexts search`.
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// Most names of each kind.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub limit: u16,
}

#[derive(Args, Debug)]
pub struct Values {
    /// Name of the attribute, or a pointer such as /address/city.
    pub attribute: String,
    /// How the values begin.
    #[arg(default_value = "")]
    pub prefix: String,
    #[command(flatten)]
    pub target: Target,
    /// Only of contexts of this kind.
    #[arg(long)]
    pub kind: Option<String>,
    /// Only of contexts that this filter finds; it is that of `contexts search`.
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// Most values of each kind.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub limit: u16,
}

/// An order of `contexts search`. Which attributes there are is the server's to know.
fn order(text: &str) -> Result<String, String> {
    let attribute = text.strip_prefix('-').unwrap_or(text).strip_prefix("attr:");
    match attribute.is_some_and(|name| !name.is_empty()) || ["ts", "-ts", "kind"].contains(&text) {
        true => Ok(text.to_owned()),
        false => Err("expected ts, -ts, kind, attr:NAME or -attr:NAME".into()),
    }
}

#[derive(Args, Debug)]
pub struct Search {
    /// What to look for; everything without it.
    #[arg(default_value = "")]
    pub filter: String,
    #[command(flatten)]
    pub target: Target,
    /// Columns of the table: attribute names, pointers such as /address/city, and lastSeen.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "kind,key,name,lastSeen")]
    pub columns: Vec<String>,
    /// `ts` oldest first, `-ts` newest first, `kind` by kind and key (of a text search the best matches first), or
    /// `attr:NAME` and `-attr:NAME` by an attribute, up and down [default: -ts, of a text search kind].
    #[arg(long, value_name = "ORDER", value_parser = order, allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// Most contexts to print.
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// `json`: one record of the API per line.
    #[arg(long, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
}

#[derive(Args, Debug)]
pub struct IndexCommand {
    #[command(subcommand)]
    pub action: Option<IndexAction>,
    #[command(flatten)]
    pub serve: Serve,
}

#[derive(Debug, Subcommand)]
pub enum IndexAction {
    /// Merge the segments of a running server's index, beside its work.
    #[command(after_help = INDEX_MERGE_HELP)]
    Merge(Shards),
    /// Compare the index of a running server with the table `contexts`, and mend what differs.
    #[command(after_help = INDEX_CHECK_HELP)]
    Check(IndexCheck),
    /// Make shards of the index anew from the table `contexts` and the log.
    #[command(after_help = INDEX_REBUILD_HELP)]
    Rebuild(IndexRebuild),
}

/// Which shards, and of which server.
#[derive(Args, Debug)]
pub struct Shards {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub server: Server,
    /// Only this shard, counted from 0; may be given several times.
    #[arg(long = "partition", value_name = "NUMBER")]
    pub partitions: Vec<u32>,
}

#[derive(Args, Debug)]
pub struct IndexCheck {
    #[command(flatten)]
    pub shards: Shards,
    /// Write what one side lacks, or has older, from the other.
    #[arg(long)]
    pub repair: bool,
}

#[derive(Args, Debug)]
pub struct IndexRebuild {
    #[command(flatten)]
    pub shards: Shards,
    /// Have the running server do it, which goes on answering.
    #[arg(long)]
    pub online: bool,
}

/// Which running server to ask.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// Address of the server; from the configuration without it.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// API token; from the configuration or <data-dir>/dev-keys.toml without it.
    #[arg(long, value_name = "TOKEN", env = "TIDEGATE_API_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List dead letters, newest first.
    #[command(after_help = "Example:\n  tidegate dead-letters list --reason invalid_json --limit 20")]
    List(DeadLettersList),
    /// Show one dead letter with its headers and bytes.
    #[command(after_help = "Example:\n  tidegate dead-letters show 5f0c2b7d9a4e1c38")]
    Show(DeadLettersShow),
}

#[derive(Args, Debug)]
pub struct DeadLettersList {
    #[command(flatten)]
    pub common: Common,
    /// Only those with this reason, such as invalid_json or missing_field.
    #[arg(long)]
    pub reason: Option<String>,
    /// Most letters to print.
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// `json`: one object per line.
    #[arg(long, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
}

#[derive(Args, Debug)]
pub struct DeadLettersShow {
    /// Id as in the list.
    pub id: String,
    #[command(flatten)]
    pub common: Common,
    /// Write nothing but the bytes of the body, as they arrived.
    #[arg(long)]
    pub raw: bool,
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Report every mistake of the configuration; exit code 2 if there is one.
    #[command(after_help = "Example:\n  tidegate config check --config pipeline.toml")]
    Check(Common),
    /// Print the resolved configuration with secrets masked.
    #[command(after_help = "Example:\n  TIDEGATE__LISTEN=0.0.0.0:80 tidegate config print")]
    Print(Common),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    fn every_command(command: &clap::Command, visit: &mut dyn FnMut(&clap::Command)) {
        visit(command);
        command.get_subcommands().for_each(|sub| every_command(sub, visit));
    }

    #[test]
    fn every_command_and_flag_is_explained() {
        every_command(&Arguments::command(), &mut |command| {
            assert!(command.get_about().is_some(), "{} has no explanation", command.get_name());
            for argument in command.get_arguments().filter(|argument| argument.get_id() != "shell") {
                assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
            }
        });
    }

    #[test]
    fn help_shows_examples_that_parse() {
        let mut examples = 0;
        every_command(&Arguments::command(), &mut |command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter_map(|line| line.trim().strip_prefix("tidegate ")) {
                // What follows two blanks is explanation; what follows `>` is the shell's.
                let line = line.split("  ").next().unwrap().split(" > ").next().unwrap();
                let words = shell_words(line);
                let parsed = Arguments::try_parse_from(std::iter::once("tidegate".to_owned()).chain(words));
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                examples += 1;
            }
        });
        assert!(examples >= 10, "{examples} examples");
    }

    /// Splits like a shell does, as far as the examples need it.
    fn shell_words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for c in line.chars() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, ' ') => words.push(std::mem::take(&mut word)),
                (_, c) => word.push(c),
            }
        }
        words.push(word);
        words.retain(|word| !word.is_empty());
        words
    }
}
