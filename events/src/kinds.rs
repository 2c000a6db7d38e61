//! Closed sets: kinds of events that get a table partition of their own, sources, reasons of dead letters.

macro_rules! closed_set {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The member with exactly this text.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

closed_set! {
    /// Kinds of the event protocol, section 7. `Other` stands for every kind outside the set; such a row keeps its
    /// kind in `extra`, so that a client cannot create table partitions.
    EventKind {
        Feature = "feature",
        Debug = "debug",
        Index = "index",
        Identify = "identify",
        Custom = "custom",
        Click = "click",
        Pageview = "pageview",
        ClickPageview = "click_pageview",
        Summary = "summary",
        MigrationOp = "migration_op",
        Alias = "alias",
        DiagnosticInit = "diagnostic-init",
        Diagnostic = "diagnostic",
        DiagnosticCombined = "diagnostic-combined",
        RelayMetrics = "relayMetrics",
        RelayUsage = "relayUsage",
        Other = "other",
    }
}

impl EventKind {
    /// Whether rows of this kind are diagnostics, which keep their whole object in `data`.
    pub const fn is_diagnostic(self) -> bool {
        matches!(self, Self::DiagnosticInit | Self::Diagnostic | Self::DiagnosticCombined)
    }
}

closed_set! {
    /// The kind of path a payload came in by.
    Source {
        Server = "server",
        Mobile = "mobile",
        Browser = "browser",
        Pixel = "pixel",
        Import = "import",
    }
}

closed_set! {
    /// Why bytes went to the dead letters.
    DeadLetterReason {
        InvalidJson = "invalid_json",
        NotAnEvent = "not_an_event",
        MissingField = "missing_field",
        WrongType = "wrong_type",
        TooDeep = "too_deep",
        TooLarge = "too_large",
        TooManyEvents = "too_many_events",
        BadEncoding = "bad_encoding",
        BadContext = "bad_context",
        UnreadableRecord = "unreadable_record",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_text(kind.as_str()), Some(*kind));
        }
    }
}
