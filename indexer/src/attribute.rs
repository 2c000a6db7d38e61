//! Paths of attributes within a context, and the walk over all of them.
//!
//! In: pointer text or a plain name; a context's JSON. Out: the value at a path, and every path with its value.
//! `kind` is an attribute like others when named, `_meta` never is. Null counts as absent.
//! Source: context-search-api sections 3, 6.2 and 7.1.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where an attribute is: names of nested objects, outermost first. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttributePath(Vec<String>);

impl AttributePath {
    /// Text that starts with `/` is a pointer (`~1` is `/`, `~0` is `~`), any other a top-level name.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix('/') {
            Some(pointer) => Self(pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect()),
            None => Self(vec![text.to_owned()]),
        }
    }

    /// The top-level attribute of this name, whatever the name begins with.
    pub fn top_level(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// The pointer with its leading slash.
    pub fn pointer(&self) -> String {
        let mut out = String::new();
        for name in &self.0 {
            push_pointer_name(&mut out, name);
        }
        out
    }

    /// The value here; null counts as absent, `_meta` is hidden.
    pub fn get<'a>(&self, context: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, rest) = self.0.split_first()?;
        if first == "_meta" {
            return None;
        }
        let mut value = context.get(first)?;
        for name in rest {
            value = value.as_object()?.get(name)?;
        }
        (!value.is_null()).then_some(value)
    }

    /// Puts `value` here where nothing is, making the objects on the way. A value that is no object on the way stays.
    pub fn insert_if_absent(&self, context: &mut Map<String, Value>, value: Value) {
        let Some((last, parents)) = self.0.split_last() else { return };
        let mut members = context;
        for name in parents {
            let entry = members.entry(name.as_str()).or_insert_with(|| Value::Object(Map::new()));
            match entry {
                Value::Object(inner) => members = inner,
                _ => return,
            }
        }
        members.entry(last.as_str()).or_insert(value);
    }
}

/// Appends `/name`, escaped.
pub fn push_pointer_name(out: &mut String, name: &str) {
    out.push('/');
    if !name.contains(['~', '/']) {
        out.push_str(name);
        return;
    }
    for c in name.chars() {
        match c {
            '~' => out.push_str("~0"),
            '/' => out.push_str("~1"),
            c => out.push(c),
        }
    }
}

/// Calls `visit` with pointer and value of each attribute, objects before their members, in the order of the document.
/// Arrays are visited once, not per element.
pub fn walk<'a>(context: &'a Map<String, Value>, visit: &mut impl FnMut(&str, &'a Value)) {
    let mut pointer = String::new();
    for (name, value) in context {
        if name != "_meta" {
            walk_member(&mut pointer, name, value, visit);
        }
    }
}

fn walk_member<'a>(pointer: &mut String, name: &str, value: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
    if value.is_null() {
        return;
    }
    let length = pointer.len();
    push_pointer_name(pointer, name);
    visit(pointer, value);
    if let Value::Object(members) = value {
        for (name, value) in members {
            walk_member(pointer, name, value, visit);
        }
    }
    pointer.truncate(length);
}

/// Pointers of the attributes that the context's `_meta` lists as held back.
pub fn redacted(context: &Map<String, Value>) -> Vec<AttributePath> {
    let listed = context.get("_meta").and_then(|meta| meta.get("redactedAttributes")).and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(Value::as_str).map(AttributePath::parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn pointers_reach_into_objects_and_names_do_not() {
        let context = object(json!({"job/title": "a", "a~b": 1, "address": {"city": "b"}, "": 2, "gone": null}));
        for (text, expected) in [
            ("job/title", Some(json!("a"))),
            ("/job~1title", Some(json!("a"))),
            ("/a~0b", Some(json!(1))),
            ("/address/city", Some(json!("b"))),
            ("address/city", None),
            ("/", Some(json!(2))),
            ("gone", None),
        ] {
            assert_eq!(AttributePath::parse(text).get(&context), expected.as_ref(), "{text}");
        }
    }

    #[test]
    fn walk_lists_objects_and_leaves_once() {
        let context = object(json!({"a": {"b": [1, 2], "c": null}, "d/e": 1, "_meta": {"x": 1}}));
        let mut seen = Vec::new();
        walk(&context, &mut |pointer, _| seen.push(pointer.to_owned()));
        assert_eq!(seen, ["/a", "/a/b", "/d~1e"]);
    }

    #[test]
    fn insert_fills_holes_only() {
        let mut context = object(json!({"a": 1, "b": {"c": 2}}));
        AttributePath::parse("/b/d").insert_if_absent(&mut context, json!(3));
        AttributePath::parse("/b/c").insert_if_absent(&mut context, json!(9));
        AttributePath::parse("/a/x").insert_if_absent(&mut context, json!(9));
        AttributePath::parse("/n/x").insert_if_absent(&mut context, json!(4));
        assert_eq!(Value::Object(context), json!({"a": 1, "b": {"c": 2, "d": 3}, "n": {"x": 4}}));
    }
}
