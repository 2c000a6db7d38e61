//! Parquet's run-length and bit-packing hybrid, as levels and dictionary codes are stored.
//!
//! A run of eight or more equal values is stored as its length and the value; what lies between is packed in groups of
//! eight. <https://parquet.apache.org/docs/file-format/data-pages/encodings/>

/// Groups of eight values behind one header: the most whose header is one byte.
const GROUPS_MAX: usize = 63;

/// Bits that hold `max`; at least one, as not every reader expects none.
pub(crate) fn width(max: u32) -> u8 {
    (u32::BITS - max.leading_zeros()).max(1) as u8
}

/// Appends `values`, each below `2^width`.
pub(crate) fn encode<T: Copy + PartialEq + Into<u32>>(values: &[T], width: u8, out: &mut Vec<u8>) {
    let (mut packed, mut at) = (0, 0);
    while at < values.len() {
        let first = values[at];
        let run = values[at..].iter().take_while(|value| **value == first).count();
        if run < 8 {
            at = (at + 8).min(values.len());
            continue;
        }
        pack(&values[packed..at], width, out);
        repeat(first.into(), run, width, out);
        at += run;
        packed = at;
    }
    pack(&values[packed..], width, out);
}

/// Appends `count` times the same value.
pub(crate) fn repeat(value: u32, count: usize, width: u8, out: &mut Vec<u8>) {
    varint((count as u64) << 1, out);
    out.extend_from_slice(&value.to_le_bytes()[..usize::from(width).div_ceil(8)]);
}

/// Only the last packed run may have a number of values that is no multiple of eight: readers know where to stop.
fn pack<T: Copy + Into<u32>>(values: &[T], width: u8, out: &mut Vec<u8>) {
    for run in values.chunks(GROUPS_MAX * 8) {
        let groups = run.len().div_ceil(8);
        out.push((groups << 1) as u8 | 1);
        let end = out.len() + groups * usize::from(width);
        let (mut bits, mut held) = (0_u64, 0_u8);
        for value in run {
            let value: u32 = (*value).into();
            bits |= u64::from(value) << held;
            held += width;
            if held >= 32 {
                out.extend_from_slice(&(bits as u32).to_le_bytes());
                bits >>= 32;
                held -= 32;
            }
        }
        out.extend_from_slice(&bits.to_le_bytes()[..usize::from(held).div_ceil(8)]);
        out.resize(end, 0);
    }
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reader of its own, straight from the description of the format.
    fn decode(bytes: &[u8], width: u8, count: usize) -> Vec<u32> {
        let (mut at, mut values) = (0, Vec::new());
        while values.len() < count {
            let (mut header, mut shift) = (0_u64, 0);
            loop {
                header |= u64::from(bytes[at] & 0x7f) << shift;
                shift += 7;
                at += 1;
                if bytes[at - 1] & 0x80 == 0 {
                    break;
                }
            }
            let number = (header >> 1) as usize;
            if header & 1 == 1 {
                for index in 0..number * 8 {
                    let value = (0..usize::from(width)).map(|bit| {
                        let place = index * usize::from(width) + bit;
                        u32::from(bytes[at + place / 8] >> (place % 8) & 1) << bit
                    });
                    values.push(value.sum());
                }
                at += number * usize::from(width);
            } else {
                let bytes_of_value = usize::from(width).div_ceil(8);
                let value: u32 = (0..bytes_of_value).map(|index| u32::from(bytes[at + index]) << (8 * index)).sum();
                values.extend(std::iter::repeat_n(value, number));
                at += bytes_of_value;
            }
        }
        assert_eq!(at, bytes.len());
        values.truncate(count);
        values
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(
            runs in prop::collection::vec((0_u32..=u32::MAX, 1_usize..40), 0..60),
            bits in 1_u8..=32,
        ) {
            let mask = u32::MAX >> (32 - bits);
            let values: Vec<u32> = runs.iter().flat_map(|(value, count)| {
                // Some runs repeat a value, some count on from it.
                (0..*count as u32).map(move |index| value.wrapping_add(index * (value % 2)) & mask)
            }).collect();
            let mut bytes = Vec::new();
            encode(&values, bits, &mut bytes);
            prop_assert_eq!(decode(&bytes, bits, values.len()), values);
        }
    }

    #[test]
    fn widths() {
        assert_eq!([0, 1, 2, 3, 4, 255, 256, u32::MAX].map(width), [1, 1, 2, 2, 3, 8, 9, 32]);
    }
}
