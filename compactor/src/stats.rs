//! Statistics of a data file as Delta's `stats` text, taken from the footer that the Parquet writer just made.
//!
//! Only for columns that the schema marks: a query skips files by environment, flag, event, context key or time, and
//! never by a hash or a JSON text, whose bounds would only make the log longer.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

use crate::schema::{Column, ColumnType, TableSpec};

/// Longest text bound in row groups and in `stats`: enough to tell keys apart, short enough for a log of many files.
pub(crate) const BOUND_BYTES_MAX: usize = 64;

#[derive(Default)]
struct Bounds {
    min: Option<Bound>,
    max: Option<Bound>,
    nulls: u64,
    /// Some row group had values but no bounds.
    unbounded: bool,
}

#[derive(Clone, PartialEq, PartialOrd)]
enum Bound {
    Integer(i64),
    Text(String),
}

/// The `stats` of one file.
pub(crate) fn delta_stats(spec: &TableSpec, footer: &ParquetMetaData) -> String {
    let columns: BTreeMap<&str, &Column> =
        spec.file_columns().filter(|column| column.stats).map(|column| (column.name, column)).collect();
    let mut bounds: BTreeMap<&str, Bounds> = BTreeMap::new();
    for row_group in footer.row_groups() {
        for chunk in row_group.columns() {
            if let Some((name, _)) = columns.get_key_value(chunk.column_path().string().as_str()) {
                extend(bounds.entry(name).or_default(), chunk.statistics(), chunk.num_values() as u64);
            }
        }
    }
    let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (name, found) in bounds {
        nulls.insert(name.into(), json!(found.nulls));
        if let (false, Some(low), Some(high)) = (found.unbounded, found.min, found.max) {
            let column_type = columns[name].column_type;
            min.insert(name.into(), low.json(column_type, false));
            max.insert(name.into(), high.json(column_type, true));
        }
    }
    let rows = footer.file_metadata().num_rows();
    json!({"numRecords": rows, "minValues": min, "maxValues": max, "nullCount": nulls}).to_string()
}

fn extend(bounds: &mut Bounds, statistics: Option<&Statistics>, values: u64) {
    let nulls = statistics.and_then(Statistics::null_count_opt).unwrap_or_default();
    bounds.nulls += nulls;
    if nulls == values {
        return;
    }
    let Some((low, high)) = statistics.and_then(bounds_of) else {
        bounds.unbounded = true;
        return;
    };
    if bounds.min.as_ref().is_none_or(|min| low < *min) {
        bounds.min = Some(low);
    }
    if bounds.max.as_ref().is_none_or(|max| high > *max) {
        bounds.max = Some(high);
    }
}

fn bounds_of(statistics: &Statistics) -> Option<(Bound, Bound)> {
    match statistics {
        Statistics::Int32(found) => {
            Some((Bound::Integer((*found.min_opt()?).into()), Bound::Integer((*found.max_opt()?).into())))
        }
        Statistics::Int64(found) => Some((Bound::Integer(*found.min_opt()?), Bound::Integer(*found.max_opt()?))),
        Statistics::ByteArray(found) => {
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(|text| Bound::Text(text.to_owned()));
            Some((text(found.min_opt()?.data())?, text(found.max_opt()?.data())?))
        }
        _ => None,
    }
}

impl Bound {
    fn json(self, column_type: ColumnType, upper: bool) -> Value {
        match (self, column_type) {
            (Self::Text(text), _) => json!(text),
            (Self::Integer(micros), ColumnType::Timestamp) => {
                // Readers know milliseconds here: round outwards, so that no row lies outside its file's bounds.
                let millis = if upper {
                    micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) != 0)
                } else {
                    micros.div_euclid(1_000)
                };
                let time = DateTime::from_timestamp_millis(millis).unwrap_or_default();
                json!(time.to_rfc3339_opts(SecondsFormat::Millis, true))
            }
            (Self::Integer(number), _) => json!(number),
        }
    }
}
