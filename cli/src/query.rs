//! `tidegate query`: SQL over the tables and views, results as table, CSV, JSON lines or Parquet.
//!
//! Reads the files directly, so it works with or without a server. Only questions are allowed: statements that would
//! write or read other files are refused.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches_with_options;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use futures::TryStreamExt;

use crate::args::{Query, QueryFormat};
use crate::config;
use crate::lake::Lake;
use crate::{UsageError, command_runtime};

/// A terminal is not the place for more.
const TABLE_ROWS_MAX: usize = 1000;

pub fn run(arguments: &Query) -> anyhow::Result<()> {
    if arguments.format == QueryFormat::Parquet && arguments.output.is_none() {
        bail!(UsageError("--format parquet needs --output FILE".into()));
    }
    let settings = config::load(&arguments.common.layers())?;
    let lake = Lake::new(settings.storage_resolved());
    command_runtime()?.block_on(async {
        let session = lake.session().await?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = session.sql_with_options(&arguments.sql, options).await?;
        let rows = frame.execute_stream().await?;
        match &arguments.output {
            Some(path) => write_file(rows, arguments.format, path).await,
            None => write(rows, arguments.format, BufWriter::new(std::io::stdout())).await,
        }
    })
}

/// Writes beside the place and renames, so that a failed query leaves no half file under the name.
async fn write_file(rows: SendableRecordBatchStream, format: QueryFormat, path: &Path) -> anyhow::Result<()> {
    let name = path.file_name().with_context(|| format!("--output {}: not a file name", path.display()))?;
    let fresh = path.with_file_name(format!(".{}.part", name.to_string_lossy()));
    let file = File::create(&fresh).with_context(|| format!("writing {}", fresh.display()))?;
    let written = write(rows, format, BufWriter::new(file)).await;
    match written {
        Ok(()) => std::fs::rename(&fresh, path).with_context(|| format!("writing {}", path.display())),
        Err(error) => {
            let _ = std::fs::remove_file(&fresh);
            Err(error)
        }
    }
}

async fn write<W: Write + Send>(
    mut rows: SendableRecordBatchStream,
    format: QueryFormat,
    mut out: W,
) -> anyhow::Result<()> {
    let schema = rows.schema();
    match format {
        QueryFormat::Table => write_table(rows, &mut out).await?,
        QueryFormat::Csv => {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut out);
            writer.write(&as_text_columns(&RecordBatch::new_empty(schema))?)?;
            while let Some(batch) = rows.try_next().await? {
                writer.write(&as_text_columns(&batch)?)?;
            }
        }
        QueryFormat::Json => {
            let mut writer = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::LineDelimited>(&mut out);
            while let Some(batch) = rows.try_next().await? {
                writer.write(&batch)?;
            }
            writer.finish()?;
        }
        QueryFormat::Parquet => {
            let properties = parquet::file::properties::WriterProperties::builder()
                .set_compression(parquet::basic::Compression::ZSTD(Default::default()))
                .build();
            let mut writer = parquet::arrow::ArrowWriter::try_new(&mut out, schema, Some(properties))?;
            while let Some(batch) = rows.try_next().await? {
                writer.write(&batch)?;
            }
            writer.close()?;
        }
    }
    out.flush()?;
    Ok(())
}

async fn write_table(mut rows: SendableRecordBatchStream, out: &mut impl Write) -> anyhow::Result<()> {
    let mut batches = vec![RecordBatch::new_empty(rows.schema())];
    let (mut count, mut more) = (0, false);
    while let Some(batch) = rows.try_next().await? {
        let room = TABLE_ROWS_MAX - count;
        more = batch.num_rows() > room;
        let batch = batch.slice(0, room.min(batch.num_rows()));
        count += batch.num_rows();
        batches.push(batch);
        if more {
            break;
        }
    }
    let options = arrow::util::display::FormatOptions::default();
    writeln!(out, "{}", pretty_format_batches_with_options(&batches, &options)?)?;
    let note = if more { ", more left out: use --format csv, json or parquet for all" } else { "" };
    writeln!(std::io::stderr(), "{count} row{}{note}", if count == 1 { "" } else { "s" })?;
    Ok(())
}

/// CSV has no nested values: maps and lists become JSON-like text.
fn as_text_columns(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    use arrow::array::{ArrayRef, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    if batch.schema().fields().iter().all(|field| !field.data_type().is_nested()) {
        return Ok(batch.clone());
    }
    let options = arrow::util::display::FormatOptions::default();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            let formatter = arrow::util::display::ArrayFormatter::try_new(column, &options)?;
            let texts: StringArray =
                (0..column.len()).map(|row| column.is_valid(row).then(|| formatter.value(row).to_string())).collect();
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(Arc::new(texts));
        } else {
            fields.push(field.as_ref().clone());
            columns.push(column.clone());
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
