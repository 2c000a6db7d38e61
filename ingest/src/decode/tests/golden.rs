//! One payload that holds every kind, and all of its rows. `UPDATE_GOLDEN=1` writes the file anew: read the difference.

use super::*;

#[test]
fn a_payload_of_every_kind_gives_the_golden_rows() {
    let body = include_str!("every_kind.json");
    let found = found(body);
    assert!(found.letters.is_empty(), "{:?}", found.letters);
    let mut text = String::new();
    for (name, rows) in [("events", &found.events), ("sightings", &found.sightings)] {
        for row in rows {
            text.push_str(&format!("{name}\n"));
            let columns: std::collections::BTreeMap<_, _> = row.iter().collect();
            for (column, value) in columns {
                text.push_str(&format!("  {column}: {value}\n"));
            }
        }
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/decode/tests/every_kind.golden"), &text).unwrap();
    }
    assert_eq!(text, include_str!("every_kind.golden"));
    let kinds: std::collections::HashSet<_> = found.events.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), events::EventKind::ALL.len(), "every kind is in the payload");
}
