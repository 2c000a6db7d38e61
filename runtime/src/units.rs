//! Sizes and durations as people write them in configuration: `"64MiB"`, `"250ms"`, `"30d"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes, written with its unit: `"512B"`, `"64KiB"`, `"32MiB"`, `"1GB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// As an index type; saturates on 32-bit machines.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.trim_end().ends_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(format!("expected a size with its unit, such as \"64MiB\", got {text:?}"));
        }
        let size: bytesize::ByteSize =
            text.parse().map_err(|_| format!("expected a size such as \"64MiB\", got {text:?}"))?;
        Ok(Self(size.as_u64()))
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit that divides the number, so that it reads back as the same number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A duration written with its unit: `"5ms"`, `"10s"`, `"12h"`, `"30d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationText(pub Duration);

impl DurationText {
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for DurationText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| format!("expected a duration with its unit, such as \"250ms\" or \"10s\", got {text:?}"))
    }
}

impl fmt::Display for DurationText {
    /// The largest unit that divides the duration, so that it reads as people write it and reads back the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 7] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
            (1, "ns"),
        ];
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let fitting = UNITS.iter().find(|(unit, _)| nanos.is_multiple_of(*unit));
        let (unit, name) = fitting.expect("every number of nanoseconds is a multiple of one");
        write!(f, "{}{name}", nanos / unit)
    }
}

macro_rules! as_text {
    ($type:ty, $expected:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    };
}

as_text!(ByteSize, "a size with its unit, such as \"64MiB\"");
as_text!(DurationText, "a duration with its unit, such as \"250ms\" or \"10s\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_written() {
        for text in ["512B", "64KiB", "32MiB", "3GiB", "1537B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("1MB".parse::<ByteSize>().unwrap(), ByteSize(1_000_000));
    }

    #[test]
    fn size_without_unit_refused() {
        assert!("64".parse::<ByteSize>().unwrap_err().contains("unit"));
        assert!("lots".parse::<ByteSize>().is_err());
    }

    #[test]
    fn durations_read_back_as_written() {
        for text in ["5ms", "10s", "2m", "12h", "30d", "400d", "90m", "0s", "1500us"] {
            let duration: DurationText = text.parse().unwrap();
            assert_eq!(duration.to_string(), text);
        }
        assert_eq!("1h 30m".parse::<DurationText>().unwrap().to_string(), "90m");
        assert!("10".parse::<DurationText>().unwrap_err().contains("unit"));
    }
}
