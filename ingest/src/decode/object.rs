//! The structure of a context object, read in the same pass as the event: where its kinds, keys and marks stand.
//!
//! Source: event-protocol section 6. Whether the object is a context, a multi-context or a legacy user is known only at
//! its end, so an outline is kept for each member that is an object itself.

use std::borrow::Cow;

use super::fault::{Fault, bad_context, type_name};
use super::scan::{self, ESCAPED, Scanner, Span};
use super::text::Body;

/// Where the defining members of one object stand. Absent spans for absent members and nulls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outline {
    /// Name under which it is a member of the outer object.
    pub name: Span,
    pub value: Span,
    pub kind: Span,
    pub key: Span,
    pub anonymous: Span,
    /// `_meta.privateAttributes`, which no SDK sends.
    pub private: Span,
    /// Whether there is any member that the ones above do not name, `_meta` aside.
    pub has_attributes: bool,
}

#[derive(Debug, Default)]
pub(crate) struct ObjectOutline {
    pub top: Outline,
    /// Members that are objects, in order; without `_meta`.
    pub members: Vec<Outline>,
    /// A member besides `kind` that is neither an object nor null, if there is one.
    pub odd: Span,
}

/// Most kinds in one multi-context; real ones have a handful.
pub(crate) const KINDS_MAX: usize = 100;

impl ObjectOutline {
    /// Reads the object at the scanner's position.
    pub fn read(&mut self, scanner: &mut Scanner<'_>) -> scan::Result<Span> {
        self.members.clear();
        self.odd = Span::default();
        self.top = read_outline(scanner, Some((&mut self.members, &mut self.odd)))?;
        scanner.space();
        Ok(self.top.value)
    }
}

type Inner<'a> = (&'a mut Vec<Outline>, &'a mut Span);

fn read_outline(scanner: &mut Scanner<'_>, mut inner: Option<Inner<'_>>) -> scan::Result<Outline> {
    let mut outline = Outline::default();
    let open = scanner.open_span();
    scanner.enter()?;
    let mut first = true;
    while let Some(name) = scanner.next_name(&mut first)? {
        let text = name_text(scanner, name);
        let is_object = scanner.peek() == b'{';
        outline.has_attributes |= !matches!(&*text, b"kind" | b"key" | b"anonymous" | b"_meta");
        if is_object && *text == *b"_meta" {
            outline.private = read_meta(scanner)?;
            scanner.space();
            continue;
        }
        if let Some((members, _)) = inner.as_mut().filter(|_| is_object) {
            let mut member = read_outline(scanner, None)?;
            scanner.space();
            member.name = name;
            // One more than allowed says that there are too many.
            if members.len() <= KINDS_MAX {
                members.push(member);
            }
            continue;
        }
        let value = scanner.value()?;
        let value_or_absent = if scanner.bytes()[value.start()] == b'n' { Span::default() } else { value };
        match &*text {
            b"kind" => {
                outline.kind = value_or_absent;
                continue;
            }
            b"key" => outline.key = value_or_absent,
            b"anonymous" => outline.anonymous = value_or_absent,
            _ => {}
        }
        if let Some((_, odd)) = inner.as_mut().filter(|_| !value_or_absent.is_absent()) {
            **odd = value;
        }
    }
    outline.value = scanner.close_span(open);
    Ok(outline)
}

fn read_meta(scanner: &mut Scanner<'_>) -> scan::Result<Span> {
    let mut private = Span::default();
    scanner.enter()?;
    let mut first = true;
    while let Some(name) = scanner.next_name(&mut first)? {
        let is_private = *name_text(scanner, name) == *b"privateAttributes";
        let value = scanner.value()?;
        if is_private {
            private = value;
        }
    }
    Ok(private)
}

/// The text of a member name, borrowed unless it has escapes.
#[inline]
pub(crate) fn name_text<'a>(scanner: &Scanner<'a>, name: Span) -> Cow<'a, [u8]> {
    let body = Body { bytes: scanner.bytes(), utf8: true };
    if name.marks() & ESCAPED == 0 {
        let raw = body.raw(name);
        return raw[1..raw.len() - 1].into();
    }
    body.text(name)
}

/// A single context as far as its identity goes.
#[derive(Debug)]
pub(crate) struct Identity<'a> {
    pub kind: Cow<'a, str>,
    pub key: Cow<'a, str>,
    pub anonymous: bool,
}

/// The text of a string as `str`; copies of it are always UTF-8.
pub(crate) fn str_of<'a>(text: Cow<'a, [u8]>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).unwrap_or_default()),
    }
}

/// Checks what identifies the context of `outline`, whose kind is `kind`.
pub(crate) fn identity<'a>(body: &Body<'a>, kind: Cow<'a, str>, outline: &Outline) -> Result<Identity<'a>, Fault> {
    if !events::context::is_valid_kind(&kind) {
        let shown: String = kind.chars().take(64).collect();
        return Err(bad_context(format!("{shown:?} is not a context kind"), outline.value));
    }
    if !body.is_text(outline.key) {
        let found = type_name(body, outline.key);
        return Err(bad_context(
            format!("the key of a context of kind {kind:?} is {found}, expected text"),
            outline.value,
        ));
    }
    let key = str_of(body.text(outline.key));
    if key.is_empty() {
        return Err(bad_context(format!("the key of a context of kind {kind:?} is empty"), outline.key));
    }
    Ok(Identity { anonymous: anonymous(body, outline)?, kind, key })
}

pub(crate) fn anonymous(body: &Body<'_>, outline: &Outline) -> Result<bool, Fault> {
    match body.flag(outline.anonymous) {
        Some(flag) => Ok(flag),
        None if outline.anonymous.is_absent() => Ok(false),
        None => {
            let found = type_name(body, outline.anonymous);
            Err(bad_context(format!("`anonymous` of a context is {found}, expected a boolean"), outline.anonymous))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outline_finds_what_defines_a_context() {
        let text = br#"{"a":{"key":"inner","kind":null}, "k\u0069nd":"multi","b":{"_meta":{"privateAttributes":["x"]}},"c":3}"#;
        let mut object = ObjectOutline::default();
        let mut scanner = Scanner::new(text);
        let span = object.read(&mut scanner).unwrap();
        let body = Body::new(text);
        assert_eq!(span.len(), text.len());
        assert_eq!(&*body.text(object.top.kind), b"multi");
        assert_eq!(object.members.len(), 2);
        assert_eq!(&*body.text(object.members[0].key), b"inner");
        assert!(object.members[0].kind.is_absent());
        assert_eq!(body.raw(object.members[1].private), br#"["x"]"#);
        assert_eq!(body.raw(object.odd), b"3");
    }
}
