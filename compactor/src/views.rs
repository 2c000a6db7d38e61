//! SQL over the tables: the tables themselves and views that know how to read them.
//!
//! What a user should not have to know stands here: that `feature` and `debug` rows are details of evaluations already
//! counted in a `summary`, that a sampled row stands for several, that names of columns like `count` need quotes.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake_core::DeltaTable;

use crate::Result;
use crate::config::StorageConfig;
use crate::ledger;
use crate::schema::{CONTEXTS, DEAD_LETTERS, EVENTS, LEDGER, TableSpec};
use crate::table::checkpoint::open_with_library;
use crate::table::load;
use crate::table::store::Storage;

/// Name and text of every view, in an order in which they can be made.
pub const VIEWS: &[(&str, &str)] = &[
    (
        "evaluations",
        "SELECT event_date, project, environment, kind, created_at, received_at, flag_key, context_kind, context_key, \
         context_keys, anonymous, variation, version, value, default_value, reason, reason_kind, rule_id, rule_index, \
         in_experiment, prerequisite_of, sampling_ratio, exclude_from_summaries, sdk, sdk_version, application_id, \
         payload_id, log_partition, log_offset, log_row \
         FROM events WHERE kind IN ('feature', 'debug')",
    ),
    (
        "evaluation_counts",
        "SELECT event_date, project, environment, received_at, started_at, ended_at, flag_key, variation, version, value, \
         default_value, unknown, sdk, sdk_version, application_id, count AS evaluations \
         FROM events WHERE kind = 'summary' AND count IS NOT NULL \
         UNION ALL \
         SELECT event_date, project, environment, received_at, created_at AS started_at, created_at AS ended_at, flag_key, variation, version, value, \
         default_value, unknown, sdk, sdk_version, application_id, coalesce(sampling_ratio, 1) AS evaluations \
         FROM events WHERE kind = 'feature' AND exclude_from_summaries",
    ),
    (
        "custom_events",
        "SELECT event_date, project, environment, kind, created_at, received_at, event_key, context_kind, context_key, \
         context_keys, anonymous, metric_value, data, url, selector, coalesce(sampling_ratio, 1) AS represented, sdk, \
         sdk_version, application_id \
         FROM events WHERE kind IN ('custom', 'click', 'pageview', 'click_pageview')",
    ),
    (
        "migration_ops",
        "SELECT event_date, project, environment, created_at, received_at, flag_key, context_kind, context_key, operation, \
         value AS stage, default_value AS default_stage, variation, version, reason_kind, invoked_old, invoked_new, \
         consistent, consistent_sampling_ratio, error_old, error_new, latency_old_ms, latency_new_ms, \
         coalesce(sampling_ratio, 1) AS represented, sdk, sdk_version \
         FROM events WHERE kind = 'migration_op'",
    ),
    (
        "experiment_exposures",
        "SELECT event_date, project, environment, created_at, received_at, flag_key, variation, version, value, \
         reason_kind, rule_id, rule_index, context_kind, context_key, context_keys, \
         coalesce(sampling_ratio, 1) AS represented, sdk, sdk_version \
         FROM events WHERE kind = 'feature' AND in_experiment",
    ),
    (
        "contexts_seen",
        "SELECT project, environment, context_kind, context_key, min(received_at) AS first_seen, \
         max(received_at) AS last_seen, count(*) AS events \
         FROM events WHERE context_key IS NOT NULL \
         GROUP BY project, environment, context_kind, context_key",
    ),
    (
        "diagnostics",
        "SELECT event_date, project, environment, kind, created_at, received_at, sdk, sdk_version, wrapper, instance_id, \
         application_id, application_version, data \
         FROM events WHERE kind IN ('diagnostic-init', 'diagnostic', 'diagnostic-combined')",
    ),
    (
        "contexts",
        "SELECT project, environment, kind, key, anonymous, last_seen, attributes_at, applications, context \
         FROM (SELECT *, row_number() OVER (PARTITION BY log_partition, project, environment, kind, key \
         ORDER BY sequence DESC) AS newness FROM context_states) WHERE newness = 1 AND kind <> 'multi' \
         AND (content_hash <> 0 OR attributes_at IS NULL OR last_seen > attributes_at)",
    ),
    (
        "ledger",
        "SELECT project, environment, hour, sum(accepted) AS accepted, sum(landed) AS landed, \
         sum(deduplicated) AS deduplicated, sum(dead_lettered) AS dead_lettered \
         FROM (SELECT * FROM ledger_entries UNION ALL SELECT * FROM ledger_pending) GROUP BY project, environment, hour",
    ),
];

/// A session with the tables `events`, `dead_letters`, `context_states` and `ledger_entries` as they are now, and all views.
///
/// `ledger_entries` is the table of accounts as other readers see it, some commits behind; `ledger_pending` has what it
/// lacks for exactly the rows that this session sees, so that the view `ledger` is exact.
/// A table that does not exist yet is there and empty.
///
/// # Errors
/// `Config` if the storage cannot be opened, `Delta` if a table cannot be read.
pub async fn sql_context(storage: &StorageConfig) -> Result<SessionContext> {
    sql_context_on(&Storage::open(storage)?).await
}

/// [`sql_context`] over a storage that is open already.
pub async fn sql_context_on(storage: &Storage) -> Result<SessionContext> {
    // Statistics of files are what skips them; views of text are not understood by every output format.
    let config = SessionConfig::new()
        .with_information_schema(true)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
    let context = SessionContext::new_with_config(config);
    // The ledger first: what it has copied is then not newer than what is seen of the tables.
    let ledger = register(&context, storage, "ledger_entries", &LEDGER).await?;
    register(&context, storage, "context_states", &CONTEXTS).await?;
    let mut pending = Vec::new();
    for spec in [&EVENTS, &DEAD_LETTERS] {
        let table = register(&context, storage, spec.name, spec).await?;
        let copied = match &ledger {
            Some(ledger) => {
                let app_id = ledger::app_id(spec.name);
                ledger.snapshot()?.transaction_version(ledger.log_store().as_ref(), app_id).await?
            }
            None => None,
        };
        let until = table.and_then(|table| table.version());
        pending.push(ledger::pending(spec.name, &storage.table(spec.name), copied, until).await?);
    }
    context.register_table("ledger_pending", Arc::new(MemTable::try_new(LEDGER.table_schema(), vec![pending])?))?;
    for (name, text) in VIEWS {
        context.sql(&format!("CREATE VIEW {name} AS {text}")).await?;
    }
    Ok(context)
}

/// Makes a table known to the session; `None` if it does not exist yet and is there as an empty one.
async fn register(
    context: &SessionContext,
    storage: &Storage,
    name: &str,
    spec: &TableSpec,
) -> Result<Option<DeltaTable>> {
    let store = storage.table(spec.name);
    if store.get(&load::commit_path(0)).await?.is_none() && load::load(spec.name, &store).await?.is_none() {
        let empty = RecordBatch::new_empty(spec.table_schema());
        context.register_table(name, Arc::new(MemTable::try_new(spec.table_schema(), vec![vec![empty]])?))?;
        return Ok(None);
    }
    let table = open_with_library(storage, spec.name).await?;
    table.update_datafusion_session(&context.state())?;
    context.register_table(name, table.table_provider().await?)?;
    Ok(Some(table))
}
