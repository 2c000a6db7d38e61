//! A Delta table as this program writes it: its folder, its log, its state.
//!
//! `store` is the folder, `remote` opens stores of a network, `actions` the lines of a commit, `state` what they add up to, `load` how the state is read,
//! `checkpoint` how the log is kept short. Committing is `crate::commit`.
//!
//! The commit protocol is written here and not taken from deltalake-core's `CommitBuilder`, because three rules of ours
//! sit inside its loop: our fencing on the base snapshot, the same commit id over all attempts, and time and chance from
//! `runtime`. The library reads the tables (`crate::views`), writes the checkpoints, and is held against this code in tests.

pub(crate) mod actions;
pub(crate) mod checkpoint;
pub(crate) mod load;
pub(crate) mod remote;
pub(crate) mod state;
pub(crate) mod store;

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::Runtime;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use self::actions::{Action, CommitInfo, MetaData, Protocol};
use self::state::TableState;
use self::store::{PutNew, Storage, TableStore};
use crate::metrics::Metrics;
use crate::schema::TableSpec;
use crate::{Error, Result};

/// Reader and writer version that need no table features: any engine reads these tables.
const READER_VERSION: i32 = 1;
const WRITER_VERSION: i32 = 2;

/// Shown in the table's history.
pub(crate) const ENGINE: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// One table. Commits of this process go through the state's lock, one at a time, so that they never collide.
pub(crate) struct Table {
    pub spec: &'static TableSpec,
    pub storage: Storage,
    pub store: TableStore,
    pub runtime: Runtime,
    pub metrics: Metrics,
    pub(crate) state: Mutex<TableState>,
}

impl Table {
    /// Opens the table, or makes it if there is none.
    ///
    /// # Errors
    /// `Table` (kind `Fatal`) if a table is there that this version must not write to.
    pub async fn open(
        spec: &'static TableSpec,
        storage: &Storage,
        tombstones_kept: Duration,
        runtime: Runtime,
        metrics: Metrics,
    ) -> Result<Self> {
        let store = storage.table(spec.name);
        let state = match load::load(spec.name, &store).await? {
            Some(state) => state,
            None => {
                create(spec, &store, tombstones_kept, &runtime).await?;
                let missing = || Error::Table { table: spec.name, what: "it was made, but cannot be found".into() };
                load::load(spec.name, &store).await?.ok_or_else(missing)?
            }
        };
        check(spec, &state)?;
        let table = Self { spec, storage: storage.clone(), store, runtime, metrics, state: Mutex::new(state) };
        table.show(&*table.state.lock().await);
        Ok(table)
    }

    pub async fn state(&self) -> MutexGuard<'_, TableState> {
        self.state.lock().await
    }

    /// Reads what others committed since.
    pub async fn refresh(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        self.catch_up(&mut state, None).await.map(|_| ())
    }

    /// Applies newer commits. Stops at the one with `commit_id` and returns its version, if it is among them: a failure
    /// to read what follows must not hide that it was found.
    pub(crate) async fn catch_up(&self, state: &mut TableState, commit_id: Option<&str>) -> Result<Option<u64>> {
        while let Some(actions) = load::read_commit(self.spec.name, &self.store, state.version + 1).await? {
            let version = state.version + 1;
            state.apply(version, &actions);
            if commit_id.is_some() && own_commit_id(&actions) == commit_id {
                return Ok(Some(version));
            }
            check(self.spec, state)?;
        }
        self.show(state);
        Ok(None)
    }

    pub(crate) fn show(&self, state: &TableState) {
        let labels = &[self.spec.name];
        self.metrics.table_version.with_label_values(labels).set(state.version as i64);
        self.metrics.table_files.with_label_values(labels).set(state.files.len() as i64);
        self.metrics.table_bytes.with_label_values(labels).set(state.bytes as i64);
    }

    pub fn now_millis(&self) -> i64 {
        self.runtime.clock.now().as_millis()
    }
}

pub(crate) fn own_commit_id(actions: &[Action]) -> Option<&str> {
    let info = actions.iter().find_map(|action| action.commit_info.as_ref())?;
    Some(info.tidegate.as_ref()?.commit_id.as_str())
}

/// Version 0. When two processes start at once, one of them wins and both use its table.
async fn create(
    spec: &'static TableSpec,
    store: &TableStore,
    tombstones_kept: Duration,
    runtime: &Runtime,
) -> Result<()> {
    let now = runtime.clock.now().as_millis();
    let stats: Vec<_> = spec.columns.iter().filter(|column| column.stats).map(|column| column.name).collect();
    let days = |duration: Duration| format!("interval {} days", duration.as_secs().div_ceil(86_400));
    let kept = tombstones_kept.max(Duration::from_secs(7 * 86_400));
    let configuration = BTreeMap::from([
        ("delta.dataSkippingStatsColumns".to_owned(), Some(stats.join(","))),
        ("delta.deletedFileRetentionDuration".to_owned(), Some(days(kept))),
        ("delta.logRetentionDuration".to_owned(), Some(days(kept))),
    ]);
    let metadata = MetaData {
        id: runtime.entropy.uuid().to_string(),
        name: Some(spec.name.to_owned()),
        format: json!({"provider": "parquet", "options": {}}),
        schema_string: spec.delta_schema().to_string(),
        partition_columns: spec.partition_columns().map(str::to_owned).collect(),
        configuration,
        created_time: Some(now),
    };
    let protocol = Protocol { min_reader_version: READER_VERSION, min_writer_version: WRITER_VERSION };
    let info = CommitInfo {
        timestamp: Some(now),
        operation: Some("CREATE TABLE".into()),
        engine_info: Some(ENGINE.into()),
        ..Default::default()
    };
    let bytes = actions::encode(&[
        Action { commit_info: Some(info), ..Default::default() },
        Action { protocol: Some(protocol), ..Default::default() },
        Action { meta_data: Some(metadata), ..Default::default() },
    ]);
    let path = load::commit_path(0);
    match store.put_new(&path, bytes).await {
        PutNew::Written | PutNew::Exists => Ok(()),
        PutNew::Unknown(source) => Err(Error::store("create", format!("{}/{path}", spec.name), source)),
    }
}

/// Refuses a table whose rules this version does not know, or whose columns are not ours.
fn check(spec: &'static TableSpec, state: &TableState) -> Result<()> {
    let refuse = |what: String| Err(Error::Table { table: spec.name, what });
    if state.min_reader_version > READER_VERSION || state.min_writer_version > WRITER_VERSION {
        return refuse(format!(
            "it asks for reader version {} and writer version {}, this program has {READER_VERSION} and {WRITER_VERSION}",
            state.min_reader_version, state.min_writer_version
        ));
    }
    let found: Value = serde_json::from_str(&state.schema_string).unwrap_or_default();
    let fields = found["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
    for expected in spec.delta_schema()["fields"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let same = |field: &&Value| field["name"] == expected["name"];
        match fields.iter().find(same) {
            None => return refuse(format!("column {} is missing", expected["name"])),
            Some(field) if field["type"] != expected["type"] => {
                return refuse(format!(
                    "column {} has type {}, not {}",
                    expected["name"], field["type"], expected["type"]
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
