//! The same payload id again: event protocol, section 9.4.

use super::*;

#[tokio::test]
async fn repeat_is_stored_once() {
    let door = Door::open().await;
    for _ in 0..3 {
        assert_eq!(door.post("/bulk", &with_id("a"), CUSTOM).await.status, 202);
    }
    assert_eq!(door.post("/bulk", &with_id("b"), CUSTOM).await.status, 202);
    assert_eq!(door.post("/mobile", &format!("Authorization: {MOBILE_KEY}\r\n"), CUSTOM).await.status, 202);
    let mut ids: Vec<_> = door.payloads().await.into_iter().map(|payload| payload.payload_id).collect();
    ids.sort();
    assert_eq!(ids, [None, Some("a".into()), Some("b".into())]);
    assert_eq!(door.ingest.status().deduplicated_payloads_total, 2);
    door.close().await;
}

#[tokio::test]
async fn payloads_without_id_are_all_stored() {
    let door = Door::open().await;
    for headers in [sdk(), with_id(&"x".repeat(129))] {
        for _ in 0..2 {
            assert_eq!(door.post("/bulk", &headers, CUSTOM).await.status, 202);
        }
    }
    assert_eq!(door.payloads().await.len(), 4);
    door.close().await;
}

#[tokio::test]
async fn twins_at_once_get_one_answer() {
    let door = Door::open().await;
    door.log.shut();
    let mut clients = [door.connect().await, door.connect().await, door.connect().await];
    for client in &mut clients {
        client.write(post("/bulk", &with_id("a"), CUSTOM)).await;
    }
    door.log.appends(1).await;
    door.log.reopen();
    for client in &mut clients {
        assert_eq!(client.reply().await.status, 202);
    }
    assert_eq!(door.payloads().await.len(), 1);
    door.close().await;
}

#[tokio::test]
async fn refused_append_then_the_second_try_is_stored() {
    let door = Door::open().await;
    door.log.memory.fail_appends([AppendFault::Refused]);
    let reply = door.post("/bulk", &with_id("a"), CUSTOM).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert_eq!(door.payloads().await, []);
    assert_eq!(door.post("/bulk", &with_id("a"), CUSTOM).await.status, 202);
    assert_eq!(door.payloads().await.len(), 1);
    door.close().await;
}

#[tokio::test]
async fn lost_acknowledgement_is_not_taken_for_one() {
    let door = Door::open().await;
    door.log.memory.fail_appends([AppendFault::AcknowledgementLost]);
    assert_eq!(door.post("/bulk", &with_id("a"), CUSTOM).await.status, 503);
    assert_eq!(door.post("/bulk", &with_id("a"), CUSTOM).await.status, 202);
    // Both are in the log, in the same partition: the compactor keeps the first.
    let payloads = door.payloads().await;
    assert_eq!(payloads.len(), 2);
    assert_eq!(payloads[0], payloads[1]);
    let holding = door.batches(Topic::Events).await;
    assert_eq!(holding.len(), 2);
    door.close().await;
}

#[tokio::test]
async fn failure_is_told_to_twins_too() {
    let door = Door::open().await;
    door.log.shut();
    door.log.memory.fail_appends([AppendFault::Refused]);
    let mut clients = [door.connect().await, door.connect().await];
    for client in &mut clients {
        client.write(post("/bulk", &with_id("a"), CUSTOM)).await;
    }
    door.log.appends(1).await;
    door.log.reopen();
    let mut answers = [clients[0].reply().await.status, clients[1].reply().await.status];
    answers.sort_unstable();
    // The second either waited for the first, or came after it had failed and was stored.
    assert!(answers == [503, 503] || answers == [202, 503], "{answers:?}");
    assert_eq!(door.payloads().await.len(), usize::from(answers[0] == 202));
    door.close().await;
}

#[tokio::test]
async fn unreadable_repeat_is_kept_once_and_told_the_same() {
    let door = Door::open().await;
    let first = door.post("/bulk", &with_id("a"), "[1,").await;
    let second = door.post("/bulk", &with_id("a"), "[1,").await;
    assert_eq!((first.status, &first.body), (400, &second.body));
    assert_eq!(second.status, 400);
    assert_eq!(door.letters().await.len(), 1);
    door.close().await;
}
