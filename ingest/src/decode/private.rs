//! Drops attributes that `_meta.privateAttributes` names, and that list: a sender that did not redact its context
//! itself must not make us keep what it called private. No SDK sends such contexts.

use super::fault::{Fault, bad_context};
use super::object::{Outline, name_text};
use super::scan::{Scanner, Span};
use super::text::Body;

/// A reference as its path components; a plain name is one component.
type Path = Vec<Vec<u8>>;

/// Each member is compared with each path.
const PATHS_MAX: usize = 256;

/// Compact JSON of the context of `outline` without its private attributes.
pub(crate) fn without(body: &Body<'_>, outline: &Outline) -> Result<Vec<u8>, Fault> {
    let mut paths = vec![vec![b"_meta".to_vec(), b"privateAttributes".to_vec()]];
    if body.first(outline.private) == b'[' {
        let mut scanner = Scanner::at(body.bytes, outline.private);
        scanner.enter()?;
        let mut first = true;
        while scanner.next_item(&mut first)? {
            let item = scanner.value()?;
            if paths.len() > PATHS_MAX {
                return Err(bad_context(format!("more than {PATHS_MAX} private attributes"), outline.private));
            }
            paths.extend(Some(path(&body.text(item))).filter(is_attribute));
        }
    }
    let mut out = Vec::with_capacity(outline.value.len());
    let paths: Vec<&[Vec<u8>]> = paths.iter().map(|path| &path[..]).collect();
    push_without(body, &mut out, outline.value, &paths)?;
    Ok(out)
}

fn path(reference: &[u8]) -> Path {
    let Some(rest) = reference.strip_prefix(b"/") else {
        return vec![reference.to_vec()];
    };
    let unescape = |part: &[u8]| {
        let mut out = Vec::with_capacity(part.len());
        let mut rest = part;
        while let Some((byte, after)) = rest.split_first() {
            let (byte, after) = match (byte, after) {
                (b'~', [b'0', after @ ..]) => (b'~', after),
                (b'~', [b'1', after @ ..]) => (b'/', after),
                (byte, after) => (*byte, after),
            };
            out.push(byte);
            rest = after;
        }
        out
    };
    rest.split(|byte| *byte == b'/').map(unescape).collect()
}

/// What identifies a context cannot be private.
fn is_attribute(path: &Path) -> bool {
    !matches!(&path[0][..], b"kind" | b"key" | b"anonymous" | b"_meta")
}

/// Copies the object at `span` without the members that a path of one component names. Recurses along paths only.
fn push_without(body: &Body<'_>, out: &mut Vec<u8>, span: Span, paths: &[&[Vec<u8>]]) -> Result<(), Fault> {
    let mut scanner = Scanner::at(body.bytes, span);
    scanner.enter()?;
    out.push(b'{');
    let mut first = true;
    while let Some(name) = scanner.next_name(&mut first)? {
        let text = name_text(&scanner, name);
        let value = scanner.value()?;
        let inner: Vec<&[Vec<u8>]> = paths.iter().filter(|path| *path[0] == *text).map(|path| &path[1..]).collect();
        if inner.iter().any(|rest| rest.is_empty()) {
            continue;
        }
        let start = out.len();
        super::fields::push_comma(out);
        body.push_json(out, name);
        out.push(b':');
        if inner.is_empty() || body.first(value) != b'{' {
            body.push_json(out, value);
            continue;
        }
        let value_start = out.len();
        push_without(body, out, value, &inner)?;
        if *text == *b"_meta" && &out[value_start..] == b"{}" {
            out.truncate(start);
        }
    }
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::object::ObjectOutline;
    use super::*;

    fn cleaned(text: &str) -> String {
        let mut object = ObjectOutline::default();
        object.read(&mut Scanner::new(text.as_bytes())).unwrap();
        String::from_utf8(without(&Body::new(text.as_bytes()), &object.top).unwrap()).unwrap()
    }

    #[test]
    fn private_attributes_are_dropped_with_their_list() {
        assert_eq!(
            cleaned(
                r#"{"kind":"user","key":"u","email":"e","a":{"b":1,"c":{"d":2}},"x/y":3,"z~":4,
                "_meta":{"privateAttributes":["email","/a/c/d","/x~1y","/z~0","key"]}}"#
            ),
            r#"{"kind":"user","key":"u","a":{"b":1,"c":{}}}"#
        );
        assert_eq!(
            cleaned(r#"{"_meta":{"privateAttributes":["b"],"redactedAttributes":["c"]},"b":1,"key":"u"}"#),
            r#"{"_meta":{"redactedAttributes":["c"]},"key":"u"}"#
        );
    }
}
