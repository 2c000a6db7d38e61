//! Processes that share a stage.

use std::collections::BTreeSet;

use super::*;
use crate::{Assigner, Assignment};

const PARTITIONS: u32 = 4;

/// A process of the stage `work`.
struct Process {
    member: GroupMember,
    assignment: Assignment,
}

async fn log_of(config: &Config, member: &str) -> Arc<KafkaLog> {
    let config = Config { member: member.into(), session_timeout: runtime::DurationText::secs(6), ..config.clone() };
    let partitions = crate::Config { events_partitions: PARTITIONS, ..log_config() };
    open(&config, &partitions).await.unwrap()
}

fn join(log: &KafkaLog) -> Process {
    let assigner = Assigner::new();
    let assignment = assigner.assignment();
    Process { member: log.join("work", &[Topic::Events, Topic::DeadLetters], assigner).unwrap(), assignment }
}

fn all() -> BTreeSet<TopicPartition> {
    let events = (0..PARTITIONS).map(|partition| TopicPartition::new(Topic::Events, partition));
    events.chain([TopicPartition::new(Topic::DeadLetters, 0)]).collect()
}

impl Process {
    fn held(&self) -> BTreeSet<TopicPartition> {
        all().into_iter().filter(|place| self.assignment.holds(*place)).collect()
    }

    async fn leave(self) {
        // It waits for its thread.
        tokio::task::spawn_blocking(move || drop(self.member)).await.unwrap();
    }
}

/// Waits until together they hold each partition once, and each of them some.
async fn divided(processes: &[&Process]) {
    until("every partition held once", async || {
        let held: Vec<_> = processes.iter().map(|process| process.held()).collect();
        let count: usize = held.iter().map(BTreeSet::len).sum();
        let union: BTreeSet<_> = held.iter().flatten().copied().collect();
        (held.iter().all(|held| !held.is_empty()) && count == all().len() && union == all()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_divided_and_taken_over() {
    let config = config();
    let log = log_of(&config, "").await;
    let one = join(&log);
    divided(&[&one]).await;
    let other = join(&log);
    divided(&[&one, &other]).await;
    one.leave().await;
    divided(&[&other]).await;
    assert_eq!(other.member.fault(), None);
    other.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn process_with_a_name_is_back_without_a_move() {
    let config = config();
    let (one_log, other_log) = (log_of(&config, "one").await, log_of(&config, "other").await);
    let (one, mut other) = (join(&one_log), join(&other_log));
    divided(&[&one, &other]).await;
    let held = one.held();
    other.assignment.news();
    one.leave().await;
    let mut one = join(&one_log);
    until("what it had", async || (one.held() == held).then_some(())).await;
    assert!(other.assignment.news().is_none(), "nothing moved");
    // What it is told again is what it reads on from.
    assert_eq!(*one.assignment.news().unwrap(), held);
    one.leave().await;
    other.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_process_of_the_same_name_throws_the_first_one_out() {
    let config = config();
    let log = log_of(&config, "same").await;
    let first = join(&log);
    divided(&[&first]).await;
    let second = join(&log);
    let fault = until("a fault", async || first.member.fault()).await;
    assert!(fault.contains("thrown out"), "{fault}");
    assert_eq!(first.held(), BTreeSet::new(), "it works on nothing any more");
    divided(&[&second]).await;
    first.leave().await;
    second.leave().await;
}
