//! Summaries: one row for each counter.
//!
//! Counters are written while `features` is read, before the kind of the event is known for certain; what belongs to
//! the flag or to the whole summary follows when it is known, and everything is cut off again if the event turns out to
//! be something else or unusable.
//! A flag without counters becomes one row with its key and no count, a summary without flags one row without either:
//! they count nothing, but what was sent can be seen. Unknown fields of the summary stand in the `extra` of its first
//! row, those of a flag in the first row of the flag under `feature`, those of a counter under `counter`.
//! Source: event-protocol section 7.2.

use events::{DeadLetterReason, EventKind, limits};
use xxhash_rust::xxh3::xxh3_64;

use super::Walk;
use super::columns::{put_integer, put_json, put_text};
use super::context::{ContextRow, push_aside};
use super::fault::{BodyError, Fault, Stop, missing, wrong_type};
use super::fields::{Field, Member, keep_last, push_comma, push_members};
use super::guess::{Guess, Name, Tokens};
use super::number;
use super::object::name_text;
use super::scan::{Scanner, Span};
use super::text::Body;

#[derive(Debug, Default)]
pub(crate) struct SummaryScratch {
    /// Rows written for `features` of the present event.
    rows: Option<(usize, usize)>,
    /// Why `features` cannot be used, if it cannot.
    fault: Option<Fault>,
    count: u64,
    /// Hash of each flag key, in order.
    flags: Vec<u64>,
    sorted: Vec<u64>,
    counter_guess: Guess,
    /// `contextKinds` of the flag before, with a row that holds them.
    kinds: Option<(Span, usize)>,
    /// Unknown fields of flags and counters, with the row to keep them in.
    unknown: Vec<(usize, Level, Vec<Member>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Flag,
    Counter,
}

impl SummaryScratch {
    pub fn reset(&mut self) {
        self.rows = None;
        self.fault = None;
        self.count = 0;
        self.flags.clear();
        self.kinds = None;
        self.unknown.clear();
    }
}

impl SummaryScratch {
    /// A row of the flag before, if that has the same kinds: mostly all flags have.
    fn known_kinds(&self, body: &Body<'_>, kinds: Span) -> Option<usize> {
        let (before, row) = self.kinds?;
        (body.raw(before) == body.raw(kinds)).then_some(row)
    }

    fn has_repeats(&mut self) -> bool {
        self.sorted.clone_from(&self.flags);
        self.sorted.sort_unstable();
        self.sorted.windows(2).any(|pair| pair[0] == pair[1])
    }
}

/// Members of a counter in the order of [`COUNTER`]; absent or null ones have an absent value.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    members: [Member; 5],
}

const COUNTER: Tokens = &[b"\"value\":", b"\"variation\":", b"\"version\":", b"\"unknown\":", b"\"count\":"];

fn find_counter(scanner: &Scanner<'_>, name: Span) -> Option<usize> {
    let text = name_text(scanner, name);
    COUNTER.iter().position(|token| token[1..token.len() - 2] == *text)
}

impl Walk<'_> {
    /// Reads the object `features` at the position.
    pub(crate) fn read_features(&mut self) -> Result<(), Fault> {
        self.drop_counters();
        let (place, row) = (self.scan.place(), self.open.columns.rows);
        let open = self.scan.open_span();
        let mut read = self.features(&[]);
        if read.is_ok() && self.scratch.summary.has_repeats() {
            let repeated = earlier_ones(&self.scratch.summary.flags);
            self.scan.back_to(place);
            self.open.columns.truncate(row);
            self.scratch.summary.reset();
            read = self.features(&repeated);
        }
        match read {
            Ok(()) => self.scratch.summary.rows = Some((row, self.open.columns.rows)),
            Err(fault @ Fault::Event { .. }) => {
                self.open.columns.truncate(row);
                self.scratch.summary.fault = Some(fault);
                // It is JSON nevertheless, or the event is not.
                self.scan.back_to(place);
                self.scan.value()?;
            }
            Err(fault) => return Err(fault),
        }
        let span = self.scan.close_span(open);
        self.scan.space();
        self.scratch.fields.set(Field::Features, span);
        Ok(())
    }

    /// Cuts off what was written for `features` of this event.
    pub(crate) fn drop_counters(&mut self) {
        if let Some((first, _)) = self.scratch.summary.rows {
            self.open.columns.truncate(first);
        }
        if !self.scratch.fields.get(Field::Features).is_absent() {
            self.scratch.summary.reset();
        }
    }

    /// `skipped`: numbers of flags whose key comes again later.
    fn features(&mut self, skipped: &[usize]) -> Result<(), Fault> {
        self.scan.enter()?;
        let mut first = true;
        while let Some(flag) = self.scan.next_name(&mut first)? {
            let number = self.scratch.summary.flags.len();
            self.scratch.summary.flags.push(xxh3_64(&name_text(&self.scan, flag)));
            if skipped.binary_search(&number).is_ok() {
                self.scan.value()?;
                continue;
            }
            self.flag(flag)?;
        }
        Ok(())
    }

    fn flag(&mut self, flag: Span) -> Result<(), Fault> {
        let first_row = self.open.columns.rows;
        let before = (self.scratch.summary.count, self.scratch.summary.unknown.len());
        let (mut default, mut kinds) = (Span::default(), Span::default());
        let mut unknown: Vec<Member> = Vec::new();
        if self.scan.peek() == b'{' {
            self.scan.enter()?;
            let mut first = true;
            while let Some(name) = self.scan.next_name(&mut first)? {
                match &*name_text(&self.scan, name) {
                    b"counters" if self.scan.peek() == b'[' => {
                        if self.open.columns.rows > first_row {
                            self.open.columns.truncate(first_row);
                            self.scratch.summary.count = before.0;
                            self.scratch.summary.unknown.truncate(before.1);
                        }
                        self.counters()?;
                        self.scan.space();
                    }
                    b"counters" => {
                        let value = self.scan.value()?;
                        if !self.body.is_null(value) {
                            return Err(wrong_type(&self.body, "counters", value, "an array"));
                        }
                    }
                    b"default" => default = self.scan.value()?,
                    b"contextKinds" if self.scan.peek() == b'[' => kinds = self.scan.value()?,
                    _ => unknown.push((name, self.scan.value()?)),
                }
            }
            self.scan.space();
        } else {
            let value = self.scan.value()?;
            if !self.body.is_null(value) {
                return Err(wrong_type(&self.body, "features", value, "an object for each flag"));
            }
        }
        if self.open.columns.rows == first_row {
            self.open.columns.rows += 1;
        }
        if !unknown.is_empty() {
            self.scratch.summary.unknown.push((first_row, Level::Flag, unknown));
        }
        self.flag_columns(flag, default, kinds, first_row)
    }

    /// What all counters of a flag share.
    fn flag_columns(&mut self, flag: Span, default: Span, kinds: Span, first_row: usize) -> Result<(), Fault> {
        let repeats = self.open.columns.rows - first_row - 1;
        // Each item of the list costs an offset beside its text.
        let repeated_bytes = repeats * (flag.len() + default.len() + 4 * kinds.len());
        match self.expansion_left.checked_sub(repeated_bytes) {
            Some(left) => self.expansion_left = left,
            None => {
                let message = format!(
                    "a flag's key and default of {} bytes for each of {} counters",
                    flag.len() + default.len() + kinds.len(),
                    repeats + 1
                );
                return Err(Fault::Event { reason: DeadLetterReason::TooLarge, message, at: flag.start() });
            }
        }
        let body = self.body;
        for row in first_row..self.open.columns.rows {
            put_text(&body, &mut self.open.columns.flag_key, row, flag);
            put_json(&body, &mut self.open.columns.default_value, row, default);
            self.context_kinds(row, first_row, kinds)?;
        }
        Ok(())
    }

    /// Summaries of schema 3 do not say their kinds: all of them are of users.
    fn context_kinds(&mut self, row: usize, first_row: usize, kinds: Span) -> Result<(), Fault> {
        let body = self.body;
        let column = &mut self.open.columns.context_kinds;
        if kinds.is_absent() {
            column.put_with(row, |items, next| {
                items.put(next, b"user");
                1
            });
            return Ok(());
        }
        let known = if row > first_row { Some(row - 1) } else { self.scratch.summary.known_kinds(&body, kinds) };
        if let Some(known) = known {
            column.repeat(known, row);
            return Ok(());
        }
        self.scratch.summary.kinds = Some((kinds, row));
        let mut scanner = Scanner::at(body.bytes, kinds);
        let mut read = Ok(());
        column.put_with(row, |items, next| {
            let (mut first, mut count) = (true, 0);
            read = (|| -> super::scan::Result<()> {
                scanner.enter()?;
                while scanner.next_item(&mut first)? {
                    let item = scanner.value()?;
                    count += usize::from(put_text(&body, items, next + count, item));
                }
                Ok(())
            })();
            count
        });
        Ok(read?)
    }

    fn counters(&mut self) -> Result<(), Fault> {
        self.scan.enter()?;
        let mut first = true;
        while self.scan.next_item(&mut first)? {
            if self.scan.peek() != b'{' {
                let value = self.scan.value()?;
                return Err(wrong_type(&self.body, "counters", value, "objects"));
            }
            self.counter()?;
            self.scan.space();
        }
        Ok(())
    }

    fn counter(&mut self) -> Result<(), Fault> {
        let start = self.scan.position;
        let mut counter = Counter::default();
        let mut unknown: Vec<Member> = Vec::new();
        self.scan.enter()?;
        let (mut previous, mut first) = (0, true);
        loop {
            let guess = &mut self.scratch.summary.counter_guess;
            let (name, place) =
                match guess.next_name(&mut self.scan, &mut previous, &mut first, COUNTER, find_counter)? {
                    Some(Name::Known(number, name)) => (name, &mut counter.members[number]),
                    Some(Name::Other(name)) => {
                        unknown.push((name, self.scan.value()?));
                        continue;
                    }
                    None => break,
                };
            let value = self.scan.value()?;
            *place = (name, if self.body.is_null(value) { Span::default() } else { value });
        }
        let span = counter.members[4].1;
        if span.is_absent() {
            return Err(missing("count", start));
        }
        let count = number::integer(self.body.raw(span)).filter(|count| *count >= 0);
        let count = count.ok_or_else(|| wrong_type(&self.body, "count", span, "a whole number, not negative"))?;
        self.counter_row(&counter, count, unknown)
    }

    fn counter_row(&mut self, counter: &Counter, count: i64, mut unknown: Vec<Member>) -> Result<(), Fault> {
        let (body, columns) = (self.body, &mut self.open.columns);
        let [value, variation, version, is_unknown, at_count] = &counter.members;
        let row = columns.rows;
        if row - self.first_row >= limits::EVENTS_PER_PAYLOAD_MAX {
            let message = format!("more than {} counters", limits::EVENTS_PER_PAYLOAD_MAX);
            let byte_offset = at_count.1.start() as u64;
            return Err(Stop::Body(BodyError { reason: DeadLetterReason::TooManyEvents, message, byte_offset }).into());
        }
        columns.count.put(row, count);
        put_json(&body, &mut columns.value, row, value.1);
        let flag = body.flag(is_unknown.1);
        columns.unknown.put_opt(row, flag);
        let fitting = [
            (variation, put_integer(&body, &mut columns.variation, row, variation.1)),
            (version, put_integer(&body, &mut columns.version, row, version.1)),
            (is_unknown, flag.is_some()),
        ];
        for (member, _) in fitting.iter().filter(|((_, value), fits)| !fits && !value.is_absent()) {
            unknown.push(**member);
        }
        columns.rows += 1;
        self.scratch.summary.count = self.scratch.summary.count.saturating_add(count as u64);
        if !unknown.is_empty() {
            self.scratch.summary.unknown.push((row, Level::Counter, unknown));
        }
        Ok(())
    }

    /// Completes the rows of a summary whose fields are all read.
    pub(crate) fn summary(&mut self, event: Span) -> Result<(), Fault> {
        if let Some(fault) = self.scratch.summary.fault.take() {
            return Err(fault);
        }
        let features = self.scratch.fields.take(Field::Features);
        let (first, end) = match self.scratch.summary.rows {
            Some(rows) => rows,
            None if features.is_absent() => return Err(missing("features", event.start())),
            // PHP writes an empty map as an empty array.
            None if self.body.raw(features) == b"[]" => (self.open.columns.rows, self.open.columns.rows),
            None => return Err(wrong_type(&self.body, "features", features, "an object")),
        };
        let started_at = self.take_time(Field::StartDate);
        let ended_at = self.take_time(Field::EndDate);
        let created_at = self.created_at();
        let context = self.context(created_at.or(ended_at))?;
        // Without a single flag the summary still has one row.
        let end = end.max(first + 1);
        self.open.columns.rows = first;
        let mut unknown = std::mem::take(&mut self.scratch.summary.unknown);
        unknown.sort_by_key(|(row, ..)| *row);
        let mut unknown = unknown.into_iter().peekable();
        for row in first..end {
            self.begin_row(EventKind::Summary, created_at, context);
            self.open.columns.started_at.put_opt(row, started_at);
            self.open.columns.ended_at.put_opt(row, ended_at);
            if row == first || unknown.len() > 0 {
                let mut of_row = [Vec::new(), Vec::new()];
                while let Some((_, level, members)) = unknown.next_if(|(of, ..)| *of == row) {
                    of_row[level as usize] = members;
                }
                self.summary_extra(row, row == first, of_row, context);
            }
            self.open.columns.rows += 1;
        }
        self.decoded.represented_evaluations =
            self.decoded.represented_evaluations.saturating_add(self.scratch.summary.count);
        Ok(())
    }

    fn summary_extra(&mut self, row: usize, is_first: bool, of_row: [Vec<Member>; 2], context: Option<ContextRow>) {
        let fields = &self.scratch.fields;
        let of_summary =
            is_first && (fields.present != 0 || !fields.others.is_empty() || !self.aside(context).is_empty());
        if !of_summary && of_row.iter().all(Vec::is_empty) {
            return;
        }
        let body = self.body;
        let mut extra = vec![b'{'];
        if of_summary {
            self.scratch.fields.push_present(&body, &mut extra);
            keep_last(&body, &mut self.scratch.fields.others);
            push_members(&body, &mut extra, &self.scratch.fields.others);
            push_aside(&mut extra, self.aside(context));
        }
        for (name, mut members) in ["feature", "counter"].into_iter().zip(of_row) {
            if !members.is_empty() {
                keep_last(&body, &mut members);
                push_comma(&mut extra);
                extra.extend_from_slice(format!("\"{name}\":{{").as_bytes());
                push_members(&body, &mut extra, &members);
                extra.push(b'}');
            }
        }
        extra.push(b'}');
        self.open.columns.extra.put(row, &extra);
    }
}

/// Numbers of the flags that come again later, ascending.
fn earlier_ones(flags: &[u64]) -> Vec<usize> {
    let mut later = std::collections::HashSet::new();
    let mut earlier: Vec<usize> = (0..flags.len()).rev().filter(|number| !later.insert(flags[*number])).collect();
    earlier.reverse();
    earlier
}
