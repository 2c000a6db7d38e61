//! Reads one event and writes its row.
//!
//! In: the position of an event in the body. Out: one row (several for a summary, `summary`; none or more for an
//! unsummarised evaluation, `unsummarized`).
//! All fields are collected first, because `kind` may stand last; then what the kind requires is checked, and only then
//! anything is written. An optional field that does not fit its column is kept in `extra` like an unknown one.
//! Source: event-protocol section 7.

use events::{DeadLetterReason, EventKind};

use super::Walk;
use super::context::{ContextRow, push_aside};
use super::fault::{Fault, missing, type_name, wrong_type};
use super::fields::{Field, ReasonParts, keep_last, push_members};
use super::guess::Name;
use super::number;
use super::scan::{Scanner, Span};
use super::unsummarized::Mode;

/// Fields with a column, by kind. `kind`, `creationDate` and the context are common to all.
const fn columns_of(kind: EventKind) -> u32 {
    use EventKind::{Click, ClickPageview, Custom, Debug, Feature, Identify, Index, MigrationOp, Pageview};
    let fields: &[Field] = match kind {
        Feature | Debug => &[
            Field::Key,
            Field::Value,
            Field::Default,
            Field::Variation,
            Field::Version,
            Field::Reason,
            Field::PrereqOf,
            Field::SamplingRatio,
            Field::ExcludeFromSummaries,
        ],
        Index | Identify => &[Field::SamplingRatio],
        Custom | Click | Pageview | ClickPageview => {
            &[Field::Key, Field::Data, Field::MetricValue, Field::Url, Field::Selector, Field::SamplingRatio]
        }
        MigrationOp => &[Field::Operation, Field::SamplingRatio],
        EventKind::Alias => &[Field::Key, Field::PreviousKey, Field::PreviousContextKind],
        _ => &[],
    };
    let (mut bits, mut number) = (0, 0);
    while number < fields.len() {
        bits |= fields[number].bit();
        number += 1;
    }
    bits
}

impl Walk<'_> {
    /// Reads the event at the position, up to what follows it.
    pub(crate) fn event(&mut self) -> Result<(), Fault> {
        if self.scan.peek() != b'{' {
            let span = self.scan.value()?;
            self.expect_end_of_event()?;
            let message = format!("{} where an event was expected", type_name(&self.body, span));
            return Err(Fault::Event { reason: DeadLetterReason::NotAnEvent, message, at: span.start() });
        }
        self.scratch.fields.reset();
        self.scratch.summary.reset();
        self.scratch.aside.clear();
        let open = self.scan.open_span();
        self.scan.enter()?;
        let (mut previous, mut first, body) = (0, true, self.body);
        let find = |_: &Scanner<'_>, name| Field::of(&body, name).map(|field| field as usize);
        loop {
            let guess = &mut self.scratch.fields.guess;
            match guess.next_name(&mut self.scan, &mut previous, &mut first, Field::TOKENS, find)? {
                Some(Name::Known(field, _)) => self.field(Field::ALL[field])?,
                Some(Name::Other(name)) => {
                    let value = self.scan.value()?;
                    self.scratch.fields.others.push((name, value));
                }
                None => break,
            }
        }
        let span = self.scan.close_span(open);
        self.scan.space();
        self.expect_end_of_event()?;
        self.commit(span)
    }

    #[inline]
    fn field(&mut self, field: Field) -> Result<(), Fault> {
        match (self.scan.peek(), field) {
            (b'{', Field::Context | Field::User) => return self.read_context_object(field),
            (b'{', Field::Features) => return self.read_features(),
            (b'{', Field::Reason) => return self.read_reason(),
            _ => {}
        }
        let value = self.scan.value()?;
        if self.body.is_null(value) {
            self.scratch.fields.unset(field);
        } else {
            self.scratch.fields.set(field, value);
        }
        Ok(())
    }

    fn read_reason(&mut self) -> Result<(), Fault> {
        let (span, parts) = ReasonParts::read(&mut self.scan)?;
        self.scan.space();
        self.scratch.fields.set(Field::Reason, span);
        self.scratch.fields.reason = parts;
        Ok(())
    }

    /// Writes the event whose fields are collected. `span`: the whole event.
    fn commit(&mut self, span: Span) -> Result<(), Fault> {
        let kind = self.scratch.fields.take(Field::Kind);
        if kind.is_absent() {
            return Err(missing("kind", span.start()));
        }
        if !self.body.is_text(kind) {
            return Err(wrong_type(&self.body, "kind", kind, "text"));
        }
        let text = self.body.text(kind);
        let kind = std::str::from_utf8(&text).ok().and_then(EventKind::from_text).unwrap_or(EventKind::Other);
        if kind != EventKind::Summary {
            self.drop_counters();
        }
        match kind {
            EventKind::Summary => self.summary(span),
            EventKind::MigrationOp => self.migration_op(span),
            EventKind::Other => self.whole(kind, span),
            kind if kind.is_diagnostic() => self.whole(kind, span),
            EventKind::RelayMetrics | EventKind::RelayUsage => {
                let created_at = self.created_at();
                let row = self.begin_row(kind, created_at, None);
                self.finish_row(row, None);
                Ok(())
            }
            EventKind::Feature if self.mode == Mode::Unsummarized => self.unsummarized_feature(span),
            kind => {
                if kind == EventKind::Feature {
                    self.mode.expect_summarized(&self.scratch.fields)?;
                }
                self.plain(kind, span)
            }
        }
    }

    /// Kinds whose fields stand in columns of their own.
    fn plain(&mut self, kind: EventKind, span: Span) -> Result<(), Fault> {
        self.require_keys(kind, span)?;
        let created_at = self.created_at();
        let context = match kind {
            EventKind::Alias => self.alias_context(self.scratch.fields.get(Field::Key), created_at),
            _ => Some(self.require_context(created_at, span)?),
        };
        if self.mode == Mode::Unsummarized {
            self.index_context(kind, created_at, context);
        }
        self.plain_row(kind, created_at, context);
        Ok(())
    }

    pub(crate) fn plain_row(&mut self, kind: EventKind, created_at: Option<i64>, context: Option<ContextRow>) {
        let row = self.begin_row(kind, created_at, context);
        if kind == EventKind::Identify {
            self.drop_repeated_key(context);
        }
        let written = self.put_columns(row, kind, columns_of(kind));
        if kind == EventKind::Feature
            && self.body.flag(self.scratch.fields.get(Field::ExcludeFromSummaries)) == Some(true)
        {
            self.decoded.represented_evaluations = self.decoded.represented_evaluations.saturating_add(1);
        }
        self.scratch.fields.present &= !written;
        self.finish_row(row, context);
    }

    pub(crate) fn require_keys(&self, kind: EventKind, span: Span) -> Result<(), Fault> {
        if columns_of(kind) & Field::Key.bit() != 0 {
            self.require_text(Field::Key, span)?;
        }
        if kind == EventKind::Alias {
            self.require_text(Field::PreviousKey, span)?;
        }
        Ok(())
    }

    pub(crate) fn require_text(&self, field: Field, event: Span) -> Result<Span, Fault> {
        let value = self.scratch.fields.get(field);
        if value.is_absent() {
            return Err(missing(field.name(), event.start()));
        }
        if !self.body.is_text(value) {
            return Err(wrong_type(&self.body, field.name(), value, "text"));
        }
        Ok(value)
    }

    pub(crate) fn require_context(&mut self, created_at: Option<i64>, event: Span) -> Result<ContextRow, Fault> {
        self.context(created_at)?.ok_or_else(|| missing("context", event.start()))
    }

    /// The time of the event; a `creationDate` that is none stays a field, so that it ends in `extra`.
    pub(crate) fn created_at(&mut self) -> Option<i64> {
        self.take_time(Field::CreationDate)
    }

    pub(crate) fn take_time(&mut self, field: Field) -> Option<i64> {
        let span = self.scratch.fields.get(field);
        if span.is_absent() {
            return None;
        }
        let time = number::epoch_micros(self.body.raw(span))?;
        self.scratch.fields.unset(field);
        Some(time)
    }

    /// A diagnostic, whose whole object is its `data`, or an unknown kind, whose whole object is its `extra`.
    fn whole(&mut self, kind: EventKind, span: Span) -> Result<(), Fault> {
        let created_at = self.created_at();
        let row = self.begin_row(kind, created_at, None);
        let body = self.body;
        if kind.is_diagnostic() {
            let dropped = number::integer(body.raw(self.scratch.fields.get(Field::DroppedEvents))).unwrap_or(0);
            let dropped = u64::try_from(dropped).unwrap_or(0);
            self.decoded.sdk_dropped_events = self.decoded.sdk_dropped_events.saturating_add(dropped);
            self.open.columns.data.put_with(row, |out| body.push_json(out, span));
        } else {
            self.open.columns.extra.put_with(row, |out| body.push_json(out, span));
        }
        self.open.columns.rows += 1;
        Ok(())
    }

    /// `identify` repeats the key of its context, plain or fully qualified.
    fn drop_repeated_key(&mut self, context: Option<ContextRow>) {
        let Some(context) = context else { return };
        let key = self.scratch.fields.get(Field::Key);
        if !self.body.is_text(key) {
            return;
        }
        let key = self.body.text(key);
        let columns = &self.open.contexts.columns;
        let qualified = columns.context_key.get(context.row as usize);
        let kind = columns.context_kind.get(context.row as usize);
        let plain = qualified.strip_prefix(kind).and_then(|rest| rest.strip_prefix(b":"));
        if qualified == &*key || plain == Some(&*key) {
            self.scratch.fields.unset(Field::Key);
        }
    }

    #[inline]
    pub(crate) fn begin_row(&mut self, kind: EventKind, created_at: Option<i64>, context: Option<ContextRow>) -> usize {
        let columns = &mut self.open.columns;
        let row = columns.rows;
        columns.kind.put(row, kind as u8);
        columns.payload_index.put(row, self.index);
        columns.created_at.put_opt(row, created_at);
        columns.context_row.put_opt(row, context.map(|context| context.row));
        row
    }

    /// Writes what has no column and counts the row.
    pub(crate) fn finish_row(&mut self, row: usize, context: Option<ContextRow>) {
        let fields = &self.scratch.fields;
        if fields.present == 0 && fields.others.is_empty() && self.aside(context).is_empty() {
            self.open.columns.rows += 1;
        } else {
            self.finish_row_with(row, context, |_| {});
        }
    }

    /// As [`Walk::finish_row`]; `push` appends further members.
    pub(crate) fn finish_row_with(&mut self, row: usize, context: Option<ContextRow>, push: impl FnOnce(&mut Vec<u8>)) {
        let body = self.body;
        let mut extra = std::mem::take(&mut self.scratch.extra);
        extra.clear();
        extra.push(b'{');
        keep_last(&body, &mut self.scratch.fields.others);
        self.scratch.fields.push_present(&body, &mut extra);
        push_members(&body, &mut extra, &self.scratch.fields.others);
        push_aside(&mut extra, self.aside(context));
        push(&mut extra);
        if extra.len() > 1 {
            extra.push(b'}');
            self.open.columns.extra.put(row, &extra);
        }
        self.scratch.extra = extra;
        self.open.columns.rows += 1;
    }

    /// What the context of the event said that is no attribute.
    pub(crate) fn aside(&self, context: Option<ContextRow>) -> &[u8] {
        match context.and_then(|context| context.entry) {
            Some(entry) => self.open.contexts.aside(entry),
            None => &self.scratch.aside,
        }
    }
}
