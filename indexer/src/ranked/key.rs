//! The order of contexts by the value of one attribute: what a client may ask for, and the bytes that order so.
//!
//! | class | order within |
//! |---|---|
//! | truth value | false, then true |
//! | number | by size |
//! | text | in any letter case, by its first 256 bytes |
//! | list or object | none |
//! | absent | none |
//!
//! Descending turns the first three around, classes and all; lists, objects and absent values stay last. Contexts whose values
//! are the same in this order follow by kind and key, ascending in both directions.
//! Promise: a value has the same bytes whether they are made from the stored record or from its term, and no value's bytes are
//! the start of another's, so that what follows them in a [`Place`] cannot be taken for a part of the value.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attribute::AttributePath;
use crate::filter::{fold_case, number_text};
use crate::page::Place;
use crate::terms::{TermBytes, VALUE_BYTES_MAX, cut_at, split_text};

/// Longest pointer that contexts are ordered by; a longer one does not stand whole in a term.
const POINTER_BYTES_MAX: usize = crate::terms::NAME_BYTES_MAX;
const PREFIX: &str = "attr:";

/// An order by one attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeSort {
    pub path: AttributePath,
    pub is_descending: bool,
}

/// What kind of value it is, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Bool,
    Number,
    Text,
    List,
    Absent,
}

/// Classes as they follow each other.
const ASCENDING: [Class; 5] = [Class::Bool, Class::Number, Class::Text, Class::List, Class::Absent];
const DESCENDING: [Class; 5] = [Class::Text, Class::Number, Class::Bool, Class::List, Class::Absent];

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueKey {
    pub rank: i64,
    pub bytes: Vec<u8>,
}

impl ValueKey {
    /// The place of a context that has this value. `order`: its bytes in the default order.
    pub fn place(&self, order: &[u8]) -> Place {
        Place { time_key: self.rank, order: [self.bytes.as_slice(), order].concat() }
    }

    /// Whether all contexts with this value stand before a place, or after it; None: some may stand on either side.
    pub fn is_before(&self, place: &Place) -> Option<bool> {
        match self.rank.cmp(&place.time_key) {
            std::cmp::Ordering::Equal if place.order.starts_with(&self.bytes) => None,
            std::cmp::Ordering::Equal => Some(self.bytes < place.order),
            other => Some(other.is_lt()),
        }
    }
}

impl AttributeSort {
    /// `attr:<attribute>` or `-attr:<attribute>`, where the attribute is a pointer or a plain name. No other order's name has a
    /// colon.
    pub fn from_name(name: &str) -> Option<Self> {
        let (is_descending, name) = match name.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let attribute = name.strip_prefix(PREFIX).filter(|attribute| !attribute.is_empty())?;
        let path = AttributePath::parse(attribute);
        (path.pointer().len() <= POINTER_BYTES_MAX).then_some(Self { path, is_descending })
    }

    /// The name with the attribute as a pointer.
    pub fn name(&self) -> String {
        format!("{}{PREFIX}{}", if self.is_descending { "-" } else { "" }, self.path.pointer())
    }

    /// Classes in this order.
    pub fn classes(&self) -> [Class; 5] {
        if self.is_descending { DESCENDING } else { ASCENDING }
    }

    fn key(&self, class: Class, mut bytes: Vec<u8>) -> ValueKey {
        let rank = (0..).zip(self.classes()).find(|(_, other)| *other == class).map_or(0, |(rank, _)| rank);
        if self.is_descending {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        ValueKey { rank, bytes }
    }

    pub fn bool(&self, value: bool) -> ValueKey {
        self.key(Class::Bool, vec![u8::from(value)])
    }

    /// `text`: as of [`number_text`]. None: no number.
    pub fn number(&self, text: &str) -> Option<ValueKey> {
        Some(self.key(Class::Number, number_bytes(text)?.to_vec()))
    }

    /// `open`: a text in lower case, cut, as it is written in a term, without its end.
    pub fn open_text(&self, open: &[u8]) -> ValueKey {
        self.key(Class::Text, [open, &[0, 1]].concat())
    }

    /// Of lists and objects, or of what is absent.
    pub fn without_value(&self, class: Class) -> ValueKey {
        self.key(class, Vec::new())
    }

    pub fn of(&self, value: Option<&Value>) -> ValueKey {
        match value {
            None | Some(Value::Null) => self.without_value(Class::Absent),
            Some(Value::Array(_) | Value::Object(_)) => self.without_value(Class::List),
            Some(Value::Bool(value)) => self.bool(*value),
            Some(Value::Number(number)) => {
                let key = self.number(&number_text(number));
                key.unwrap_or_else(|| self.without_value(Class::List))
            }
            Some(Value::String(text)) => {
                let lower = fold_case(text);
                self.open_text(&TermBytes(Vec::new()).open_text(cut_at(&lower, VALUE_BYTES_MAX)).0)
            }
        }
    }

    /// A place taken apart: class, the bytes of the value, the rest. None: it is of another order.
    pub fn split<'a>(&self, place: &'a Place) -> Option<(Class, &'a [u8], &'a [u8])> {
        let class = *self.classes().get(usize::try_from(place.time_key).ok()?)?;
        let length = match class {
            Class::Bool => 1,
            Class::Number => NUMBER_BYTES,
            Class::Text => self.open_text_of(&place.order)?.len() + 2,
            Class::List | Class::Absent => 0,
        };
        let (value, order) = place.order.split_at_checked(length)?;
        Some((class, value, order))
    }

    /// The open text that a key begins with.
    pub fn open_text_of(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut plain = key.to_vec();
        if self.is_descending {
            plain.iter_mut().for_each(|byte| *byte = !*byte);
        }
        split_text(&plain).map(|(open, _)| open.to_vec())
    }
}

const NUMBER_BYTES: usize = 10;

/// Bytes that order as the numbers do. Whole numbers that are the same as floats differ by what the float lacks.
fn number_bytes(text: &str) -> Option<[u8; NUMBER_BYTES]> {
    let whole: Option<i128> = text.parse().ok();
    // Two zeros are one.
    let float = match whole {
        Some(whole) => whole as f64,
        None => text.parse::<f64>().ok()? + 0.0,
    };
    let bits = float.to_bits();
    // Of negative floats all bits turn around, of others the sign.
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    let lacking = whole.map_or(0, |whole| whole - float as i128);
    let lacking = i16::try_from(lacking).unwrap_or_default();
    let mut bytes = [0; NUMBER_BYTES];
    bytes[..8].copy_from_slice(&ordered.to_be_bytes());
    bytes[8..].copy_from_slice(&((lacking as u16) ^ (1 << 15)).to_be_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::index::order_bytes;

    fn sort(name: &str) -> AttributeSort {
        AttributeSort::from_name(name).unwrap()
    }

    #[test]
    fn names_are_read_and_written() {
        for (given, written) in [
            ("attr:email", "attr:/email"),
            ("-attr:/address/city", "-attr:/address/city"),
            ("attr:job/title", "attr:/job~1title"),
            ("attr:/", "attr:/"),
            ("attr:ts", "attr:/ts"),
        ] {
            assert_eq!(sort(given).name(), written);
            assert_eq!(sort(written), sort(given));
        }
        for other in
            ["ts", "-ts", "attr:", "-attr:", "--attr:a", "email", "ATTR:a", &format!("attr:{}", "x".repeat(600))]
        {
            assert_eq!(AttributeSort::from_name(other), None, "{other}");
        }
    }

    #[test]
    fn values_of_all_types_have_an_order() {
        let ascending = [
            json!(false),
            json!(true),
            json!(-1e300),
            json!(-5),
            json!(-0.5),
            json!(0),
            json!(0.5),
            json!(2),
            json!(10),
            json!(9_007_199_254_740_992_u64),
            json!(9_007_199_254_740_993_u64),
            json!(u64::MAX - 1),
            json!(u64::MAX),
            json!(1e300),
            json!(""),
            json!("10"),
            json!("2"),
            json!("a"),
            json!("a\u{0}"),
            json!("A b"),
            json!("AB"),
            json!("é"),
            json!(["a"]),
            Value::Null,
        ];
        let up = sort("attr:a");
        let keys: Vec<_> = ascending.iter().map(|value| up.of(Some(value))).collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
        let down = sort("-attr:a");
        let mut turned: Vec<_> = ascending[..22].iter().rev().map(|value| down.of(Some(value))).collect();
        turned.extend(ascending[22..].iter().map(|value| down.of(Some(value))));
        assert!(turned.is_sorted(), "{turned:?}");
    }

    #[test]
    fn same_values_have_the_same_key() {
        for (left, right) in [
            (json!(44), json!(44.0)),
            (json!(0), json!(-0.0)),
            (json!("Gold"), json!("gOLD")),
            (json!([1]), json!({"a": 2})),
            (json!("x".repeat(300)), json!("X".repeat(400))),
        ] {
            assert_eq!(sort("-attr:a").of(Some(&left)), sort("-attr:a").of(Some(&right)), "{left} {right}");
        }
    }

    proptest! {
        /// Whatever follows in a place, the value decides first, and can be told apart again.
        #[test]
        fn places_order_by_value_then_by_context(
            left in "[aB\u{0}\u{1}\u{2}é]{0,4}", right in "[aB\u{0}\u{1}\u{2}é]{0,4}",
            one in "[a\u{0}]{0,3}", other in "[a\u{0}]{0,3}", name in prop::sample::select(vec!["attr:a", "-attr:a"]),
        ) {
            let by = sort(name);
            let (left, right) = (by.of(Some(&json!(left))), by.of(Some(&json!(right))));
            let (one, other) = (order_bytes("user", &one), order_bytes("user", &other));
            let (place, beside) = (left.place(&one), right.place(&other));
            prop_assert_eq!(place.cmp(&beside), (&left, &one).cmp(&(&right, &other)));
            let (class, value, order) = by.split(&place).unwrap();
            prop_assert_eq!((class, value, order), (Class::Text, left.bytes.as_slice(), one.as_slice()));
            let side = (left != right).then_some(left < right);
            prop_assert_eq!(left.is_before(&beside), side);
        }

        #[test]
        fn numbers_order_by_size(left in any::<f64>(), right in prop_oneof![any::<f64>(), Just(0.0), Just(-0.0)]) {
            prop_assume!(left.is_finite() && right.is_finite());
            let key = |value: f64| sort("attr:a").of(Some(&json!(value)));
            prop_assert_eq!(key(left).cmp(&key(right)), left.partial_cmp(&right).unwrap());
        }

        #[test]
        fn whole_numbers_order_by_size(left in any::<i64>(), right in any::<i64>(), step in 0_i64..3) {
            let key = |value: i64| sort("attr:a").of(Some(&json!(value)));
            prop_assert_eq!(key(left).cmp(&key(right)), left.cmp(&right));
            prop_assert_eq!(key(left).cmp(&key(left.saturating_add(step))), left.cmp(&left.saturating_add(step)));
        }
    }
}
