use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::Frame;
use http_body_util::Full;
use proptest::prelude::*;

use super::*;
use crate::admission::Room;

const LIMITS: BodyLimits =
    BodyLimits { bytes_max: 100_000, silence_max: Duration::from_secs(60), hold_max: Duration::from_millis(20) };

struct Chunks(VecDeque<Bytes>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }
}

fn chunks(sizes: &[usize]) -> Chunks {
    Chunks(sizes.iter().map(|size| vec![b'x'; *size].into()).collect())
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn unpacked(encoding: Encoding, packed: impl Into<Bytes>) -> Result<Bytes, Unpackable> {
    let room = Room::new(1 << 20);
    let mut held = room.hold();
    let body = unpack(&encoding, &packed.into(), LIMITS, &mut held).await;
    if let (Ok(body), false) = (&body, encoding == Encoding::Identity) {
        assert_eq!(held.bytes(), body.len(), "the guard holds what the body holds");
    }
    body
}

fn reason(result: Result<Bytes, Unpackable>) -> DeadLetterReason {
    match result.unwrap_err() {
        Unpackable::Refused { reason, .. } => reason,
        Unpackable::NoRoom => panic!("there is room"),
    }
}

#[tokio::test]
async fn body_of_one_chunk_is_not_copied() {
    let sent = Bytes::from(vec![b'x'; 5_000]);
    let mut held = Room::new(1 << 20).hold();
    let body = read(Full::new(sent.clone()), LIMITS, &mut held).await.unwrap();
    assert_eq!((body.as_ptr(), held.bytes()), (sent.as_ptr(), 5_000));
}

#[tokio::test]
async fn chunks_are_joined() {
    let mut held = Room::new(1 << 20).hold();
    assert_eq!(read(chunks(&[1, 0, 70_000, 3]), LIMITS, &mut held).await.unwrap().len(), 70_004);
    assert_eq!(held.bytes(), 70_004);
    assert_eq!(read(chunks(&[]), LIMITS, &mut held).await.unwrap().len(), 0);
}

#[tokio::test]
async fn too_large_body_is_kept_up_to_the_cap() {
    let mut held = Room::new(1 << 20).hold();
    let Err(Unread::TooLarge(kept)) = read(chunks(&[90_000, 90_000, 90_000]), LIMITS, &mut held).await else {
        panic!()
    };
    assert_eq!((kept.len(), held.bytes()), (100_000, 100_000));
    assert_eq!(read(chunks(&[100_000]), LIMITS, &mut held).await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn full_house_is_said_after_holding() {
    let room = Room::new(50_000);
    let mut held = room.hold();
    assert_eq!(read(chunks(&[40_000, 40_000]), LIMITS, &mut held).await, Err(Unread::NoRoom));
    drop(held);
    assert_eq!(room.used(), 0);
}

#[tokio::test]
async fn gzip_of_one_and_of_many_members() {
    let text = br#"[{"kind":"custom"}]"#.repeat(100);
    assert_eq!(unpacked(Encoding::Gzip, gzip(&text)).await.unwrap(), text);
    let members = [gzip(&text), gzip(b""), gzip(b"tail")].concat();
    assert_eq!(unpacked(Encoding::Gzip, members).await.unwrap(), [&text[..], b"tail"].concat());
    // Equal members: sizes and checksums of the last say nothing about the others.
    let twins = [gzip(b"[1]"), gzip(b"[1]")].concat();
    assert_eq!(unpacked(Encoding::Gzip, twins).await.unwrap(), b"[1][1]"[..]);
}

#[tokio::test]
async fn gzip_that_lies_about_its_size() {
    let text = vec![b'a'; 50_000];
    for claimed in [0u32, 1, 49_999, 50_001, 100_000, u32::MAX] {
        let mut packed = gzip(&text);
        let end = packed.len();
        packed[end - 4..].copy_from_slice(&claimed.to_le_bytes());
        assert_eq!(reason(unpacked(Encoding::Gzip, packed).await), DeadLetterReason::BadEncoding, "{claimed}");
    }
}

#[tokio::test]
async fn bombs_stop_at_the_cap() {
    let huge = vec![0; 30_000_000];
    assert_eq!(reason(unpacked(Encoding::Gzip, gzip(&huge)).await), DeadLetterReason::TooLarge);
    let many: Vec<u8> = gzip(&vec![0; 60_000]).repeat(3);
    assert_eq!(reason(unpacked(Encoding::Gzip, many).await), DeadLetterReason::TooLarge);
    assert_eq!(
        reason(unpacked(Encoding::Zstd, zstd::bulk::compress(&huge, 1).unwrap()).await),
        DeadLetterReason::TooLarge
    );
    assert_eq!(unpacked(Encoding::Gzip, gzip(&huge[..100_000])).await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn broken_and_unknown_encodings() {
    let packed = gzip(&[7; 1_000]);
    for cut in [1, 9, packed.len() / 2, packed.len() - 1] {
        assert_eq!(
            reason(unpacked(Encoding::Gzip, packed[..cut].to_vec()).await),
            DeadLetterReason::BadEncoding,
            "{cut}"
        );
    }
    let trailing = [&packed[..], b"garbage"].concat();
    assert_eq!(reason(unpacked(Encoding::Gzip, trailing).await), DeadLetterReason::BadEncoding);
    assert_eq!(reason(unpacked(Encoding::Gzip, &b"[1]"[..]).await), DeadLetterReason::BadEncoding);
    assert_eq!(reason(unpacked(Encoding::Zstd, &b"[1]"[..]).await), DeadLetterReason::BadEncoding);
    assert_eq!(reason(unpacked(Encoding::Unknown("br".into()), &b"x"[..]).await), DeadLetterReason::BadEncoding);
}

#[tokio::test]
async fn zstd_of_many_frames() {
    let frame = zstd::bulk::compress(b"[1]", 1).unwrap();
    assert_eq!(unpacked(Encoding::Zstd, frame.repeat(2)).await.unwrap(), b"[1][1]"[..]);
    assert_eq!(
        reason(unpacked(Encoding::Zstd, frame[..frame.len() - 1].to_vec()).await),
        DeadLetterReason::BadEncoding
    );
}

#[test]
fn encodings_are_named_in_many_ways() {
    let of = |text: &'static str| {
        Encoding::of(&[(CONTENT_ENCODING, http::HeaderValue::from_static(text))].into_iter().collect())
    };
    for (text, encoding) in [
        ("gzip", Encoding::Gzip),
        ("GZIP", Encoding::Gzip),
        (" x-gzip", Encoding::Gzip),
        ("identity", Encoding::Identity),
        ("zstd", Encoding::Zstd),
    ] {
        assert_eq!(of(text), encoding);
    }
    assert_eq!(of("gzip, gzip"), Encoding::Unknown("gzip, gzip".into()));
    assert_eq!(Encoding::of(&HeaderMap::new()), Encoding::Identity);
}

proptest! {
    #[test]
    fn gzip_returns_what_was_packed(text in proptest::collection::vec(any::<u8>(), 0..2_000), members in 1usize..4) {
        let packed = gzip(&text).repeat(members);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        prop_assert_eq!(runtime.block_on(unpacked(Encoding::Gzip, packed)).unwrap(), text.repeat(members));
    }

    #[test]
    fn no_packed_bytes_panic(packed in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let mut bytes = packed.clone();
            bytes.splice(..0, GZIP_START);
            let _ = runtime.block_on(unpacked(encoding, bytes));
        }
    }
}
