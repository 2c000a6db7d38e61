//! `migration_op`: one stage of a migration between two systems, and what it measured.
//!
//! Members of `evaluation` and measurements that have no column are kept in `extra` under the names they had.
//! Source: event-protocol section 7.3.

use events::EventKind;

use super::Walk;
use super::columns::{put_integer, put_json, put_reason, put_text};
use super::fault::{Fault, missing, wrong_type};
use super::fields::{Field, Member, ReasonParts, keep_last, push_comma, push_members};
use super::number;
use super::object::name_text;
use super::scan::{Scanner, Span};
use super::text::Body;

#[derive(Debug, Default)]
struct Evaluation {
    key: Span,
    value: Span,
    default: Span,
    variation: Span,
    version: Span,
    reason: Span,
    reason_parts: ReasonParts,
    others: Vec<Member>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Measurements {
    invoked: [Option<bool>; 2],
    error: [Option<bool>; 2],
    latency_ms: [Option<f64>; 2],
    consistent: Option<bool>,
    consistent_sampling_ratio: Option<i64>,
}

impl Walk<'_> {
    pub(crate) fn migration_op(&mut self, event: Span) -> Result<(), Fault> {
        self.require_text(Field::Operation, event)?;
        let body = self.body;
        let span = self.scratch.fields.get(Field::Evaluation);
        if span.is_absent() {
            return Err(missing("evaluation", event.start()));
        }
        if body.first(span) != b'{' {
            return Err(wrong_type(&body, "evaluation", span, "an object"));
        }
        let mut evaluation = read_evaluation(&body, span)?;
        if evaluation.key.is_absent() {
            return Err(missing("evaluation.key", span.start()));
        }
        if !body.is_text(evaluation.key) {
            return Err(wrong_type(&body, "evaluation.key", evaluation.key, "text"));
        }
        let created_at = self.created_at();
        let context = Some(self.require_context(created_at, event)?);
        self.scratch.fields.unset(Field::Evaluation);
        let measurements = self.scratch.fields.take(Field::Measurements);
        let mut unread = Vec::new();
        let measured = read_measurements(&body, measurements, &mut unread)?;

        let row = self.begin_row(EventKind::MigrationOp, created_at, context);
        let written =
            self.put_columns(row, EventKind::MigrationOp, Field::Operation.bit() | Field::SamplingRatio.bit());
        self.scratch.fields.present &= !written;
        let columns = &mut self.open.columns;
        put_text(&body, &mut columns.flag_key, row, evaluation.key);
        put_json(&body, &mut columns.value, row, evaluation.value);
        put_json(&body, &mut columns.default_value, row, evaluation.default);
        put_reason(&body, columns, row, evaluation.reason, &evaluation.reason_parts);
        put_integer(&body, &mut columns.variation, row, evaluation.variation);
        put_integer(&body, &mut columns.version, row, evaluation.version);
        columns.invoked_old.put_opt(row, measured.invoked[0]);
        columns.invoked_new.put_opt(row, measured.invoked[1]);
        columns.error_old.put_opt(row, measured.error[0]);
        columns.error_new.put_opt(row, measured.error[1]);
        columns.latency_old_ms.put_opt(row, measured.latency_ms[0]);
        columns.latency_new_ms.put_opt(row, measured.latency_ms[1]);
        columns.consistent.put_opt(row, measured.consistent);
        columns.consistent_sampling_ratio.put_opt(row, measured.consistent_sampling_ratio);

        self.finish_row_with(row, context, |out| push_unread(&body, out, &mut evaluation.others, &unread));
        Ok(())
    }
}

fn read_evaluation(body: &Body<'_>, span: Span) -> Result<Evaluation, Fault> {
    let mut evaluation = Evaluation::default();
    let mut scanner = Scanner::at(body.bytes, span);
    scanner.enter()?;
    let mut first = true;
    while let Some(name) = scanner.next_name(&mut first)? {
        let text = name_text(&scanner, name);
        let value = scanner.value()?;
        let fits = match &*text {
            b"variation" | b"version" => number::integer(body.raw(value)).is_some(),
            _ => true,
        };
        let place = match &*text {
            b"key" => &mut evaluation.key,
            b"value" => &mut evaluation.value,
            b"default" => &mut evaluation.default,
            b"variation" if fits || body.is_null(value) => &mut evaluation.variation,
            b"version" if fits || body.is_null(value) => &mut evaluation.version,
            b"reason" => &mut evaluation.reason,
            _ => {
                evaluation.others.push((name, value));
                continue;
            }
        };
        *place = if body.is_null(value) { Span::default() } else { value };
    }
    if body.first(evaluation.reason) == b'{' {
        evaluation.reason_parts = ReasonParts::read(&mut Scanner::at(body.bytes, evaluation.reason))?.1;
    }
    Ok(evaluation)
}

/// Reads the measurements; `unread` gets those that have no column.
fn read_measurements(body: &Body<'_>, span: Span, unread: &mut Vec<Span>) -> Result<Measurements, Fault> {
    let mut measured = Measurements::default();
    if span.is_absent() {
        return Ok(measured);
    }
    if body.first(span) != b'[' {
        unread.push(span);
        return Ok(measured);
    }
    let mut scanner = Scanner::at(body.bytes, span);
    scanner.enter()?;
    let mut first = true;
    while scanner.next_item(&mut first)? {
        let item = scanner.value()?;
        if body.first(item) != b'{' || !read_measurement(body, item, &mut measured)? {
            unread.push(item);
        }
    }
    Ok(measured)
}

/// Returns whether all of the measurement is in columns.
fn read_measurement(body: &Body<'_>, item: Span, measured: &mut Measurements) -> Result<bool, Fault> {
    let [key, value, values, sampling_ratio] =
        read_members(body, item, [b"key", b"value", b"values", b"samplingRatio"])?;
    match &*body.text(key) {
        b"invoked" => read_sides(body, values, &mut measured.invoked, |side| body.flag(side)),
        b"error" => read_sides(body, values, &mut measured.error, |side| body.flag(side)),
        b"latency_ms" => read_sides(body, values, &mut measured.latency_ms, |side| number::double(body.raw(side))),
        b"consistent" => {
            measured.consistent = body.flag(value);
            measured.consistent_sampling_ratio = number::integer(body.raw(sampling_ratio));
            Ok(measured.consistent.is_some()
                && (sampling_ratio.is_absent() || measured.consistent_sampling_ratio.is_some()))
        }
        _ => Ok(false),
    }
}

/// What was measured in the old and in the new system. Returns whether all of it could be read.
fn read_sides<T>(
    body: &Body<'_>,
    values: Span,
    place: &mut [Option<T>; 2],
    read: impl Fn(Span) -> Option<T>,
) -> Result<bool, Fault> {
    if body.first(values) != b'{' {
        return Ok(values.is_absent());
    }
    let sides = read_members(body, values, [b"old", b"new"])?;
    *place = sides.map(read);
    Ok(sides.iter().zip(place).all(|(side, value)| side.is_absent() || value.is_some()))
}

/// Values of the named members of an object; absent spans for nulls.
fn read_members<const N: usize>(body: &Body<'_>, span: Span, names: [&[u8]; N]) -> Result<[Span; N], Fault> {
    let mut values = [Span::default(); N];
    let mut scanner = Scanner::at(body.bytes, span);
    scanner.enter()?;
    let mut first = true;
    while let Some(name) = scanner.next_name(&mut first)? {
        let text = name_text(&scanner, name);
        let value = scanner.value()?;
        if let Some(place) = names.iter().position(|name| *name == &*text) {
            values[place] = if body.is_null(value) { Span::default() } else { value };
        }
    }
    Ok(values)
}

/// Appends `evaluation` and `measurements` as far as they have no column, as members for `extra`.
fn push_unread(body: &Body<'_>, out: &mut Vec<u8>, others: &mut Vec<Member>, unread: &[Span]) {
    if !others.is_empty() {
        keep_last(body, others);
        push_comma(out);
        out.extend_from_slice(b"\"evaluation\":{");
        push_members(body, out, others);
        out.push(b'}');
    }
    if !unread.is_empty() {
        push_comma(out);
        out.extend_from_slice(b"\"measurements\":[");
        for (number, span) in unread.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            body.push_json(out, *span);
        }
        out.push(b']');
    }
}
