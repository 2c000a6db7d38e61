//! Rows of `contexts`: states of contexts, and of combinations that have one of them as a part. They go as a whole.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::boolean::not;
use events::ErasedContexts;
use parquet::file::metadata::RowGroupMetaData;

use super::Eraser;
use crate::table::actions::PartitionValues;
use crate::{Error, Result};

const COLUMNS: [&str; 4] = ["project", "environment", "kind", "key"];
/// Kind of the states of combinations, whose key is canonical.
const INSTANCE_KIND: &str = "multi";

pub(crate) struct StateEraser<'a>(pub &'a ErasedContexts);

impl Eraser for StateEraser<'_> {
    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }

    /// States lie in the order of the index, so that each file has keys of every sort.
    fn may_be_in(&self, _: &PartitionValues, _: &RowGroupMetaData) -> bool {
        true
    }

    fn rows(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let text = |name: &'static str| {
            let missing = || Error::Table { table: "contexts", what: format!("column {name} cannot be read") };
            batch.column_by_name(name).and_then(|column| column.as_string_view_opt()).ok_or_else(missing)
        };
        let (projects, environments) = (text("project")?, text("environment")?);
        let (kinds, keys) = (text("kind")?, text("key")?);
        let is_meant = |row: usize| {
            let (kind, key) = (kinds.value(row), keys.value(row));
            self.0.is_of(projects.value(row), environments.value(row))
                && if kind == INSTANCE_KIND { self.0.are_in(key) } else { self.0.contains(kind, key) }
        };
        Ok((0..batch.num_rows()).map(|row| Some(is_meant(row))).collect())
    }

    fn erased(&self, batch: &RecordBatch, rows: &BooleanArray) -> Result<RecordBatch> {
        Ok(filter_record_batch(batch, &not(rows)?)?)
    }
}
