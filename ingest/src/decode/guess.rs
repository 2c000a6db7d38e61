//! Reads member names by guessing: one sender writes its members in one order, so what followed a name last time is
//! compared first, quotes and colon included, before a name is read byte by byte.
//!
//! A wrong guess costs one failed comparison. White space around names is not guessed.

use super::scan::{Result, Scanner, Span};

/// Names that may be guessed, each as `"name":`, at most 63.
pub(crate) type Tokens = &'static [&'static [u8]];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Number of the name among the tokens, and where it stands.
    Known(usize, Span),
    Other(Span),
}

#[derive(Debug)]
pub(crate) struct Guess {
    /// By the number of the name before, plus one; 0 is the start of an object. The number of the name that followed.
    followed_by: [u8; 64],
}

impl Default for Guess {
    fn default() -> Self {
        Self { followed_by: [u8::MAX; 64] }
    }
}

impl Guess {
    /// The next name of the object entered last, as [`Scanner::next_name`]. `previous`: number of the name before, plus
    /// one, or 0; it becomes that of the next name. `find`: number of a name that was not guessed.
    #[inline]
    pub fn next_name(
        &mut self,
        scanner: &mut Scanner<'_>,
        previous: &mut usize,
        first: &mut bool,
        tokens: Tokens,
        find: impl FnOnce(&Scanner<'_>, Span) -> Option<usize>,
    ) -> Result<Option<Name>> {
        let slot = &mut self.followed_by[*previous];
        let guess = usize::from(*slot);
        if let Some(token) = tokens.get(guess)
            && let Some(span) = scanner.skip_name(token, *first)
        {
            *first = false;
            *previous = guess + 1;
            return Ok(Some(Name::Known(guess, span)));
        }
        let Some(span) = scanner.next_name(first)? else {
            return Ok(None);
        };
        Ok(Some(match find(scanner, span) {
            Some(number) => {
                *slot = number as u8;
                *previous = number + 1;
                Name::Known(number, span)
            }
            None => Name::Other(span),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: Tokens = &[b"\"a\":", b"\"b\":"];

    fn names(guess: &mut Guess, text: &str) -> Vec<String> {
        let mut scanner = Scanner::new(text.as_bytes());
        scanner.enter().unwrap();
        let (mut previous, mut first, mut names) = (0, true, Vec::new());
        let find = |scanner: &Scanner<'_>, span: Span| {
            let name = &scanner.bytes()[span.start() + 1..span.end() - 1];
            [b"a", b"b"].iter().position(|known| *known == name)
        };
        while let Some(name) = guess.next_name(&mut scanner, &mut previous, &mut first, TOKENS, find).unwrap() {
            let (Name::Known(_, span) | Name::Other(span)) = name;
            let shown = &text[span.start()..span.end()];
            names.push(format!("{shown}{}", matches!(name, Name::Known(..))));
            scanner.value().unwrap();
        }
        assert_eq!(scanner.position, text.len());
        names
    }

    #[test]
    fn guesses_change_nothing_but_the_cost() {
        let mut guess = Guess::default();
        for _ in 0..2 {
            assert_eq!(names(&mut guess, r#"{"a":1,"b":2}"#), [r#""a"true"#, r#""b"true"#]);
            assert_eq!(names(&mut guess, r#"{"b":1,"x":2,"a": 3}"#), [r#""b"true"#, r#""x"false"#, r#""a"true"#]);
            assert_eq!(names(&mut guess, r#"{ "a" : 1 , "b":2 }"#), [r#""a"true"#, r#""b"true"#]);
            assert_eq!(names(&mut guess, "{}"), [""; 0]);
        }
    }

    #[test]
    fn a_guess_does_not_hide_a_missing_comma() {
        let mut guess = Guess::default();
        names(&mut guess, r#"{"a":1,"b":2}"#);
        let mut scanner = Scanner::new(br#"{"a":1 "b":2}"#);
        scanner.enter().unwrap();
        let (mut previous, mut first) = (0, true);
        let mut next =
            |scanner: &mut Scanner<'_>| guess.next_name(scanner, &mut previous, &mut first, TOKENS, |_, _| None);
        next(&mut scanner).unwrap();
        scanner.value().unwrap();
        assert!(next(&mut scanner).is_err());
    }
}
