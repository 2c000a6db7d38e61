//! W3C trace context: by it a request is followed from whoever sent it through the log to those who read its record.
//!
//! Text: `00-<32 hex digits: trace>-<16: span>-<2: flags>`, all lower-case. A trace or span of zeros is none, nor is one of
//! version `ff`; of a later version than 00 only this front part is known.
//! Source: <https://www.w3.org/TR/trace-context/#traceparent-header>.

use std::fmt;

/// Flag that the sender records this trace. The others are not passed on.
const SAMPLED: u8 = 1;
const TEXT_BYTES: usize = 55;

/// Place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// Name of the header, of requests and of Kafka messages.
    pub const HEADER: &str = "traceparent";
    pub const BYTES: usize = 25;

    /// None if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (front, rest) = text.split_at_checked(TEXT_BYTES)?;
        let version = hex(front, 0..2)?;
        if version == 0xff || (version == 0 && !rest.is_empty()) || !(rest.is_empty() || rest.starts_with('-')) {
            return None;
        }
        if [2, 35, 52].iter().any(|at| front.as_bytes()[*at] != b'-') {
            return None;
        }
        let (trace, span) = (hex(front, 3..35)?, hex(front, 36..52)? as u64);
        let flags = hex(front, 53..55)? as u8 & SAMPLED;
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// A span below this one. `span`: by chance.
    #[must_use]
    pub fn child(self, span: u64) -> Self {
        Self { span: span.max(1), ..self }
    }

    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.trace.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.span.to_be_bytes());
        bytes[24] = self.flags;
        bytes
    }

    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        trace.copy_from_slice(&bytes[..16]);
        span.copy_from_slice(&bytes[16..24]);
        Self { trace: u128::from_be_bytes(trace), span: u64::from_be_bytes(span), flags: bytes[24] }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

fn hex(text: &str, digits: std::ops::Range<usize>) -> Option<u128> {
    let digits = text.get(digits)?;
    // The standard library would take capitals and a sign.
    let are_digits = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    are_digits.then(|| u128::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn text_and_bytes_read_back() {
        let parent = TraceParent::parse(TEXT).unwrap();
        assert_eq!(parent.to_string(), TEXT);
        assert_eq!(TraceParent::from_bytes(&parent.to_bytes()), parent);
        assert!(parent.is_sampled());
        let child = parent.child(7);
        assert_eq!(child.to_string(), "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01");
        assert_eq!(parent.child(0), parent.child(1), "a span of zeros is none");
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let later = format!("cc{}-what-comes", &TEXT[2..]);
        assert_eq!(TraceParent::parse(&later).unwrap().to_string(), TEXT);
        let flags = TEXT.replace("-01", "-fe");
        assert!(!TraceParent::parse(&flags).unwrap().is_sampled());
    }

    #[test]
    fn what_is_none_is_refused() {
        let zeros = |digits: &str| TEXT.replace(digits, &"0".repeat(digits.len()));
        for text in [
            "",
            &TEXT[1..],
            &TEXT[..54],
            &format!("{TEXT}0"),
            &format!("{TEXT}-0"),
            &format!("cc{}0", &TEXT[2..]),
            &format!("ff{}", &TEXT[2..]),
            &TEXT.replace("0af7", "0AF7"),
            &TEXT.replace("0af7", "+af7"),
            &TEXT.replace("0af7", "0a\u{e9}"),
            &TEXT.replacen('-', "_", 1),
            &zeros("0af7651916cd43dd8448eb211c80319c"),
            &zeros("b7ad6b7169203331"),
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }
}
