//! Distinct values of a column, numbered as they are met.
//!
//! Values lie one after the other in Parquet's PLAIN form, so that a dictionary is a page as it is. Rows of a table are
//! sorted and rows of a request look alike: a value is first compared with the one before it, which saves most look-ups.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Code of a null.
pub(crate) const NULL: u32 = u32::MAX;

#[derive(Default)]
pub(crate) struct Dictionary {
    /// Texts have their length (four bytes) before them, numbers have not.
    lengths: bool,
    plain: Vec<u8>,
    /// Where each value begins in `plain`.
    starts: Vec<u32>,
    codes: HashTable<u32>,
    last: Option<u32>,
}

impl Dictionary {
    pub fn of_texts() -> Self {
        Self { lengths: true, ..Self::default() }
    }

    pub fn of_numbers() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Bytes held, the table of codes left out.
    pub fn bytes(&self) -> usize {
        self.plain.len() + 4 * self.starts.len()
    }

    /// The code of a value, a new one if it was not met before.
    pub fn code(&mut self, value: &[u8]) -> u32 {
        if let Some(last) = self.last
            && self.value(last) == value
        {
            return last;
        }
        let hash = xxh3_64(value);
        let (plain, starts, lengths) = (&self.plain, &self.starts, self.lengths);
        let found = self.codes.find(hash, |code| value_at(plain, starts, lengths, *code) == value).copied();
        let code = match found {
            Some(code) => code,
            None => {
                let code = self.push(value);
                let (plain, starts, lengths) = (&self.plain, &self.starts, self.lengths);
                self.codes.insert_unique(hash, code, |code| xxh3_64(value_at(plain, starts, lengths, *code)));
                code
            }
        };
        self.last = Some(code);
        code
    }

    /// A code of its own, without looking whether the value was met before.
    pub fn push(&mut self, value: &[u8]) -> u32 {
        let code = self.starts.len() as u32;
        self.starts.push(self.plain.len() as u32);
        if self.lengths {
            self.plain.extend_from_slice(&(value.len() as u32).to_le_bytes());
        }
        self.plain.extend_from_slice(value);
        code
    }

    pub fn value(&self, code: u32) -> &[u8] {
        value_at(&self.plain, &self.starts, self.lengths, code)
    }

    /// The value in PLAIN form.
    pub fn plain(&self, code: u32) -> &[u8] {
        let (start, end) = bounds(&self.plain, &self.starts, code);
        &self.plain[start..end]
    }
}

fn bounds(plain: &[u8], starts: &[u32], code: u32) -> (usize, usize) {
    let next = starts.get(code as usize + 1).map_or(plain.len(), |start| *start as usize);
    (starts[code as usize] as usize, next)
}

fn value_at<'a>(plain: &'a [u8], starts: &[u32], lengths: bool, code: u32) -> &'a [u8] {
    let (start, end) = bounds(plain, starts, code);
    &plain[start + if lengths { 4 } else { 0 }..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_code() {
        let mut dictionary = Dictionary::of_texts();
        let codes: Vec<u32> =
            ["a", "bb", "a", "", "bb", ""].iter().map(|text| dictionary.code(text.as_bytes())).collect();
        assert_eq!(codes, [0, 1, 0, 2, 1, 2]);
        assert_eq!(dictionary.value(1), b"bb");
        assert_eq!(dictionary.plain(1), b"\x02\0\0\0bb");
        assert_eq!(dictionary.plain(2), b"\0\0\0\0");
    }

    #[test]
    fn many_values_keep_their_codes() {
        let mut dictionary = Dictionary::of_numbers();
        for _ in 0..2 {
            for number in 0..10_000_u64 {
                assert_eq!(u64::from(dictionary.code(&(number * 7).to_le_bytes())), number);
            }
        }
        assert_eq!((dictionary.len(), dictionary.plain(9_999)), (10_000, 69_993_u64.to_le_bytes().as_slice()));
    }
}
