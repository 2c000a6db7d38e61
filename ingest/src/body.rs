//! Reads and unpacks request bodies under caps.
//!
//! In: the body as it arrives and what its `Content-Encoding` says. Out: the whole unpacked body, or why not, with the
//! bytes that the dead letters should keep. Every byte is counted by the request's guard before it is stored, and
//! unpacking stops one byte above the cap, whatever a compressed body claims about itself.
//! A body that is refused is still read to its end, within limits: a client that is answered while it sends takes the
//! closed connection for a network error.

use std::cell::RefCell;
use std::io::Read;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use events::DeadLetterReason;
use flate2::bufread::MultiGzDecoder;
use futures::FutureExt;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body::Body;
use http_body_util::BodyExt;
use memchr::memmem;
use tokio::time::{Instant, timeout_at};

use crate::admission::{Held, NoRoom};
use crate::heavy;

/// Bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Packed, and again unpacked.
    pub bytes_max: usize,
    /// Longest time without a byte.
    pub silence_max: Duration,
    /// Longest wait for room.
    pub hold_max: Duration,
}

/// Longest time for a whole body: 32 MiB at 1 Mbit/s.
const WHOLE_BODY_MAX: Duration = Duration::from_secs(300);

/// Longest time spent on reading what is thrown away.
const DISCARD_MAX: Duration = Duration::from_secs(30);

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Above the cap; the bytes up to it.
    TooLarge(Bytes),
    TimedOut,
    /// The connection ended first. Nothing of it may be stored.
    Broken,
    NoRoom,
}

/// Reads a body as sent.
pub(crate) async fn read<B>(mut body: B, limits: BodyLimits, held: &mut Held) -> Result<Bytes, Unread>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let declared = body.size_hint().exact().unwrap_or(0).min(limits.bytes_max as u64) as usize;
    let mut patience = Patience { silence_max: limits.silence_max, whole_max: WHOLE_BODY_MAX, deadline: None };
    let mut collected = Collected::default();
    while let Some(chunk) = next_chunk(&mut body, &mut patience).await? {
        let room = limits.bytes_max - collected.len();
        if held.grow(chunk.len().min(room), limits.hold_max).await.is_err() {
            drop(collected);
            discard(body).await;
            return Err(Unread::NoRoom);
        }
        if chunk.len() > room {
            collected.push(chunk.slice(..room), declared);
            discard(body).await;
            return Err(Unread::TooLarge(collected.finish()));
        }
        collected.push(chunk, declared);
        if body.is_end_stream() {
            break;
        }
    }
    Ok(collected.finish())
}

/// Reads the rest of a body and forgets it, for as long as that is reasonable.
pub(crate) async fn discard<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut patience = Patience { silence_max: DISCARD_MAX, whole_max: DISCARD_MAX, deadline: None };
    while !body.is_end_stream() {
        if !matches!(next_chunk(&mut body, &mut patience).await, Ok(Some(_))) {
            return;
        }
    }
}

/// How long to wait for a body.
struct Patience {
    /// Without a byte.
    silence_max: Duration,
    /// For all of it, from the first wait on: most bodies come with their head, and no clock is asked.
    whole_max: Duration,
    deadline: Option<Instant>,
}

impl Patience {
    fn until(&mut self) -> Instant {
        let now = Instant::now();
        let deadline = *self.deadline.get_or_insert(now + self.whole_max);
        deadline.min(now + self.silence_max)
    }
}

async fn next_chunk<B>(body: &mut B, patience: &mut Patience) -> Result<Option<Bytes>, Unread>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => match timeout_at(patience.until(), body.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Err(Unread::TimedOut),
            },
        };
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(Unread::Broken),
            Some(Ok(frame)) => {
                // A frame of trailers holds nothing for us.
                if let Ok(chunk) = frame.into_data() {
                    return Ok(Some(chunk));
                }
            }
        }
    }
}

/// The chunks so far. Most bodies come in one and are never copied.
#[derive(Default)]
struct Collected {
    first: Bytes,
    joined: BytesMut,
}

/// A declared length is believed up to this size; beyond it the buffer grows with what really comes.
const RESERVE_MAX: usize = 1 << 20;

impl Collected {
    fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    fn push(&mut self, chunk: Bytes, declared: usize) {
        if self.len() == 0 {
            self.first = chunk;
            return;
        }
        if self.joined.is_empty() {
            self.joined.reserve(declared.min(RESERVE_MAX).max(self.first.len() + chunk.len()));
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&chunk);
    }

    fn finish(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}

/// How a body is packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Zstd,
    Unknown(Box<str>),
}

impl Encoding {
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Self::Identity };
        let text = value.to_str().unwrap_or("not text").trim();
        match text {
            "gzip" => Self::Gzip,
            "" => Self::Identity,
            _ if text.eq_ignore_ascii_case("gzip") || text.eq_ignore_ascii_case("x-gzip") => Self::Gzip,
            _ if text.eq_ignore_ascii_case("identity") => Self::Identity,
            _ if text.eq_ignore_ascii_case("zstd") => Self::Zstd,
            _ => Self::Unknown(text.chars().take(40).collect::<String>().into()),
        }
    }
}

/// Why a body could not be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unpackable {
    Refused { reason: DeadLetterReason, message: String },
    NoRoom,
}

impl From<NoRoom> for Unpackable {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// Unpacks a body. The guard grows by what the result holds.
pub(crate) async fn unpack(
    encoding: &Encoding,
    packed: &Bytes,
    limits: BodyLimits,
    held: &mut Held,
) -> Result<Bytes, Unpackable> {
    match encoding {
        Encoding::Identity => Ok(packed.clone()),
        _ if packed.is_empty() => Ok(Bytes::new()),
        Encoding::Gzip => {
            if let Some(size) = trusted_size(packed, limits.bytes_max) {
                held.grow(size, limits.hold_max).await?;
                if let Some(body) = heavy::run(size, || inflate_at_once(packed, size)) {
                    return Ok(body.into());
                }
                held.shrink_to(held.bytes() - size);
            }
            unpack_stream(MultiGzDecoder::new(&packed[..]), "gzip", limits, held).await
        }
        Encoding::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(&packed[..]).map_err(|error| bad("zstd", &error))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|error| bad("zstd", &error))?;
            unpack_stream(decoder, "zstd", limits, held).await
        }
        Encoding::Unknown(name) => Err(Unpackable::Refused {
            reason: DeadLetterReason::BadEncoding,
            message: format!("content encoding {name:?} is unknown; gzip, zstd and identity are taken"),
        }),
    }
}

/// 8 MiB, what RFC 9659 allows in HTTP.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Room for unpacking is taken in steps of this size.
const STEP_BYTES: usize = 64 << 10;

const GZIP_START: [u8; 3] = [0x1f, 0x8b, 0x08];

/// The unpacked size that a gzip body states, where there is no reason to doubt it: one member (no second start is in
/// sight), under the cap, and not more than deflate can make of so few bytes.
fn trusted_size(packed: &[u8], bytes_max: usize) -> Option<usize> {
    let (_, trailer) = packed.split_last_chunk::<4>()?;
    let size = u32::from_le_bytes(*trailer) as usize;
    let plausible = size <= bytes_max && size <= packed.len().saturating_mul(1032);
    let one_member = packed.starts_with(&GZIP_START) && memmem::find(&packed[3..], &GZIP_START).is_none();
    (plausible && one_member).then_some(size)
}

/// Unpacks one member of exactly `size` bytes; None if it is anything else, which the streaming reader then judges.
fn inflate_at_once(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    thread_local! {
        static DECOMPRESSOR: RefCell<libdeflater::Decompressor> = RefCell::new(libdeflater::Decompressor::new());
    }
    let mut body = vec![0; size];
    let written = DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.gzip_decompress(packed, &mut body));
    (written == Ok(size)).then_some(body)
}

async fn unpack_stream(
    mut reader: impl Read,
    name: &str,
    limits: BodyLimits,
    held: &mut Held,
) -> Result<Bytes, Unpackable> {
    let before = held.bytes();
    let mut body = Vec::new();
    loop {
        // One byte above the cap is enough to know.
        let step = STEP_BYTES.min(limits.bytes_max + 1 - body.len());
        if step == 0 {
            return Err(Unpackable::Refused {
                reason: DeadLetterReason::TooLarge,
                message: format!("the body unpacks to more than {} bytes", limits.bytes_max),
            });
        }
        held.grow(step, limits.hold_max).await?;
        let start = body.len();
        body.resize(start + step, 0);
        let read = read_full(&mut reader, &mut body[start..]).map_err(|error| bad(name, &error))?;
        body.truncate(start + read);
        if read < step {
            held.shrink_to(before + body.len());
            return Ok(body.into());
        }
    }
}

fn read_full(reader: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match reader.read(&mut into[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn bad(name: &str, error: &std::io::Error) -> Unpackable {
    Unpackable::Refused {
        reason: DeadLetterReason::BadEncoding,
        message: format!("the body is not valid {name}: {error}"),
    }
}

#[cfg(test)]
mod tests;
