//! From a field's value to its column.

use events::EventKind;

use super::Walk;
use super::fields::{Field, ReasonParts};
use super::number;
use super::scan::{BROKEN, Span};
use super::text::Body;
use crate::rows::column::{Number, Text};
use crate::rows::event::EventColumns;

impl Walk<'_> {
    /// Writes those of `fields` that are present and fit their columns, and returns which.
    #[inline]
    pub(crate) fn put_columns(&mut self, row: usize, kind: EventKind, fields: u32) -> u32 {
        let (body, columns) = (self.body, &mut self.open.columns);
        let mut left = self.scratch.fields.present & fields;
        let mut written = 0;
        while left != 0 {
            let bit = left & left.wrapping_neg();
            left ^= bit;
            let field = Field::ALL[bit.trailing_zeros() as usize];
            let span = self.scratch.fields.get(field);
            let fits = match field {
                Field::Key if matches!(kind, EventKind::Feature | EventKind::Debug) => {
                    put_text(&body, &mut columns.flag_key, row, span)
                }
                Field::Key => put_text(&body, &mut columns.event_key, row, span),
                Field::Value => put_json(&body, &mut columns.value, row, span),
                Field::Default => put_json(&body, &mut columns.default_value, row, span),
                Field::Data => put_json(&body, &mut columns.data, row, span),
                Field::Reason => put_reason(&body, columns, row, span, &self.scratch.fields.reason),
                Field::Variation => put_integer(&body, &mut columns.variation, row, span),
                Field::Version => put_integer(&body, &mut columns.version, row, span),
                Field::SamplingRatio => put_integer(&body, &mut columns.sampling_ratio, row, span),
                Field::PrereqOf => put_text(&body, &mut columns.prerequisite_of, row, span),
                Field::Url => put_text(&body, &mut columns.url, row, span),
                Field::Selector => put_text(&body, &mut columns.selector, row, span),
                Field::Operation => put_text(&body, &mut columns.operation, row, span),
                Field::PreviousKey => put_text(&body, &mut columns.previous_key, row, span),
                Field::PreviousContextKind => put_text(&body, &mut columns.previous_context_kind, row, span),
                Field::ExcludeFromSummaries => match body.flag(span) {
                    Some(flag) => {
                        columns.exclude_from_summaries.put(row, flag);
                        true
                    }
                    None => false,
                },
                Field::MetricValue => match number::double(body.raw(span)) {
                    Some(value) => {
                        columns.metric_value.put(row, value);
                        true
                    }
                    None => is_mended_to_null(&body, span),
                },
                _ => false,
            };
            if fits {
                written |= bit;
            }
        }
        written
    }
}

#[inline]
pub(crate) fn put_text(body: &Body<'_>, column: &mut Text, row: usize, span: Span) -> bool {
    let fits = body.is_text(span);
    if fits {
        column.put_with(row, |out| body.push_text(out, span));
    }
    fits
}

#[inline]
pub(crate) fn put_json(body: &Body<'_>, column: &mut Text, row: usize, span: Span) -> bool {
    if !matches!(body.first(span), b'n' | 0) && !is_mended_to_null(body, span) {
        column.put_with(row, |out| body.push_json(out, span));
    }
    true
}

/// Whether the value is a number that JSON or a double cannot hold, which counts as null.
fn is_mended_to_null(body: &Body<'_>, span: Span) -> bool {
    span.marks() & BROKEN != 0 && !matches!(body.first(span), b'"' | b'{' | b'[')
}

#[inline]
pub(crate) fn put_integer(body: &Body<'_>, column: &mut Number<i64>, row: usize, span: Span) -> bool {
    let number = number::integer(body.raw(span));
    column.put_opt(row, number);
    number.is_some()
}

/// `parts` belong to `span` if it is an object.
pub(crate) fn put_reason(
    body: &Body<'_>,
    columns: &mut EventColumns,
    row: usize,
    span: Span,
    parts: &ReasonParts,
) -> bool {
    put_json(body, &mut columns.reason, row, span);
    if body.first(span) == b'{' {
        // The text of the reason keeps whatever does not fit.
        put_text(body, &mut columns.reason_kind, row, parts.kind);
        put_text(body, &mut columns.rule_id, row, parts.rule_id);
        put_integer(body, &mut columns.rule_index, row, parts.rule_index);
        columns.in_experiment.put_opt(row, body.flag(parts.in_experiment));
    }
    true
}
