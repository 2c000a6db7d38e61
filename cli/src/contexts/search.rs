//! `tidegate contexts search`: pages through the search API of a running server and prints what it finds.

use std::io::Write;

use anyhow::bail;
use serde_json::{Value, json};

use super::Environment;
use crate::args::{ListFormat, Search};
use crate::{command_runtime, text_table};

/// The API cuts larger pages to this.
const PAGE_MAX: usize = 50;

pub fn search(arguments: &Search) -> anyhow::Result<()> {
    let environment = Environment::of(&arguments.target)?;
    let (records, total) = command_runtime()?.block_on(pages(arguments, &environment))?;

    let mut out = std::io::stdout().lock();
    match arguments.format {
        ListFormat::Json => records.iter().try_for_each(|record| writeln!(out, "{record}"))?,
        ListFormat::Table => {
            let rows: Vec<Vec<String>> = records
                .iter()
                .map(|record| arguments.columns.iter().map(|column| cell(record, column)).collect())
                .collect();
            out.write_all(text_table::render(&arguments.columns, &rows).as_bytes())?;
            let total = total.map_or_else(String::new, |total| format!(" of {total}"));
            writeln!(std::io::stderr(), "{}{total} contexts in {environment}", records.len())?;
        }
    }
    Ok(())
}

async fn pages(arguments: &Search, environment: &Environment) -> anyhow::Result<(Vec<Value>, Option<u64>)> {
    let mut records = Vec::new();
    let mut total = None;
    let mut token = None;
    while records.len() < arguments.limit {
        let mut body = json!({"limit": PAGE_MAX.min(arguments.limit - records.len())});
        if !arguments.filter.is_empty() {
            body["filter"] = arguments.filter.as_str().into();
        }
        let sort = arguments.sort.as_deref().unwrap_or(if seeks_text(&arguments.filter) { "kind" } else { "-ts" });
        if sort != "kind" {
            body["sort"] = sort.into();
        }
        if let Some(token) = token.take() {
            body["continuationToken"] = token;
        }
        let mut answer = environment.api.post(&environment.path("contexts/search"), &body).await?;
        total = total.or(answer["totalCount"].as_u64());
        let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) else {
            bail!("the server's answer has no items");
        };
        records.extend(items);
        match answer.get_mut("continuationToken").map(Value::take) {
            Some(next @ Value::String(_)) => token = Some(next),
            _ => break,
        }
    }
    Ok((records, total))
}

/// Whether a filter begins with a search for text, whose best matches are wanted first.
fn seeks_text(filter: &str) -> bool {
    filter.trim_start().starts_with("q ")
}

/// The text of one column of a record: a field of the record or an attribute of its context.
fn cell(record: &Value, column: &str) -> String {
    let context = &record["context"];
    let value = if column.starts_with('/') {
        context.pointer(column)
    } else if column == "lastSeen" || column == "applicationId" {
        record.get(column)
    } else {
        context.get(column)
    };
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_from_record_and_context() {
        let record = json!({"lastSeen": "2026-03-01T10:00:00Z",
            "context": {"kind": "user", "key": "u", "seats": 44, "address": {"city": "Recife"}}});
        let cells = ["kind", "seats", "/address/city", "lastSeen", "absent"].map(|column| cell(&record, column));
        assert_eq!(cells, ["user", "44", "Recife", "2026-03-01T10:00:00Z", ""]);
    }
}
