//! Whom an event is about: finds or writes its context row, and notes the sighting of each single context.
//!
//! In: the fields `context`, `contextKeys`, `user` or `userKey` of an event, the first present in that order.
//! Out: `context_row`. Nothing is written for a context that cannot be used.
//! Source: event-protocol section 6.

use std::borrow::Cow;

use events::DeadLetterReason;
use events::context::{canonical_key, is_valid_kind};

use super::Walk;
use super::fault::{Fault, bad_context, type_name};
use super::fields::{Field, push_comma};
use super::object::{Identity, KINDS_MAX, ObjectOutline, Outline, identity, str_of};
use super::scan::{BROKEN, SPACED, Scanner, Span};
use super::{private, user};
use crate::rows::context::Form;
use crate::rows::sighting::{Instance, Part, Stamp};

/// A context, ready to be written.
pub(crate) struct Described<'a> {
    pub singles: Vec<Single<'a>>,
    /// JSON of the whole; `None` where only keys were sent.
    pub json: Option<Cow<'a, [u8]>>,
    /// `None` where it was not said.
    pub anonymous: Option<bool>,
    /// Members for `extra`.
    pub aside: Vec<u8>,
}

pub(crate) struct Single<'a> {
    pub identity: Identity<'a>,
    /// JSON of this part of a multi-context.
    pub json: Option<Vec<u8>>,
    /// See [`Part::is_bare`].
    pub is_bare: bool,
}

/// A row of the contexts batch, and the memory of it if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContextRow {
    pub row: u32,
    pub entry: Option<usize>,
}

impl<'a> Walk<'a> {
    /// Reads the object of `field` at the current position, or recognises it.
    #[inline]
    pub(crate) fn read_context_object(&mut self, field: Field) -> Result<(), Fault> {
        let start = self.scan.position;
        let fields = &mut self.scratch.fields;
        if let Some((entry, length)) = self.open.contexts.find_object(&self.body.bytes[start..]) {
            self.scan.position = start + length;
            // What repeats may hold white space; the span of the event must then say so.
            self.scan.mark_as_repeat();
            fields.set(field, Span::new(start, start + length, SPACED | BROKEN));
            fields.found = Some((field, entry));
            self.scan.space();
        } else {
            let span = self.scratch.object.read(&mut self.scan)?;
            fields.set(field, span);
            fields.described = Some(field);
            fields.found = fields.found.filter(|(found, _)| *found != field);
        }
        Ok(())
    }

    /// The context row of the event, or `None` if it names nobody. Takes the field that it used.
    pub(crate) fn context(&mut self, created_at: Option<i64>) -> Result<Option<ContextRow>, Fault> {
        let fields = &mut self.scratch.fields;
        let by_precedence = [Field::Context, Field::ContextKeys, Field::User, Field::UserKey];
        let Some(field) = by_precedence.into_iter().find(|field| fields.has(*field)) else {
            return Ok(None);
        };
        let span = fields.take(field);
        if let Some((found, entry)) = fields.found
            && found == field
        {
            return self.repeated(field, Form::Object, span, entry, created_at).map(Some);
        }
        let form = match field {
            Field::ContextKeys => Form::Keys,
            Field::UserKey if self.body.raw(fields.get(Field::ContextKind)) == b"\"anonymousUser\"" => {
                Form::AnonymousUserKey
            }
            Field::UserKey => Form::UserKey,
            _ => Form::Object,
        };
        if let Some(entry) = self.open.contexts.find(form, self.body.raw(span)) {
            return self.repeated(field, form, span, entry, created_at).map(Some);
        }
        let described = self.describe(field, form, span)?;
        let instance_key = canonical(&described.singles);
        let row = self.write_context(&described, &instance_key);
        let stamps = self.note_sightings(&described, &instance_key, row, created_at);
        let entry = self.open.contexts.remember(form, self.body.raw(span), row, &described.aside);
        let state = (self.sender.hash, self.sightings.changes);
        if let Some(entry) = entry {
            self.open.contexts.set_sighted(entry, state, Some(&stamps));
        } else if !described.aside.is_empty() {
            self.scratch.aside = described.aside;
        }
        Ok(Some(ContextRow { row, entry }))
    }

    /// The context of an `alias`: a user of whom only the key is known. `key`: a string.
    pub(crate) fn alias_context(&mut self, key: Span, created_at: Option<i64>) -> Option<ContextRow> {
        let fields = &mut self.scratch.fields;
        let others = [Field::Context, Field::ContextKeys, Field::User];
        if others.iter().any(|field| fields.has(*field)) {
            return None;
        }
        fields.set(Field::UserKey, key);
        self.context(created_at).ok().flatten()
    }

    fn repeated(
        &mut self,
        field: Field,
        form: Form,
        span: Span,
        entry: usize,
        created_at: Option<i64>,
    ) -> Result<ContextRow, Fault> {
        let state = (self.sender.hash, self.sightings.changes);
        let known = self.open.contexts.entry(entry);
        let (row, sighted) = (known.row, known.sighted);
        if sighted == state {
            // Nothing happened since.
        } else if sighted.0 == state.0 && self.sightings.is_noted(self.open.contexts.stamps(entry)) {
            self.open.contexts.set_sighted(entry, state, None);
        } else {
            let described = self.describe(field, form, span)?;
            let stamps = self.note_sightings(&described, &canonical(&described.singles), row, created_at);
            // Noting may count a change itself; the entry is as new as what it noted.
            self.open.contexts.set_sighted(entry, (self.sender.hash, self.sightings.changes), Some(&stamps));
        }
        Ok(ContextRow { row, entry: Some(entry) })
    }

    fn describe(&mut self, field: Field, form: Form, span: Span) -> Result<Described<'a>, Fault> {
        match form {
            Form::Keys => self.describe_keys(span),
            Form::UserKey | Form::AnonymousUserKey => self.describe_user_key(form, span),
            Form::Object if self.body.first(span) != b'{' => {
                let found = type_name(&self.body, span);
                Err(bad_context(format!("`{}` is {found}, expected an object", field.name()), span))
            }
            Form::Object => {
                if self.scratch.fields.described != Some(field) {
                    let mut scanner = Scanner::at(self.body.bytes, span);
                    self.scratch.object.read(&mut scanner)?;
                    self.scratch.fields.described = Some(field);
                }
                let object = &self.scratch.object;
                self.describe_object(object)
            }
        }
    }

    fn describe_object(&self, object: &ObjectOutline) -> Result<Described<'a>, Fault> {
        let body = self.body;
        let top = object.top;
        if top.kind.is_absent() {
            return user::describe(&body, &top);
        }
        if !body.is_text(top.kind) {
            let found = type_name(&body, top.kind);
            return Err(bad_context(format!("the kind of a context is {found}, expected text"), top.kind));
        }
        let kind = str_of(body.text(top.kind));
        if kind == "multi" {
            return self.describe_multi(object);
        }
        let identity = identity(&body, kind, &top)?;
        let json = if top.private.is_absent() { self.json(top.value) } else { private::without(&body, &top)?.into() };
        let anonymous = Some(identity.anonymous);
        let is_bare = identity.anonymous && !top.has_attributes;
        Ok(Described {
            singles: vec![Single { identity, json: None, is_bare }],
            json: Some(json),
            anonymous,
            aside: Vec::new(),
        })
    }

    fn describe_multi(&self, object: &ObjectOutline) -> Result<Described<'a>, Fault> {
        let (body, top) = (self.body, object.top);
        if !object.odd.is_absent() {
            let found = type_name(&body, object.odd);
            return Err(bad_context(format!("a member of a multi-context is {found}, expected an object"), object.odd));
        }
        if object.members.is_empty() || object.members.len() > KINDS_MAX {
            let count = object.members.len();
            return Err(bad_context(format!("a multi-context of {count} kinds, expected 1 to {KINDS_MAX}"), top.value));
        }
        let mut parts: Vec<(Cow<'a, str>, &Outline)> =
            object.members.iter().map(|member| (str_of(body.text(member.name)), member)).collect();
        parts.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.value.start().cmp(&one.1.value.start())));
        // Of two members with one name the last in the text counts; it stands first here.
        parts.dedup_by(|one, kept| one.0 == kept.0);
        let rewritten = parts.iter().any(|(_, member)| !member.private.is_absent()) || parts.len() == 1;
        let mut whole = b"{\"kind\":\"multi\"".to_vec();
        let mut singles = Vec::with_capacity(parts.len());
        for (kind, member) in parts {
            let inner = match member.private.is_absent() {
                true => self.json(member.value),
                false => private::without(&body, member)?.into(),
            };
            if rewritten {
                whole.extend_from_slice(format!(",\"{kind}\":").as_bytes());
                whole.extend_from_slice(&inner);
            }
            let mut json = Vec::with_capacity(inner.len() + kind.len() + 12);
            json.extend_from_slice(b"{\"kind\":\"");
            json.extend_from_slice(kind.as_bytes());
            json.extend_from_slice(b"\",");
            json.extend_from_slice(&inner[1..]);
            let identity = identity(&body, kind, member)?;
            let is_bare = identity.anonymous && !member.has_attributes;
            singles.push(Single { identity, json: Some(json), is_bare });
        }
        let all_anonymous = Some(singles.iter().all(|single| single.identity.anonymous));
        if let [single] = &mut singles[..] {
            let json = single.json.take().map(Cow::Owned);
            return Ok(Described { singles, json, anonymous: all_anonymous, aside: Vec::new() });
        }
        whole.push(b'}');
        let json = if rewritten { whole.into() } else { self.json(top.value) };
        let canonical: usize = singles.iter().map(|one| one.identity.kind.len() + one.identity.key.len() * 3 + 2).sum();
        if canonical * singles.len() > (1 << 20) + 4 * top.value.len() {
            // Each part is sighted with the key of the whole: bounded, so that a body cannot multiply itself.
            let message = format!("the keys of a multi-context of {} kinds are too long", singles.len());
            return Err(Fault::Event { reason: DeadLetterReason::TooLarge, message, at: top.value.start() });
        }
        Ok(Described { singles, json: Some(json), anonymous: all_anonymous, aside: Vec::new() })
    }

    fn describe_keys(&self, span: Span) -> Result<Described<'a>, Fault> {
        let body = self.body;
        let mut singles: Vec<Single<'a>> = Vec::new();
        if body.first(span) != b'{' {
            return Err(bad_context(format!("`contextKeys` is {}, expected an object", type_name(&body, span)), span));
        }
        let mut scanner = Scanner::at(body.bytes, span);
        scanner.enter()?;
        let mut first = true;
        while let Some(name) = scanner.next_name(&mut first)? {
            let value = scanner.value()?;
            if body.is_null(value) {
                continue;
            }
            let kind = str_of(body.text(name));
            if !is_valid_kind(&kind) || singles.len() == KINDS_MAX {
                let shown: String = kind.chars().take(64).collect();
                return Err(bad_context(format!("{shown:?} in `contextKeys` is not a context kind"), span));
            }
            let Some(key) = body.key_text(value).map(str_of).filter(|key| !key.is_empty() || kind == "user") else {
                return Err(bad_context(format!("the key of {kind:?} in `contextKeys` is not a text"), value));
            };
            singles.retain(|single| single.identity.kind != kind);
            singles.push(Single { identity: Identity { kind, key, anonymous: false }, json: None, is_bare: false });
        }
        if singles.is_empty() {
            return Err(bad_context("`contextKeys` names nobody", span));
        }
        singles.sort_by(|one, other| one.identity.kind.cmp(&other.identity.kind));
        Ok(Described { singles, json: None, anonymous: None, aside: Vec::new() })
    }

    fn describe_user_key(&self, form: Form, span: Span) -> Result<Described<'a>, Fault> {
        let Some(key) = self.body.key_text(span).map(str_of) else {
            return Err(bad_context(format!("`userKey` is {}, expected text", type_name(&self.body, span)), span));
        };
        let anonymous = form == Form::AnonymousUserKey;
        let identity = Identity { kind: "user".into(), key, anonymous };
        let anonymous = anonymous.then_some(true);
        Ok(Described {
            singles: vec![Single { identity, json: None, is_bare: false }],
            json: None,
            anonymous,
            aside: Vec::new(),
        })
    }

    /// Compact JSON of a value, borrowed if it is that already.
    fn json(&self, span: Span) -> Cow<'a, [u8]> {
        if span.marks() & (SPACED | BROKEN) == 0 && self.body.utf8 {
            return self.body.raw(span).into();
        }
        let mut out = Vec::with_capacity(span.len());
        self.body.push_json(&mut out, span);
        out.into()
    }

    fn write_context(&mut self, described: &Described<'_>, canonical: &str) -> u32 {
        let columns = &mut self.open.contexts.columns;
        let (row, singles) = (columns.rows, &described.singles);
        let kind = if let [single] = &singles[..] { &single.identity.kind } else { "multi" };
        columns.context_kind.put(row, kind.as_bytes());
        match &singles[..] {
            [single] if single.identity.kind == "user" => columns.context_key.put(row, single.identity.key.as_bytes()),
            _ => columns.context_key.put(row, canonical.as_bytes()),
        }
        let entries = singles.iter().map(|one| (one.identity.kind.as_bytes(), one.identity.key.as_bytes()));
        columns.context_keys.put(row, entries);
        columns.anonymous.put_opt(row, described.anonymous);
        if let Some(json) = &described.json {
            columns.context.put(row, json);
        }
        columns.rows += 1;
        row as u32
    }

    fn note_sightings(
        &mut self,
        described: &Described<'_>,
        instance_key: &str,
        row: u32,
        created_at: Option<i64>,
    ) -> Vec<Stamp> {
        let mut stamps = Vec::with_capacity(described.singles.len());
        let contexts = &self.open.contexts.columns.context;
        let named = named_instance(&described.singles, instance_key);
        let instance = Instance { key: named.key.as_bytes(), anonymous_kinds: named.anonymous_kinds.as_bytes() };
        for single in &described.singles {
            let whole = described.json.as_ref().map(|_| contexts.get(row as usize));
            let part = Part {
                kind: single.identity.kind.as_bytes(),
                key: single.identity.key.as_bytes(),
                anonymous: single.identity.anonymous,
                context: single.json.as_deref().or(whole),
                is_bare: single.is_bare,
                instance,
            };
            let (stamp, written) = self.sightings.note(&self.sender, &part, created_at, self.recent);
            self.decoded.sightings += u32::from(written);
            stamps.push(stamp);
        }
        stamps
    }
}

/// What identifies a combination: its parts that are not anonymous, and the kinds of the others.
struct NamedInstance<'a> {
    key: Cow<'a, str>,
    anonymous_kinds: String,
}

/// `singles`: sorted by kind. `canonical`: the key of all of them.
fn named_instance<'a>(singles: &[Single<'_>], canonical: &'a str) -> NamedInstance<'a> {
    let is_anonymous = |single: &&Single<'_>| single.identity.anonymous;
    if !singles.iter().any(|single| is_anonymous(&single)) {
        return NamedInstance { key: canonical.into(), anonymous_kinds: String::new() };
    }
    let kinds: Vec<&str> = singles.iter().filter(is_anonymous).map(|single| &*single.identity.kind).collect();
    let named = singles.iter().filter(|single| !is_anonymous(single));
    let mut named: Vec<(&str, &str)> = named.map(|one| (&*one.identity.kind, &*one.identity.key)).collect();
    NamedInstance { key: canonical_key(&mut named).into(), anonymous_kinds: kinds.join(",") }
}

/// `singles`: sorted by kind.
fn canonical(singles: &[Single<'_>]) -> String {
    if singles.iter().any(|single| single.identity.key.contains(['%', ':'])) {
        let mut parts: Vec<(&str, &str)> =
            singles.iter().map(|single| (&*single.identity.kind, &*single.identity.key)).collect();
        return canonical_key(&mut parts);
    }
    // Nothing to escape, as nearly always.
    let bytes = singles.iter().map(|single| single.identity.kind.len() + single.identity.key.len() + 2).sum();
    let mut out = String::with_capacity(bytes);
    for Identity { kind, key, .. } in singles.iter().map(|single| &single.identity) {
        if !out.is_empty() {
            out.push(':');
        }
        out.push_str(kind);
        out.push(':');
        out.push_str(key);
    }
    out
}

/// Appends the members that a legacy user left aside.
pub(crate) fn push_aside(out: &mut Vec<u8>, aside: &[u8]) {
    if !aside.is_empty() {
        push_comma(out);
        out.extend_from_slice(aside);
    }
}
