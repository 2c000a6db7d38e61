//! Finds the names of attributes that begin in a way, among very many, without reading the others.
//!
//! In: the start of their terms, and how the name begins, in any letter case. Out: an automaton over the dictionary, for
//! a term of how an attribute exists: kind, pointer, how.
//! Promise: it takes all terms of such names, and may take others where letters are no ASCII, which fold in ways of
//! their own: who asks looks again.

use tantivy_fst::Automaton;

pub(super) struct Named {
    /// What all terms begin with: the family, and the kind if there is one.
    start: Vec<u8>,
    has_kind: bool,
    /// ASCII letters in lower case.
    name: Vec<u8>,
}

/// Progress through a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Start(usize),
    /// Within the kind, after a 0 byte if so.
    Kind(bool),
    /// At the first letter of the pointer.
    Pointer,
    /// Letters of the name that were met, from the first letter of the pointer on and from the one after its slash on.
    Name(Option<usize>, Option<usize>),
    Found,
    Lost,
}

impl Named {
    /// `name`: folded.
    pub fn new(start: Vec<u8>, has_kind: bool, name: &str) -> Self {
        let name = name.bytes().take_while(u8::is_ascii).collect();
        Self { start, has_kind, name }
    }

    fn after_start(&self) -> Progress {
        match (self.has_kind, self.name.is_empty()) {
            (false, _) => Progress::Kind(false),
            (true, true) => Progress::Found,
            (true, false) => Progress::Pointer,
        }
    }

    fn after_kind(&self) -> Progress {
        if self.name.is_empty() { Progress::Found } else { Progress::Pointer }
    }

    /// One more letter of the name, if it is the one that follows.
    fn further(&self, met: Option<usize>, byte: u8) -> Option<usize> {
        met.filter(|met| self.name[*met] == byte.to_ascii_lowercase()).map(|met| met + 1)
    }

    fn within(&self, whole: Option<usize>, after_slash: Option<usize>) -> Progress {
        let is_all = |met: Option<usize>| met == Some(self.name.len());
        match (whole, after_slash) {
            (None, None) => Progress::Lost,
            _ if is_all(whole) || is_all(after_slash) => Progress::Found,
            _ => Progress::Name(whole, after_slash),
        }
    }
}

impl Automaton for Named {
    type State = Progress;

    fn start(&self) -> Progress {
        if self.start.is_empty() { self.after_start() } else { Progress::Start(0) }
    }

    fn is_match(&self, state: &Progress) -> bool {
        *state == Progress::Found
    }

    fn can_match(&self, state: &Progress) -> bool {
        *state != Progress::Lost
    }

    fn will_always_match(&self, state: &Progress) -> bool {
        *state == Progress::Found
    }

    fn accept(&self, state: &Progress, byte: u8) -> Progress {
        match *state {
            Progress::Start(at) if self.start[at] != byte => Progress::Lost,
            Progress::Start(at) if at + 1 == self.start.len() => self.after_start(),
            Progress::Start(at) => Progress::Start(at + 1),
            Progress::Kind(false) => Progress::Kind(byte == 0),
            // A zero within the text, its end, or a text that was cut, which is not told.
            Progress::Kind(true) => match byte {
                0xFF => Progress::Kind(false),
                1 => self.after_kind(),
                _ => Progress::Lost,
            },
            Progress::Pointer if !byte.is_ascii() => Progress::Found,
            Progress::Pointer => self.within(self.further(Some(0), byte), (byte == b'/').then_some(0)),
            Progress::Name(..) if !byte.is_ascii() => Progress::Found,
            Progress::Name(whole, after_slash) => {
                self.within(self.further(whole, byte), self.further(after_slash, byte))
            }
            Progress::Found => Progress::Found,
            Progress::Lost => Progress::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use events::Environment;
    use proptest::prelude::*;

    use super::*;
    use crate::filter::fold_case;
    use crate::terms::{EnvironmentPrefix, NAME_BYTES_MAX, exists, family};

    fn takes(named: &Named, term: &[u8]) -> bool {
        named.is_match(&term.iter().fold(named.start(), |state, byte| named.accept(&state, *byte)))
    }

    fn is_meant(pointer: &str, name: &str) -> bool {
        super::super::has_name_prefix(pointer, &fold_case(name))
    }

    proptest! {
        #[test]
        fn names_are_taken_by_their_start(
            kind in "[ab\u{0}]{1,3}",
            pointer in "/?[aAbB/\u{0}]{0,5}",
            name in "/?[aAbB/]{0,3}",
            with_kind in any::<bool>(),
        ) {
            let environment = EnvironmentPrefix::new(&Environment::new("shop", "prod"));
            let family = environment.family(family::EXISTS);
            let start = if with_kind { family.text(&kind, NAME_BYTES_MAX).0 } else { family.0 };
            let named = Named::new(start, with_kind, &fold_case(&name));
            let term = environment.exists(&kind, &pointer, exists::LEAF);
            prop_assert_eq!(takes(&named, &term), is_meant(&pointer, &name), "{:?} {:?}", pointer, name);
        }

        #[test]
        fn no_name_is_missed(pointer in "/?[aé\u{212A}\u{130}]{0,4}", name in "[aéik]{0,3}") {
            let environment = EnvironmentPrefix::new(&Environment::new("shop", "prod"));
            let named = Named::new(environment.family(family::EXISTS).0, false, &fold_case(&name));
            let term = environment.exists("user", &pointer, exists::LEAF);
            prop_assert!(takes(&named, &term) || !is_meant(&pointer, &name), "{:?} {:?}", pointer, name);
        }
    }
}
