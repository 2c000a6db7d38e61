//! Random contexts and random filters, for the property tests of this crate.

use indexer::filter::{Filter, Subject};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

pub const KINDS: [&str; 4] = ["user", "org", "a.b", "a"];
pub const NAMES: [&str; 8] = ["plan", "name", "n", "b.c", "x/y", "deep", "tags", "é"];

pub fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![
            "gold",
            "Gold",
            "go",
            "44",
            "",
            "São Paulo",
            "a\u{0}b",
            "2026-01-15T00:00:00Z",
            "1000",
            "Recife golden silver",
            "straße İstanbul \u{212A}elvin",
        ])
        .prop_map(Value::from),
        prop::sample::select(vec![
            json!(44),
            json!(44.0),
            json!(-1),
            json!(1000),
            json!(1_768_435_200_000_i64),
            json!(100_000_000),
            json!(0.5),
            json!(true),
            json!(false)
        ]),
        // Texts that do not stand whole in a term, and words that are longer than counts.
        (250_usize..260, prop::sample::select(vec!["", "Tail", "gold"]))
            .prop_map(|(length, end)| { Value::from(format!("{}{end}", "Go".repeat(length / 2))) }),
        (60_usize..70).prop_map(|length| Value::from("w".repeat(length))),
    ]
}

/// What somebody may type after `q` or `contains`: parts, prefixes and misspelt forms of what is stored.
pub fn typed() -> impl Strategy<Value = Value> {
    let texts = vec![
        "recife",
        "recifr",
        "rcife",
        "gol",
        "gold",
        "glod",
        "silver gold",
        "silvr",
        "istanbul",
        "kelvin",
        "STRASSE",
        "stra",
        "o",
        "tail",
        "2026",
        "00z",
        "u 1",
        "",
        "a\u{0}b",
        "São",
        "goldem sylver",
        "wwww",
        "é",
        "paulo s",
    ];
    prop_oneof![
        prop::sample::select(texts.clone()).prop_map(Value::from),
        prop::collection::vec(prop::sample::select(texts), 0..3).prop_map(Value::from),
        (58_usize..70).prop_map(|length| Value::from("w".repeat(length))),
    ]
}

/// Objects that are much like each other; some have more members than a question has terms for.
pub fn objects() -> Vec<Value> {
    let many = |count: usize, last: Value| {
        let members = (1..count).map(|n| (format!("m{n}"), json!(n))).chain([("last".to_owned(), last)]);
        Value::Object(members.collect())
    };
    let mut objects = vec![
        json!({}),
        json!({"gone": null}),
        json!({"city": "gold"}),
        json!({"city": "Gold"}),
        json!({"gone": null, "city": "gold"}),
        json!({"city": "gold", "n": 44}),
        json!({"n": 44.0, "city": "gold"}),
        json!({"city": "gold", "n": "44"}),
        json!({"city": ["gold"], "n": 44}),
        json!({"n": {"n": 44}}),
        json!({"n": {"n": 44, "city": {}}}),
        json!({"n": {"city": {"gone": null}, "n": 44}}),
        json!({"n": {}}),
        json!({"n": []}),
        json!({"n": [{"n": 1}, null]}),
        json!({"n": [{"gone": null, "n": 1.0}, null]}),
        json!({"n": [null, {"n": 1}]}),
        json!({"x/y": true}),
        json!({"x": {"y": true}}),
        json!({"": {"": false}}),
        json!({"city": "Go".repeat(200)}),
        json!({"city": "gO".repeat(200)}),
    ];
    for count in [31, 32, 33] {
        objects.extend([many(count, json!("gold")), many(count, json!("Gold")), many(count, Value::Null)]);
        objects.push(json!({"n": many(count, json!(true))}));
    }
    objects
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => scalar(),
        2 => prop::collection::vec(prop_oneof![scalar(), Just(json!([1])), Just(json!({"k": 1})), Just(Value::Null)], 0..4).prop_map(Value::from),
        1 => prop::collection::hash_map(prop::sample::select(vec!["city", "n"]), scalar(), 0..3)
            .prop_map(|members| Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        1 => prop::sample::select(objects()),
        1 => Just(Value::Null),
    ]
}

pub fn context() -> impl Strategy<Value = Value> {
    let attributes = prop::collection::vec((prop::sample::select(NAMES.to_vec()), value()), 0..6);
    let key = prop::sample::select(vec!["u-1", "u-2", "U-1", "gold", "a:b%", "é/", "recife"]);
    let is_private = prop::bool::weighted(0.2);
    (prop::sample::select(KINDS.to_vec()), key, attributes, is_private).prop_map(
        |(kind, key, attributes, is_private)| {
            let mut context = Map::new();
            context.insert("kind".into(), kind.into());
            context.insert("key".into(), key.into());
            context.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
            if is_private {
                context.insert("_meta".into(), json!({"redactedAttributes": ["/plan", "/deep/city"]}));
            }
            Value::Object(context)
        },
    )
}

fn field() -> impl Strategy<Value = String> {
    let attribute = prop::sample::select(vec![
        "plan",
        "name",
        "n",
        "b.c",
        "c",
        "x/y",
        "/x~1y",
        "/deep/city",
        "deep",
        "tags",
        "é",
        "key",
        "kind",
        "gone",
    ]);
    prop_oneof![
        3 => (prop::sample::select(vec!["user", "org", "a", "a.b", "*", "none"]), attribute.clone())
            .prop_map(|(kind, attribute)| format!("{kind}.{attribute}")),
        1 => attribute.prop_map(str::to_owned),
        1 => prop::sample::select(vec!["kind", "key", "kindKey", "id", "kinds", "kindKeys", "name", "q"]).prop_map(str::to_owned),
    ]
}

fn predicate() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(vec![
        "equals",
        "notEquals",
        "anyOf",
        "contains",
        "startsWith",
        "exists",
        "before",
        "after",
    ]);
    let given = prop_oneof![
        4 => scalar(),
        1 => prop::collection::vec(scalar(), 0..3).prop_map(Value::from),
        1 => Just(json!({"k": 1})),
        1 => Just(json!([[1]])),
        1 => Just(json!("user:u-1")),
        1 => Just(json!("dXNlcjp1LTE")),
        1 => Just(json!("recifr gold")),
        1 => prop::sample::select(KINDS.to_vec()).prop_map(Value::from),
    ];
    let any = (field(), operator, given).prop_map(|(field, operator, given)| (field, operator, given));
    let words = typed().prop_map(|given| ("q".to_owned(), "equals", given));
    let parts = (field(), typed()).prop_map(|(field, given)| (field, "contains", given));
    let whole = prop::sample::select(vec!["equals", "notEquals", "anyOf", "contains"]);
    let objects = (field(), whole, prop::sample::select(objects()));
    prop_oneof![4 => any, 1 => words, 1 => parts, 1 => objects]
        .prop_map(|(field, operator, given)| format!("{} {operator} {given}", Value::from(field)))
}

pub fn filter() -> impl Strategy<Value = String> {
    let leaf = predicate().prop_filter("of right types", |text| Filter::parse(text, Subject::Contexts).is_ok());
    leaf.prop_recursive(3, 12, 3, |inner| {
        (prop::collection::vec(inner, 1..4), prop::sample::select(vec![",", "|"]))
            .prop_map(|(parts, by)| parts.iter().map(|part| format!("({part})")).collect::<Vec<_>>().join(by))
    })
}
