//! The fields of one event, collected before its kind is known: `kind` may stand last.

use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_64;

use super::guess::{Guess, Tokens};
use super::object::name_text;
use super::scan::{self, ESCAPED, Scanner, Span};
use super::text::Body;
use crate::rows::U64Hash;

macro_rules! fields {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// Fields that some kind of event has a column for, or a rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Field { $($variant),+ }

        impl Field {
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            /// Each name as it stands before its value.
            pub const TOKENS: Tokens = &[$(concat!("\"", $name, "\":").as_bytes()),+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            #[inline]
            fn from_name(name: &[u8]) -> Option<Self> {
                // The compiler makes this a jump on the length and a few comparisons.
                $(const $variant: &[u8] = $name.as_bytes();)+
                match name { $($variant => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

#[allow(non_upper_case_globals)]
mod names {
    use super::*;

    fields! {
        Kind = "kind",
        CreationDate = "creationDate",
        Key = "key",
        Context = "context",
        ContextKeys = "contextKeys",
        User = "user",
        UserKey = "userKey",
        Value = "value",
        Default = "default",
        Variation = "variation",
        Version = "version",
        Reason = "reason",
        PrereqOf = "prereqOf",
        SamplingRatio = "samplingRatio",
        ExcludeFromSummaries = "excludeFromSummaries",
        Data = "data",
        MetricValue = "metricValue",
        Url = "url",
        Selector = "selector",
        Operation = "operation",
        Evaluation = "evaluation",
        Measurements = "measurements",
        PreviousKey = "previousKey",
        PreviousContextKind = "previousContextKind",
        ContextKind = "contextKind",
        StartDate = "startDate",
        EndDate = "endDate",
        Features = "features",
        DroppedEvents = "droppedEvents",
        TrackEvents = "trackEvents",
        DebugEventsUntilDate = "debugEventsUntilDate",
    }

    impl Field {
        #[inline]
        pub fn of(body: &Body<'_>, name: Span) -> Option<Self> {
            if name.marks() & ESCAPED == 0 {
                let raw = body.raw(name);
                Self::from_name(&raw[1..raw.len() - 1])
            } else {
                Self::from_name(&body.text(name))
            }
        }

        pub const fn bit(self) -> u32 {
            1 << self as u32
        }
    }

    const _: () = assert!(Field::ALL.len() <= 32);
}
pub(crate) use names::Field;

/// What a `reason` object says, beside its text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReasonParts {
    pub kind: Span,
    pub rule_id: Span,
    pub rule_index: Span,
    pub in_experiment: Span,
}

impl ReasonParts {
    /// Reads the reason object at the scanner's position.
    pub fn read(scanner: &mut Scanner<'_>) -> scan::Result<(Span, Self)> {
        let mut parts = Self::default();
        let open = scanner.open_span();
        scanner.enter()?;
        let mut first = true;
        while let Some(name) = scanner.next_name(&mut first)? {
            let text = name_text(scanner, name);
            let value = scanner.value()?;
            match &*text {
                b"kind" => parts.kind = value,
                b"ruleId" => parts.rule_id = value,
                b"ruleIndex" => parts.rule_index = value,
                b"inExperiment" => parts.in_experiment = value,
                _ => {}
            }
        }
        Ok((scanner.close_span(open), parts))
    }
}

/// Name and value, as sent.
pub(crate) type Member = (Span, Span);

#[derive(Debug, Default)]
pub(crate) struct Fields {
    spans: [Span; 32],
    /// Bits of the fields that are present and not null.
    pub present: u32,
    /// Fields with other names, nulls too.
    pub others: Vec<Member>,
    pub reason: ReasonParts,
    /// The entry of `rows::context` that `context` or `user` was found to be.
    pub found: Option<(Field, usize)>,
    /// The field whose object `Scratch::object` describes.
    pub described: Option<Field>,
    pub guess: Guess,
}

impl Fields {
    pub fn reset(&mut self) {
        self.present = 0;
        self.others.clear();
        self.others.shrink_to(1 << 10);
        self.reason = ReasonParts::default();
        self.found = None;
        self.described = None;
    }

    /// A repeated field replaces the one before.
    #[inline]
    pub fn set(&mut self, field: Field, span: Span) {
        self.spans[field as usize] = span;
        self.present |= field.bit();
    }

    pub fn unset(&mut self, field: Field) {
        self.present &= !field.bit();
    }

    #[inline]
    pub fn has(&self, field: Field) -> bool {
        self.present & field.bit() != 0
    }

    /// The value of a field; the absent span if it is absent or null.
    #[inline]
    pub fn get(&self, field: Field) -> Span {
        if self.has(field) { self.spans[field as usize] } else { Span::default() }
    }

    /// Appends the fields that are still present as members.
    pub fn push_present(&self, body: &Body<'_>, out: &mut Vec<u8>) {
        for field in Field::ALL.iter().filter(|field| self.has(**field)) {
            push_comma(out);
            out.push(b'"');
            out.extend_from_slice(field.name().as_bytes());
            out.extend_from_slice(b"\":");
            body.push_json(out, self.get(*field));
        }
    }

    /// Takes a field, so that it does not end in `extra`.
    pub fn take(&mut self, field: Field) -> Span {
        let span = self.get(field);
        self.unset(field);
        span
    }
}

/// Removes members whose name comes again later: the last one counts.
pub(crate) fn keep_last(body: &Body<'_>, members: &mut Vec<Member>) {
    if members.len() < 2 {
        return;
    }
    // Hashes, so that a hostile event of a million fields costs little.
    let mut later: HashSet<u64, U64Hash> = HashSet::with_capacity_and_hasher(members.len(), U64Hash::default());
    let mut keep: Vec<bool> = members.iter().rev().map(|(name, _)| later.insert(xxh3_64(&body.text(*name)))).collect();
    members.retain(|_| keep.pop().unwrap_or(true));
}

/// Appends members as `"name":value,…`, with a comma before the first unless `out` ends with an opening brace.
pub(crate) fn push_members(body: &Body<'_>, out: &mut Vec<u8>, members: &[Member]) {
    for (name, value) in members {
        push_comma(out);
        body.push_json(out, *name);
        out.push(b':');
        body.push_json(out, *value);
    }
}

pub(crate) fn push_comma(out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::span_of;
    use super::*;

    #[test]
    fn every_field_is_found_by_its_name_also_when_escaped() {
        for field in Field::ALL {
            let plain = format!("\"{}\"", field.name());
            let first = field.name().as_bytes()[0];
            let escaped = format!("\"\\u{:04x}{}\"", first, &field.name()[1..]);
            for text in [plain, escaped] {
                let body = Body::new(text.as_bytes());
                assert_eq!(Field::of(&body, span_of(text.as_bytes()).unwrap()), Some(*field), "{text}");
            }
        }
        assert_eq!(Field::of(&Body::new(b"\"kinds\""), span_of(b"\"kinds\"").unwrap()), None);
    }
}
