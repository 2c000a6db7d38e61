//! Metrics of the compactor.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts};
use runtime::Telemetry;

/// Counters and gauges. Labels: `table` is one of four names, `topic` one of two.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub landed_rows: IntCounterVec,
    pub landed_bytes: IntCounterVec,
    pub deduplicated_payloads: IntCounterVec,
    pub dedup_evicted_early: IntCounter,
    pub unreadable_records: IntCounter,
    pub commits: IntCounterVec,
    pub commit_conflicts: IntCounterVec,
    pub fenced_batches: IntCounterVec,
    pub failed_rounds: IntCounterVec,
    pub merged_files: IntCounterVec,
    pub vacuumed_files: IntCounterVec,
    pub buffered_bytes: IntGaugeVec,
    pub lag_records: IntGaugeVec,
    pub table_version: IntGaugeVec,
    pub table_files: IntGaugeVec,
    pub table_bytes: IntGaugeVec,
}

impl Metrics {
    pub fn new(telemetry: &Telemetry) -> Self {
        let counter = |name: &str, help: &str| {
            telemetry.register(IntCounterVec::new(Opts::new(name, help), &["table"]).expect("constant name"))
        };
        let gauge = |name: &str, help: &str| {
            telemetry.register(IntGaugeVec::new(Opts::new(name, help), &["table"]).expect("constant name"))
        };
        let single = |name: &str, help: &str| telemetry.register(IntCounter::new(name, help).expect("constant name"));
        Self {
            landed_rows: counter("tidegate_table_landed_rows_total", "Rows that a commit made visible."),
            landed_bytes: counter("tidegate_table_landed_bytes_total", "Bytes of files that a landing commit named."),
            deduplicated_payloads: counter(
                "tidegate_table_deduplicated_payloads_total",
                "Payloads dropped because their id was in the window.",
            ),
            dedup_evicted_early: single(
                "tidegate_table_dedup_evicted_early_total",
                "Payload ids forgotten before their time because the window was full.",
            ),
            unreadable_records: single(
                "tidegate_table_unreadable_records_total",
                "Log records that could not be decoded and went to the dead letters.",
            ),
            commits: counter("tidegate_table_commits_total", "Commits that became visible."),
            commit_conflicts: counter("tidegate_table_commit_conflicts_total", "Commits that met another writer's."),
            fenced_batches: counter(
                "tidegate_table_fenced_batches_total",
                "Batches dropped because their offsets had moved.",
            ),
            failed_rounds: counter(
                "tidegate_table_failed_rounds_total",
                "Attempts to land a batch that will be repeated.",
            ),
            merged_files: counter("tidegate_table_merged_files_total", "Files replaced by a merge."),
            vacuumed_files: counter("tidegate_table_vacuumed_files_total", "Replaced files deleted."),
            buffered_bytes: gauge("tidegate_table_buffered_bytes", "Decoded rows that wait for their commit."),
            lag_records: gauge("tidegate_table_lag_records", "Log records not yet visible in the table."),
            table_version: gauge("tidegate_table_version_number", "Newest version of the table."),
            table_files: gauge("tidegate_table_files_count", "Live files of the table."),
            table_bytes: gauge("tidegate_table_files_bytes", "Bytes of live files of the table."),
        }
    }
}
