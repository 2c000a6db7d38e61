//! Questions that the page and the command line ask of the tables.
//!
//! In: the `[storage]` section. Out: JSON rows. Each question opens the newest version of the table, so an answer is as
//! fresh as the last commit. A table that does not exist yet is empty. What may be large is bounded: a question never
//! holds more than [`LETTERS_MAX`] rows or one body.
//! Not here: SQL of users (`query`), and the tables themselves (`compactor`).

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use compactor::{Storage, StorageConfig};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use serde_json::{Map, Value};

/// Most rows of one list.
pub const LETTERS_MAX: usize = 1000;
/// Characters of a body that a list shows.
const PREVIEW_CHARS: usize = 120;
/// Contexts live 30 days in the index; their evaluations are looked for as long, in steps from the newest day on, so
/// that a busy context costs the files of a day.
const EVALUATION_DAYS: [(u32, u32); 3] = [(0, 1), (2, 7), (8, 30)];

/// The tables of one installation.
#[derive(Clone, Debug)]
pub struct Lake {
    storage: StorageConfig,
    /// Opened with the first question; its connections serve those that follow.
    opened: Arc<OnceLock<Storage>>,
}

/// A dead letter as JSON, and the bytes of its body.
pub type WholeLetter = (Value, Vec<u8>);

/// One context, as the page names it.
#[derive(Clone, Debug)]
pub struct ContextPlace {
    pub project: String,
    pub environment: String,
    pub kind: String,
    pub key: String,
}

impl Lake {
    pub fn new(storage: StorageConfig) -> Self {
        Self { storage, opened: Arc::default() }
    }

    /// A session with all tables and views.
    pub async fn session(&self) -> anyhow::Result<SessionContext> {
        let storage = match self.opened.get() {
            Some(storage) => storage,
            None => {
                let storage = Storage::open(&self.storage).context("opening the storage")?;
                self.opened.get_or_init(|| storage)
            }
        };
        compactor::sql_context_on(storage).await.context("opening the tables")
    }

    /// Dead letters without headers and body, newest first; `reason` keeps only those with it.
    pub async fn dead_letters(&self, reason: Option<&str>, limit: usize) -> anyhow::Result<Vec<Value>> {
        let session = self.session().await?;
        let wanted = reason.map_or_else(String::new, |reason| format!("WHERE reason = {}", quote(reason)));
        let mut letters = rows(
            &session,
            &format!(
                "SELECT id, received_at AS \"receivedAt\", project, environment, reason, message, \
                 byte_offset AS \"byteOffset\", path, payload_id AS \"payloadId\", payload_index AS \"payloadIndex\" \
                 FROM dead_letters {wanted} ORDER BY received_at DESC, id LIMIT {}",
                limit.min(LETTERS_MAX)
            ),
        )
        .await?;
        let ids: Vec<String> = letters.iter().filter_map(|letter| Some(quote(letter["id"].as_str()?))).collect();
        if ids.is_empty() {
            return Ok(letters);
        }
        // Bodies can be large; they come one batch at a time and only their beginning stays.
        let sql = format!("SELECT id, body FROM dead_letters WHERE id IN ({})", ids.join(", "));
        let mut bodies = session.sql(&sql).await?.execute_stream().await?;
        while let Some(batch) = bodies.try_next().await? {
            for row in 0..batch.num_rows() {
                let id = text_at(&batch, 0, row);
                let preview = preview(&bytes_at(&batch, 1, row));
                for letter in letters.iter_mut().filter(|letter| letter["id"].as_str() == id.as_deref()) {
                    letter["bodyPreview"] = preview.as_str().into();
                }
            }
        }
        Ok(letters)
    }

    /// One dead letter with its headers, and its body as bytes.
    pub async fn dead_letter(&self, id: &str) -> anyhow::Result<Option<WholeLetter>> {
        let session = self.session().await?;
        let letter = rows(
            &session,
            &format!(
                "SELECT id, received_at AS \"receivedAt\", project, environment, reason, message, \
                 byte_offset AS \"byteOffset\", path, payload_id AS \"payloadId\", payload_index AS \"payloadIndex\", \
                 headers, redriven_at AS \"redrivenAt\" FROM dead_letters WHERE id = {} LIMIT 1",
                quote(id)
            ),
        )
        .await?
        .pop();
        let Some(mut letter) = letter else { return Ok(None) };
        if let Some(headers) = letter["headers"].as_str().and_then(|text| serde_json::from_str(text).ok()) {
            letter["headers"] = headers;
        }
        let sql = format!("SELECT body FROM dead_letters WHERE id = {} LIMIT 1", quote(id));
        let batches = session.sql(&sql).await?.collect().await?;
        let body = batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| bytes_at(batch, 0, 0));
        Ok(Some((letter, body.unwrap_or_default())))
    }

    /// The newest rows that name a context, newest first.
    pub async fn evaluations(&self, place: &ContextPlace, limit: usize) -> anyhow::Result<Vec<Value>> {
        let session = self.session().await?;
        let mut found = Vec::new();
        for (newest_day, oldest_day) in EVALUATION_DAYS {
            let wanted = limit.min(LETTERS_MAX) - found.len();
            if wanted == 0 {
                break;
            }
            let sql = format!(
                "SELECT created_at AS \"createdAt\", received_at AS \"receivedAt\", kind, flag_key AS \"flagKey\", \
                 event_key AS \"eventKey\", variation, version, value, reason, \"count\", sdk, \
                 sdk_version AS \"sdkVersion\" FROM events \
                 WHERE project = {} AND environment = {} \
                 AND event_date <= current_date() - INTERVAL '{newest_day}' DAY \
                 AND event_date >= current_date() - INTERVAL '{oldest_day}' DAY \
                 AND kind IN ('feature', 'debug', 'summary', 'custom', 'click', 'pageview', 'click_pageview', 'migration_op') \
                 AND context_keys[{}] = {} \
                 ORDER BY coalesce(created_at, received_at) DESC, log_partition, log_offset DESC, log_row DESC \
                 LIMIT {wanted}",
                quote(&place.project),
                quote(&place.environment),
                quote(&place.kind),
                quote(&place.key),
            );
            found.extend(rows(&session, &sql).await?);
        }
        for row in &mut found {
            // These columns hold JSON text, exactly as sent.
            for name in ["value", "reason"] {
                if let Some(value) = row[name].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
                    row[name] = value;
                }
            }
        }
        Ok(found)
    }
}

/// The rows of a query as JSON objects; a null is an absent field.
async fn rows(session: &SessionContext, sql: &str) -> anyhow::Result<Vec<Value>> {
    let batches = session.sql(sql).await?.collect().await?;
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    let text = writer.into_inner();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Map<String, Value>> = serde_json::from_slice(&text)?;
    Ok(rows.into_iter().map(Value::Object).collect())
}

/// A text as an SQL literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn text_at(batch: &RecordBatch, column: usize, row: usize) -> Option<String> {
    let column = arrow::compute::cast(batch.column(column), &DataType::Utf8).ok()?;
    let column = column.as_string::<i32>();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn bytes_at(batch: &RecordBatch, column: usize, row: usize) -> Vec<u8> {
    let column = batch.column(column);
    if column.is_null(row) {
        return Vec::new();
    }
    match column.data_type() {
        DataType::Binary => column.as_binary::<i32>().value(row).to_vec(),
        DataType::LargeBinary => column.as_binary::<i64>().value(row).to_vec(),
        DataType::BinaryView => column.as_binary_view().value(row).to_vec(),
        _ => Vec::new(),
    }
}

fn preview(body: &[u8]) -> String {
    // Four bytes a character at most, and some more, so that a cut character is beyond what is shown.
    let head = String::from_utf8_lossy(&body[..body.len().min(PREVIEW_CHARS * 4 + 4)]);
    let mut text: String = head.chars().take(PREVIEW_CHARS).collect();
    if text.len() < body.len() && head.chars().count() > PREVIEW_CHARS {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_stays_a_literal() {
        assert_eq!(quote("it's"), "'it''s'");
    }

    #[test]
    fn preview_cuts_between_characters() {
        assert_eq!(preview(b"[1]"), "[1]");
        let long = preview("é".repeat(500).as_bytes());
        assert_eq!(long.chars().count(), PREVIEW_CHARS + 1);
        assert!(long.ends_with('…'));
    }
}
