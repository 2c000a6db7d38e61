//! `tidegate contexts attributes` and `contexts values`: what there is to look for.

use std::io::Write;

use serde_json::Value;

use super::{Environment, encoded};
use crate::args::{Attributes, Values};
use crate::{command_runtime, text_table};

pub fn attributes(arguments: &Attributes) -> anyhow::Result<()> {
    let environment = Environment::of(&arguments.target)?;
    let filter = filter(arguments.kind.as_deref(), "name", &arguments.prefix);
    let query = query(arguments.limit, &filter, arguments.filter.as_deref());
    let answer =
        command_runtime()?.block_on(environment.api.get(&environment.path(&format!("context-attributes?{query}"))))?;
    let row = |kind: &Value, name: &Value| {
        let redacted = if name["redacted"] == true { "yes" } else { "" };
        vec![text(kind), text(&name["name"]), weight(name), redacted.to_owned()]
    };
    warn_if_partial(&answer)?;
    print(&["kind", "name", "contexts", "held back"], rows(&answer, "names", row))
}

pub fn values(arguments: &Values) -> anyhow::Result<()> {
    let environment = Environment::of(&arguments.target)?;
    let filter = filter(arguments.kind.as_deref(), "value", &arguments.prefix);
    let query = query(arguments.limit, &filter, arguments.filter.as_deref());
    let path = environment.path(&format!("context-attributes/{}?{query}", encoded(&arguments.attribute)));
    let answer = command_runtime()?.block_on(environment.api.get(&path))?;
    // As JSON, as the number 44 and the text "44" are two values.
    let row = |kind: &Value, value: &Value| vec![text(kind), value["name"].to_string(), weight(value)];
    warn_if_partial(&answer)?;
    print(&["kind", "value", "contexts"], rows(&answer, "values", row))
}

/// The filter of a look-up, in its text form.
fn filter(kind: Option<&str>, field: &str, prefix: &str) -> String {
    let kind = kind.map(|kind| format!("kind equals {}", Value::from(kind)));
    let prefix = (!prefix.is_empty()).then(|| format!("{field} startsWith {}", Value::from(prefix)));
    kind.into_iter().chain(prefix).collect::<Vec<_>>().join(",")
}

/// The query of a look-up. `within`: the filter of the contexts that count.
fn query(limit: u16, filter: &str, within: Option<&str>) -> String {
    let within = within.map(|within| format!("&withFilter={}", encoded(within))).unwrap_or_default();
    format!("limit={limit}&filter={}{within}", encoded(filter))
}

/// How many contexts; what was not counted to the end has a mark.
fn weight(entry: &Value) -> String {
    let mark = if entry["isEstimate"] == true { "~" } else { "" };
    format!("{mark}{}", entry["weight"])
}

fn warn_if_partial(answer: &Value) -> anyhow::Result<()> {
    if answer["isPartial"] == true {
        writeln!(std::io::stderr(), "the look-up reached its limit: there may be more than these")?;
    }
    Ok(())
}

fn rows(answer: &Value, list: &str, row: impl Fn(&Value, &Value) -> Vec<String>) -> Vec<Vec<String>> {
    let of_kind = |item: &Value| -> Vec<Vec<String>> {
        item[list].as_array().into_iter().flatten().map(|entry| row(&item["kind"], entry)).collect()
    };
    answer["items"].as_array().into_iter().flatten().flat_map(of_kind).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn print(head: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    Ok(std::io::stdout().lock().write_all(text_table::render(&head, &rows).as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_marked() {
        assert_eq!(weight(&serde_json::json!({"weight": 12})), "12");
        assert_eq!(weight(&serde_json::json!({"weight": 1200, "isEstimate": true})), "~1200");
        assert_eq!(query(5, "", Some("plan equals gold")), "limit=5&filter=&withFilter=plan%20equals%20gold");
        assert_eq!(query(5, "", None), "limit=5&filter=");
    }

    #[test]
    fn filters_are_written_for_any_text() {
        assert_eq!(filter(None, "name", ""), "");
        assert_eq!(filter(Some("user"), "value", r#"a "b","#), r#"kind equals "user",value startsWith "a \"b\",""#);
    }
}
