//! More requests than can be answered: some wait and are told so, the others are answered as ever.

use tokio::time::Instant;

use super::*;

/// With this rate of answers, none, the bound is the smallest.
const SEATS: usize = 256;

#[tokio::test]
async fn who_finds_no_seat_is_held_and_then_told_503() {
    let door = Door::with(|config| config.hold_max = DurationText::millis(30)).await;
    door.ingest.pace.follow(Instant::now() + Duration::from_secs(1));
    door.log.shut();
    let mut seated = Vec::new();
    for n in 0..SEATS {
        let mut client = door.connect().await;
        client.write(post("/bulk", &with_id(&n.to_string()), CUSTOM)).await;
        seated.push(client);
    }
    door.log.appends(1).await;
    // Which of them has no seat is chance: requests are read in any order.
    let mut late = Vec::new();
    for n in 0..8 {
        let mut client = door.connect().await;
        client.write(post("/bulk", &with_id(&format!("late {n}")), CUSTOM)).await;
        late.push(client);
    }
    while door.ingest.status().answers.get(&503).copied().unwrap_or_default() < 8 {
        tokio::task::yield_now().await;
    }
    door.log.reopen();
    let mut answers = Vec::new();
    for client in seated.iter_mut().chain(&mut late) {
        answers.push(client.reply().await.status);
    }
    assert_eq!((count(&answers, 202), count(&answers, 503)), (SEATS, 8));
    assert_eq!(door.post("/bulk", &with_id("late 1"), CUSTOM).await.status, 202);
    assert_eq!(door.ingest.status().bytes_in_flight, 0);
    door.close().await;
}

fn count(answers: &[u16], status: u16) -> usize {
    answers.iter().filter(|answer| **answer == status).count()
}
