//! Every bound, reached; and pressure, which never ends in a 4xx other than 429.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// The smallest bounds that the configuration accepts.
fn tight(config: &mut Config) {
    config.body_bytes_max = ByteSize::kib(64);
    config.bytes_in_flight_max = ByteSize::kib(192);
    config.hold_max = DurationText::millis(30);
}

fn of_size(bytes: usize) -> String {
    let frame = r#"[{"kind":"custom","creationDate":1,"key":"","context":{"kind":"user","key":"u"}}]"#;
    frame.replace(r#""key":"","#, &format!(r#""key":"{}","#, "k".repeat(bytes - frame.len())))
}

#[tokio::test]
async fn too_large_is_400_after_the_last_byte() {
    let door = Door::with(tight).await;
    assert_eq!(door.post("/bulk", &sdk(), of_size(64 << 10)).await.status, 202);
    let mut client = door.connect().await;
    let reply = client.send(post("/bulk", &sdk(), "x".repeat(5 << 20))).await;
    assert_eq!((reply.status, &reply.json()["code"]), (400, &"too_large".into()));
    assert_eq!(client.send(post("/bulk", &sdk(), CUSTOM)).await.status, 202, "the connection goes on");
    let letters = door.letters().await;
    assert_eq!((letters.len(), letters[0].0.as_str(), letters[0].1.len()), (1, "too_large", 64 << 10));
    door.close().await;
}

#[tokio::test]
async fn bombs_are_kept_packed() {
    let door = Door::with(tight).await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![b'['; 20 << 20]).unwrap();
    let gzip = encoder.finish().unwrap();
    let zstd = zstd::bulk::compress(&vec![b'['; 20 << 20], 3).unwrap();
    for (name, bomb) in [("gzip", &gzip), ("zstd", &zstd)] {
        let reply = door.post("/bulk", &format!("{}Content-Encoding: {name}\r\n", with_id(name)), bomb).await;
        assert_eq!((reply.status, &reply.json()["code"]), (400, &"too_large".into()), "{name}");
    }
    assert_eq!(door.letters().await, [("too_large".to_owned(), gzip), ("too_large".to_owned(), zstd)]);
    assert_eq!(door.ingest.status().bytes_in_flight, 0);
    door.close().await;
}

#[tokio::test]
async fn full_room_holds_then_says_503() {
    let door = Door::with(tight).await;
    door.log.shut();
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut client = door.connect().await;
        client.write(post("/bulk", &with_id(&n.to_string()), of_size(60 << 10))).await;
        clients.push(client);
    }
    door.log.appends(1).await;
    let reply = door.post("/bulk", &with_id("late"), of_size(60 << 10)).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert!(door.ingest.status().bytes_in_flight <= 192 << 10);
    door.log.reopen();
    for client in &mut clients {
        assert_eq!(client.reply().await.status, 202);
    }
    assert_eq!(door.post("/bulk", &with_id("late"), CUSTOM).await.status, 202);
    assert_eq!(door.ingest.status().bytes_in_flight, 0);
    door.close().await;
}

#[tokio::test]
async fn held_request_goes_on_when_there_is_room() {
    let door = Door::with(|config| {
        tight(config);
        config.hold_max = DurationText::secs(60);
    })
    .await;
    door.log.shut();
    let mut clients = Vec::new();
    for n in 0..8 {
        let mut client = door.connect().await;
        client.write(post("/bulk", &with_id(&n.to_string()), of_size(60 << 10))).await;
        clients.push(client);
    }
    door.log.appends(1).await;
    door.log.reopen();
    for client in &mut clients {
        assert_eq!(client.reply().await.status, 202);
    }
    assert_eq!(door.payloads().await.len(), 8);
    door.close().await;
}

#[tokio::test]
async fn log_without_answer_is_503_in_the_end() {
    let door = Door::with(|config| config.append_timeout = DurationText::millis(30)).await;
    door.log.shut();
    assert_eq!(door.post("/bulk", &with_id("a"), CUSTOM).await.status, 503);
    door.log.reopen();
    assert_eq!(door.post("/bulk", &with_id("a"), CUSTOM).await.status, 202);
    door.close().await;
}

#[tokio::test]
async fn nobody_is_told_a_wrong_key_while_none_is_loaded() {
    let door = Door::without_keys(|_| {}).await;
    let import = "/v2/event-data-import/shop/prod".to_owned();
    for path in ["/bulk".into(), "/mobile".into(), format!("/events/bulk/{CLIENT_ID}"), import] {
        let reply = door.post(&path, &sdk(), CUSTOM).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{path}");
    }
    for path in ["/diagnostic".into(), "/mobile/events/diagnostic".into(), format!("/events/diagnostic/{CLIENT_ID}")] {
        assert_eq!(door.post(&path, &sdk(), DIAGNOSTIC).await.status, 202, "{path}");
    }
    assert!(door.ingest.ready().unwrap_err().contains("keys"));
    door.ingest.load_keys(&[environment()], &tokens()).unwrap();
    assert_eq!(door.ingest.ready(), Ok(()));
    assert_eq!(door.post("/bulk", &sdk(), CUSTOM).await.status, 202);
    door.close().await;
}

#[tokio::test]
async fn rate_is_429() {
    let door = Door::with(|config| config.environment_requests_per_second = 2).await;
    let mut client = door.connect().await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(client.send(post("/bulk", &sdk(), CUSTOM)).await.status);
    }
    assert_eq!(answers[..2], [202, 202]);
    assert!(answers.contains(&429), "{answers:?}");
    assert!(answers.iter().all(|status| [202, 429].contains(status)));
    door.close().await;
}

#[tokio::test]
async fn idle_connection_makes_room_for_a_new_one() {
    let door = Door::with(|config| config.connections_max = 2).await;
    let (mut first, mut second) = (door.connect().await, door.connect().await);
    assert_eq!(first.send(post("/bulk", &sdk(), CUSTOM)).await.status, 202);
    assert_eq!(second.send(post("/bulk", &sdk(), CUSTOM)).await.status, 202);
    let mut third = door.connect().await;
    assert_eq!(third.send(post("/bulk", &sdk(), CUSTOM)).await.status, 202);
    assert!(first.ends().await);
    assert_eq!(second.send(post("/bulk", &sdk(), CUSTOM)).await.status, 202);
    door.close().await;
}

#[tokio::test]
async fn slow_head_is_cut_and_slow_body_told() {
    let door = Door::with(|config| {
        config.header_timeout = DurationText::millis(40);
        config.body_timeout = DurationText::millis(40);
    })
    .await;
    let mut quiet = door.connect().await;
    let mut slow = door.connect().await;
    slow.write("POST /bulk HTTP/1.1\r\nHost:").await;
    assert!(slow.ends().await);
    let mut slow = door.connect().await;
    slow.write(&post("/bulk", &sdk(), CUSTOM)[..120]).await;
    assert_eq!(slow.reply().await.status, 408);
    assert_eq!(quiet.send(post("/bulk", &sdk(), CUSTOM)).await.status, 202, "a quiet connection is not a slow one");
    door.close().await;
}

#[tokio::test]
async fn head_without_end_is_refused() {
    let door = Door::open().await;
    let mut client = door.connect().await;
    let head =
        format!("POST /bulk HTTP/1.1\r\n{}", "X-Filler: 0123456789012345678901234567890123456789\r\n".repeat(100_000));
    // The server may have ended the connection before the last byte is written.
    let _ = client.0.write_all(head.as_bytes()).await;
    let status = client.try_reply().await.map(|reply| reply.status);
    assert!(status.is_none_or(|status| status == 431), "{status:?}");
    assert_eq!(door.post("/bulk", &sdk(), CUSTOM).await.status, 202);
    door.close().await;
}

#[tokio::test]
async fn large_payload_and_its_neighbours() {
    let door = Door::open().await;
    let large = door.send(post("/bulk", &with_id("large"), of_size(3 << 20)));
    let small = futures::future::join_all((0..20).map(|_| door.send(post("/bulk", &sdk(), CUSTOM))));
    let (large, small) = futures::join!(large, small);
    assert_eq!(large.status, 202);
    assert!(small.iter().all(|reply| reply.status == 202));
    assert_eq!(door.payloads().await.len(), 21);
    door.close().await;
}

#[tokio::test]
async fn many_at_once_share_batches() {
    let door = Door::open().await;
    door.log.shut();
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = door.connect().await;
        client.write(post("/bulk", &sdk(), CUSTOM)).await;
        clients.push(client);
    }
    door.log.appends(1).await;
    door.log.reopen();
    for client in &mut clients {
        assert_eq!(client.reply().await.status, 202);
    }
    let records = door.batches(Topic::Events).await.len();
    assert!(records < 100, "200 payloads in {records} records");
    assert_eq!(door.payloads().await.len(), 200);
    door.close().await;
}

#[tokio::test]
async fn drain_answers_what_was_accepted() {
    let door = Door::open().await;
    door.log.shut();
    let mut busy = door.connect().await;
    busy.write(post("/bulk", &with_id("a"), CUSTOM)).await;
    let mut idle = door.connect().await;
    door.log.appends(1).await;
    door.shutdown.begin();
    assert!(idle.ends().await);
    assert!(door.ingest.ready().unwrap_err().contains("shutting down"));
    assert!(TcpStream::connect(door.address).await.is_err());
    door.log.reopen();
    assert_eq!(busy.reply().await.status, 202);
    assert!(busy.ends().await);
    assert_eq!(door.payloads().await.len(), 1);
    door.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn client_that_left_does_not_take_its_payload_along() {
    let door = Door::open().await;
    door.log.shut();
    let mut gone = door.connect().await;
    gone.write(post("/bulk", &with_id("a"), CUSTOM)).await;
    door.log.appends(1).await;
    drop(gone);
    let mut again = door.connect().await;
    again.write(post("/bulk", &with_id("a"), CUSTOM)).await;
    door.log.reopen();
    assert_eq!(again.reply().await.status, 202);
    assert_eq!(door.payloads().await.len(), 1);
    door.close().await;
}

/// The neighbour waits in the open batch into which the breaking body has already written a row.
#[tokio::test]
async fn body_that_breaks_the_decoder_costs_nobody_an_event() {
    let door = Door::open().await;
    // Someone who could still call: otherwise the batch would be sealed as soon as everyone waits in it.
    let _quiet = door.connect().await;
    door.log.shut();
    let mut first = door.connect().await;
    first.write(post("/bulk", &with_id("first"), CUSTOM)).await;
    door.log.appends(1).await;
    let mut neighbour = door.connect().await;
    neighbour.write(post("/bulk", &with_id("neighbour"), CUSTOM)).await;
    while door.ingest.status().bytes_in_flight < 2 * CUSTOM.len() as u64 {
        tokio::task::yield_now().await;
    }
    let breaking = CUSTOM.replace(r#""bought""#, crate::decode::PANICS_BEHIND);
    let mut breaker = door.connect().await;
    breaker.write(post("/bulk", &with_id("breaker"), &breaking)).await;
    let told = neighbour.reply().await;
    assert_eq!((told.status, told.header("retry-after")), (503, Some("1")), "not acknowledged, not stored");
    door.log.reopen();
    assert_eq!(first.reply().await.status, 202, "a batch sealed before is not touched");
    assert_eq!(breaker.reply().await.status, 202);
    assert_eq!(door.letters().await, [("invalid_json".to_owned(), breaking.into_bytes())]);
    assert_eq!(neighbour.send(post("/bulk", &with_id("neighbour"), CUSTOM)).await.status, 202, "it comes back");
    let mut ids: Vec<_> = door.payloads().await.into_iter().flat_map(|payload| payload.payload_id).collect();
    ids.sort();
    assert_eq!(ids, ["first".into(), "neighbour".into()], "nothing twice, and no row of the breaking body");
    assert_eq!(door.ingest.status().bytes_in_flight, 0);
    door.close().await;
}

/// Moves tokio's clock on, second by second, so that whatever is due in between happens.
async fn let_pass(seconds: u64) {
    tokio::time::pause();
    for _ in 0..seconds {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    tokio::time::resume();
}

#[tokio::test]
async fn quiet_connection_is_kept_for_two_minutes_and_ended_in_the_end() {
    let door = Door::open().await;
    let mut client = door.connect().await;
    for _ in 0..2 {
        assert_eq!(client.send(post("/bulk", &sdk(), CUSTOM)).await.status, 202);
        let_pass(120).await;
    }
    assert_eq!(client.send(post("/bulk", &sdk(), CUSTOM)).await.status, 202, "after 120 s of silence, again");
    let_pass(door.ingest.config.idle_timeout.get().as_secs() + 2).await;
    assert!(client.ends().await);
    door.close().await;
}
