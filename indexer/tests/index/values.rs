//! Look-ups of values against plain counting, over several segments, with changed and vanished values.

use std::collections::BTreeMap;

use indexer::Ask as _;
use indexer::attribute::AttributePath;
use serde_json::{Value, json};

use crate::common::{Flow, Seen, ago, environment, new_log};

/// Few tags that many contexts have, and many that one has.
fn tag(number: usize) -> String {
    let spread = (number * 7919) % 10_000;
    format!("Tag {:04}", 200_000 / (spread + 40))
}

fn context(number: usize, tag: &str) -> Value {
    json!({
        "kind": "user", "key": format!("u{number:05}"), "tag": tag, "email": format!("{number:05}.{tag}@shop.example"),
        "mixed": match number % 4 { 0 => json!(number % 8), 1 => json!((number % 8).to_string()), 2 => json!(true), _ => json!([number % 8, "x"]) },
    })
}

struct Counted {
    flow: Flow,
    contexts: BTreeMap<usize, Value>,
}

impl Counted {
    /// Values of the attribute with their counts, most frequent first, then by text.
    fn expected(&self, attribute: &str, prefix: &str) -> Vec<(Value, u64)> {
        let mut counts: BTreeMap<String, (Value, u64)> = BTreeMap::new();
        for context in self.contexts.values() {
            let value = &context[attribute];
            for one in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
                let text = one.as_str().map_or_else(|| one.to_string(), str::to_owned);
                if text.to_lowercase().starts_with(prefix) {
                    counts.entry(one.to_string()).or_insert((one.clone(), 0)).1 += 1;
                }
            }
        }
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut counted: Vec<_> = counts.into_values().collect();
        counted.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| text(&left.0).cmp(&text(&right.0))));
        counted
    }

    fn found(&self, attribute: &str, prefix: &str, limit: usize) -> Vec<(Value, u64)> {
        let path = AttributePath::parse(attribute);
        let prefixes = [prefix.to_owned()];
        let found = self.flow.indexer.attribute_values(&environment(), Some("user"), &path, &prefixes, limit).unwrap();
        found.into_iter().flat_map(|(_, values)| values).map(|(value, weight)| (value, weight.contexts)).collect()
    }

    async fn put(&mut self, numbers: impl Iterator<Item = usize>, seconds_ago: i64, tag: impl Fn(usize) -> String) {
        let made: Vec<_> = numbers.map(|number| (number, context(number, &tag(number)))).collect();
        let seen: Vec<_> = made.iter().map(|(_, context)| Seen::context(context, ago(seconds_ago))).collect();
        self.flow.see(&seen).await;
        self.contexts.extend(made);
    }

    fn check(&self) {
        let all = self.expected("tag", "");
        assert!(all.len() > 200, "more values than a segment's list holds: {}", all.len());
        assert_eq!(self.found("tag", "", 20), all[..20], "most frequent first");
        for (value, weight) in self.found("tag", "", 100) {
            assert_eq!(Some(weight), all.iter().find(|(other, _)| *other == value).map(|(_, count)| *count), "{value}");
        }
        for prefix in ["tag 00", "tag 01", "tag 0019", "tag 0417"] {
            let expected = self.expected("tag", prefix);
            assert_eq!(self.found("tag", prefix, 100), expected[..expected.len().min(100)], "{prefix}");
        }
        let unique = self.expected("email", "");
        assert_eq!(self.found("email", "", 50), unique[..50], "the first by text where all are as frequent");
        let narrow = self.expected("email", "012");
        assert_eq!(self.found("email", "012", 100), narrow[..narrow.len().min(100)]);
        assert_eq!(self.found("mixed", "", 100), self.expected("mixed", ""), "types, and elements of arrays");
        assert!(self.found("tag", "nothing", 10).is_empty() && self.found("nothing", "", 10).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_agree_with_counting() {
    let dir = tempfile::tempdir().unwrap();
    let mut counted = Counted { flow: Flow::start(dir.path(), new_log()), contexts: BTreeMap::new() };
    for part in 0..5 {
        counted.put(part * 2000..(part + 1) * 2000, 1000, tag).await;
        if part > 2 {
            counted.check();
        }
    }
    // Values that nobody has any more, from the beginning of the dictionary on; asked before, so remembered.
    for part in 0..4 {
        counted.put(part * 300..(part + 1) * 300, 500 - part as i64, |number| format!("Tag 9{:03}", number % 7)).await;
        counted.check();
    }
    counted.flow.stop().await;
}
