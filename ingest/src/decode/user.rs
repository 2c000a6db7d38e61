//! Legacy users as contexts: the object without `kind` that SDKs sent before contexts.
//!
//! In: a user object. Out: the context of kind `user` that it stands for, as JSON text. What is no attribute
//! (`secondary`, unknown members) is kept aside for the event's `extra`.
//! Source: event-protocol section 6; go-sdk-common `ldcontext/context_unmarshaling.go`.

use super::context::{Described, Single};
use super::fault::{Fault, bad_context, type_name};
use super::fields::{Member, keep_last, push_comma, push_members};
use super::object::{Identity, Outline, anonymous, str_of};
use super::scan::{Scanner, Span};
use super::text::{Body, push_json_text};

/// Members that become attributes under their own name.
const BUILT_INS: [&[u8]; 7] = [b"ip", b"country", b"email", b"firstName", b"lastName", b"avatar", b"name"];
/// Names that `custom` may not use: they mean something else at the top level of a context.
const RESERVED: [&[u8]; 5] = [b"kind", b"key", b"name", b"anonymous", b"_meta"];

pub(crate) fn describe<'a>(body: &Body<'a>, top: &Outline) -> Result<Described<'a>, Fault> {
    let Some(key) = body.key_text(top.key).map(str_of) else {
        let found = type_name(body, top.key);
        return Err(bad_context(format!("the key of a user is {found}, expected text"), top.value));
    };
    let anonymous = anonymous(body, top)?;
    let mut built_ins: Vec<Member> = Vec::new();
    let mut custom: Vec<Member> = Vec::new();
    let mut refused: Vec<Member> = Vec::new();
    let mut unknown: Vec<Member> = Vec::new();
    let (mut private, mut secondary) = (Span::default(), Span::default());
    for member @ (name, value) in members(body, top.value)? {
        match &*body.text(name) {
            b"key" | b"anonymous" | b"kind" => {}
            b"custom" if body.first(value) == b'{' => custom = members(body, value)?,
            b"privateAttrs" if body.first(value) == b'[' => private = value,
            b"secondary" if !body.is_null(value) => secondary = value,
            _ if body.is_null(value) || body.raw(value) == b"[]" => {}
            text if BUILT_INS.contains(&text) => built_ins.push(member),
            _ => unknown.push(member),
        }
    }
    custom.retain(|member @ (name, value)| {
        let text = body.text(*name);
        let taken = built_ins.iter().any(|(built_in, _)| body.text(*built_in) == text);
        if RESERVED.contains(&&*text) || taken {
            refused.push(*member);
            return false;
        }
        !body.is_null(*value)
    });

    let mut json = b"{\"kind\":\"user\",\"key\":".to_vec();
    push_json_text(&mut json, &key);
    if anonymous {
        json.extend_from_slice(b",\"anonymous\":true");
    }
    push_members(body, &mut json, &built_ins);
    push_members(body, &mut json, &custom);
    push_redacted(body, &mut json, private)?;
    json.push(b'}');

    let identity = Identity { kind: "user".into(), key, anonymous };
    let aside = aside(body, secondary, &unknown, &refused);
    Ok(Described {
        singles: vec![Single { identity, json: None, is_bare: false }],
        json: Some(json.into()),
        anonymous: Some(anonymous),
        aside,
    })
}

/// Members of the object at `span`, each name once.
fn members(body: &Body<'_>, span: Span) -> Result<Vec<Member>, Fault> {
    let mut scanner = Scanner::at(body.bytes, span);
    let mut members = Vec::new();
    scanner.enter()?;
    let mut first = true;
    while let Some(name) = scanner.next_name(&mut first)? {
        members.push((name, scanner.value()?));
    }
    keep_last(body, &mut members);
    Ok(members)
}

/// `privateAttrs` are names, never paths; a name that would be read as a path is escaped.
fn push_redacted(body: &Body<'_>, json: &mut Vec<u8>, private: Span) -> Result<(), Fault> {
    if private.is_absent() {
        return Ok(());
    }
    let mut scanner = Scanner::at(body.bytes, private);
    scanner.enter()?;
    let (mut first, start) = (true, json.len());
    while scanner.next_item(&mut first)? {
        let item = scanner.value()?;
        if !body.is_text(item) {
            continue;
        }
        json.extend_from_slice(if json.len() == start { b",\"_meta\":{\"redactedAttributes\":[" } else { b"," });
        let name = str_of(body.text(item));
        if name.starts_with('/') {
            push_json_text(json, &format!("/{}", name.replace('~', "~0").replace('/', "~1")));
        } else {
            push_json_text(json, &name);
        }
    }
    if json.len() > start {
        json.extend_from_slice(b"]}");
    }
    Ok(())
}

/// Members for `extra`: `secondary`, and what is unknown under `user`.
fn aside(body: &Body<'_>, secondary: Span, unknown: &[Member], refused: &[Member]) -> Vec<u8> {
    // The brace makes the commas right; it is cut off again.
    let mut out = vec![b'{'];
    if !secondary.is_absent() {
        out.extend_from_slice(b"\"secondary\":");
        body.push_json(&mut out, secondary);
    }
    if !unknown.is_empty() || !refused.is_empty() {
        push_comma(&mut out);
        out.extend_from_slice(b"\"user\":{");
        push_members(body, &mut out, unknown);
        if !refused.is_empty() {
            push_comma(&mut out);
            out.extend_from_slice(b"\"custom\":{");
            push_members(body, &mut out, refused);
            out.push(b'}');
        }
        out.push(b'}');
    }
    out.remove(0);
    out
}

#[cfg(test)]
mod tests {
    use super::super::object::ObjectOutline;
    use super::*;

    fn described(text: &str) -> (String, String) {
        let body = Body::new(text.as_bytes());
        let mut object = ObjectOutline::default();
        object.read(&mut Scanner::new(text.as_bytes())).unwrap();
        let described = describe(&body, &object.top).unwrap();
        (String::from_utf8(described.json.unwrap().into()).unwrap(), String::from_utf8(described.aside).unwrap())
    }

    #[test]
    fn a_user_becomes_a_context() {
        let (json, aside) = described(
            r#"{"key": "u", "secondary": "s", "email": "a@b", "name": null, "anonymous": true, "shoe": 43,
            "custom": {"name": "n", "email": "c", "tier": {"a": 1}, "none": null}, "privateAttrs": ["x", "/y~", 3]}"#,
        );
        assert_eq!(
            json,
            r#"{"kind":"user","key":"u","anonymous":true,"email":"a@b","tier":{"a":1},"_meta":{"redactedAttributes":["x","/~1y~0"]}}"#
        );
        assert_eq!(aside, r#""secondary":"s","user":{"shoe":43,"custom":{"name":"n","email":"c"}}"#);
    }

    #[test]
    fn numeric_and_empty_keys_are_allowed() {
        assert_eq!(described(r#"{"key":42,"custom":[]}"#), (r#"{"kind":"user","key":"42"}"#.into(), String::new()));
        assert_eq!(described(r#"{"key":""}"#).0, r#"{"kind":"user","key":""}"#);
    }
}
