//! Payloads of senders that do not sum up: PHP, and the oldest SDKs. Here is done what a newer SDK would have done.
//!
//! In: `feature` events, one for each evaluation. Out: summary rows at the end of the payload, the events themselves where
//! they are tracked or debugged, and an `index` row for a context not indexed lately.
//! Source: event-protocol sections 4.1 and 8.

use std::collections::{BTreeMap, BTreeSet};

use events::{EventKind, Source};
use xxhash_rust::xxh3::xxh3_64;

use super::Walk;
use super::columns::put_json;
use super::context::ContextRow;
use super::fault::{Fault, Stop};
use super::fields::{Field, Fields};
use super::number;
use super::scan::Span;
use crate::payload::PayloadHead;

/// Whether evaluations of a payload are summed up here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Summarized,
    /// No header tells: a `feature` event of a legacy user will.
    Undecided,
    Unsummarized,
}

impl Mode {
    pub fn of(head: &PayloadHead) -> Self {
        match head.schema_version {
            _ if head.unsummarized => Self::Unsummarized,
            Some(1 | 2) => Self::Unsummarized,
            // A pixel has no headers at all, and is sent by SDKs that do sum up.
            None if !head.schema_header_present && head.source != Source::Pixel => Self::Undecided,
            _ => Self::Summarized,
        }
    }

    pub fn expect_summarized(self, fields: &Fields) -> Result<(), Stop> {
        let legacy = fields.has(Field::User) || fields.has(Field::UserKey);
        if self == Self::Undecided && legacy { Err(Stop::Unsummarized) } else { Ok(()) }
    }
}

/// Evaluations counted so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    flags: BTreeMap<Vec<u8>, FlagTally>,
    started_at: Option<i64>,
    ended_at: Option<i64>,
}

#[derive(Debug, Default)]
struct FlagTally {
    default: Span,
    kinds: BTreeSet<Vec<u8>>,
    /// By variation and version.
    counters: BTreeMap<(Option<i64>, Option<i64>), (Span, i64)>,
}

impl Walk<'_> {
    /// A `feature` event that stands for one evaluation.
    pub(crate) fn unsummarized_feature(&mut self, event: Span) -> Result<(), Fault> {
        let key = self.require_text(Field::Key, event)?;
        let created_at = self.created_at();
        let context = self.require_context(created_at, event)?;
        let body = self.body;
        let fields = &self.scratch.fields;
        let is_tracked = body.flag(fields.get(Field::TrackEvents)) == Some(true);
        let debug_until = number::epoch_micros(body.raw(fields.get(Field::DebugEventsUntilDate)));
        let is_debugged = debug_until.is_some_and(|until| until > self.now.0);
        if body.flag(fields.get(Field::ExcludeFromSummaries)) != Some(true) {
            self.count(key, created_at, context);
        }
        self.index_context(EventKind::Feature, created_at, Some(context));
        for (kind, wanted) in [(EventKind::Feature, is_tracked), (EventKind::Debug, is_debugged)] {
            if wanted {
                let present = self.scratch.fields.present;
                self.plain_row(kind, created_at, Some(context));
                self.scratch.fields.present = present;
            }
        }
        Ok(())
    }

    fn count(&mut self, key: Span, created_at: Option<i64>, context: ContextRow) {
        let (body, fields) = (self.body, &self.scratch.fields);
        let integer = |field| number::integer(body.raw(fields.get(field)));
        let flag = self
            .tally
            .flags
            .entry(body.text(key).into_owned())
            .or_insert_with(|| FlagTally { default: fields.get(Field::Default), ..FlagTally::default() });
        for kind in self.open.contexts.columns.context_keys.keys_of(context.row as usize) {
            if !flag.kinds.contains(kind) {
                flag.kinds.insert(kind.to_vec());
            }
        }
        let counter = (integer(Field::Variation), integer(Field::Version));
        flag.counters.entry(counter).or_insert((fields.get(Field::Value), 0)).1 += 1;
        if let Some(at) = created_at {
            self.tally.started_at = Some(self.tally.started_at.map_or(at, |start| start.min(at)));
            self.tally.ended_at = Some(self.tally.ended_at.map_or(at, |end| end.max(at)));
        }
    }

    /// Writes an `index` row if the context was not indexed lately. An `identify` or `index` event is as good as one.
    pub(crate) fn index_context(&mut self, kind: EventKind, created_at: Option<i64>, context: Option<ContextRow>) {
        let Some(context) = context else { return };
        let columns = &self.open.contexts.columns;
        // Only keys were sent: there is nothing to index.
        if columns.context.is_null(context.row as usize) {
            return;
        }
        let key = xxh3_64(columns.context_key.get(context.row as usize));
        let first = self.recent.first_indexed(self.sender.head.environment_hash, key, self.now);
        if first && !matches!(kind, EventKind::Identify | EventKind::Index) {
            self.begin_row(EventKind::Index, created_at, Some(context));
            self.open.columns.rows += 1;
        }
    }

    /// Writes the summary of what was counted, as if it were the last event of the array.
    pub(crate) fn finish_tally(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        let body = self.body;
        for (key, flag) in &tally.flags {
            for (number, ((variation, version), (value, count))) in flag.counters.iter().enumerate() {
                let row = self.begin_row(EventKind::Summary, None, None);
                let columns = &mut self.open.columns;
                columns.started_at.put_opt(row, tally.started_at);
                columns.ended_at.put_opt(row, tally.ended_at);
                columns.flag_key.put(row, key);
                // The default stands with the first counter at least; repeating it must not multiply the body.
                let repeated_bytes = if number == 0 { 0 } else { flag.default.len() };
                if let Some(left) = self.expansion_left.checked_sub(repeated_bytes) {
                    self.expansion_left = left;
                    put_json(&body, &mut columns.default_value, row, flag.default);
                }
                put_json(&body, &mut columns.value, row, *value);
                columns.variation.put_opt(row, *variation);
                columns.version.put_opt(row, *version);
                columns.unknown.put_opt(row, version.is_none().then_some(true));
                columns.count.put(row, *count);
                columns.context_kinds.put_with(row, |items, next| {
                    for (number, kind) in flag.kinds.iter().enumerate() {
                        items.put(next + number, kind);
                    }
                    flag.kinds.len()
                });
                columns.rows += 1;
                self.decoded.represented_evaluations =
                    self.decoded.represented_evaluations.saturating_add(*count as u64);
            }
        }
    }
}
