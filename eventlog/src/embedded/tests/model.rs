//! Any sequence of appends, restarts and reads gives what a plain list per partition would give.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Partition and length of each record.
    Append(Vec<(usize, usize)>),
    Reopen,
    Read {
        slot: usize,
        back: usize,
        bytes_max: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let records = proptest::collection::vec((0..4_usize, 0..200_usize), 1..6);
    let read = (0..4_usize, 0..30_usize, 0..600_usize);
    prop_oneof![
        6 => records.prop_map(Step::Append),
        1 => Just(Step::Reopen),
        4 => read.prop_map(|(slot, back, bytes_max)| Step::Read { slot, back, bytes_max }),
    ]
}

async fn run(steps: Vec<Step>, segment_bytes: u64) {
    let dir = directory();
    let config = Config { segment_bytes: ByteSize(segment_bytes), ..config() };
    let reopen = || EmbeddedLog::open(dir.path(), &config, &Runtime::system()).unwrap();
    let mut log = reopen();
    let mut model: [Vec<Bytes>; 4] = Default::default();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Append(records) => {
                let records: Vec<AppendRecord> =
                    records.iter().map(|(slot, bytes)| record(ALL[*slot], &vec![number as u8; *bytes])).collect();
                let offsets = log.append(records.clone()).await.unwrap();
                for (record, offset) in records.into_iter().zip(offsets) {
                    let held = &mut model[log.shared.layout.slot(record.topic_partition)];
                    assert_eq!(offset.0 as usize, held.len());
                    held.push(record.frame);
                }
            }
            Step::Reopen => {
                log.close().await;
                log = reopen();
            }
            Step::Read { slot, back, bytes_max } => {
                let from = model[slot].len().saturating_sub(back);
                let fetched = log.fetch(ALL[slot], Offset(from as i64), bytes_max, Duration::ZERO).await.unwrap();
                assert_eq!(fetched.is_empty(), from == model[slot].len());
                for (index, record) in fetched.iter().enumerate() {
                    assert_eq!((record.offset.0 as usize, &record.frame), (from + index, &model[slot][from + index]));
                }
            }
        }
    }
    for (slot, expected) in model.iter().enumerate() {
        assert_eq!(read_all(&log, ALL[slot]).await.unwrap(), *expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn log_behaves_like_a_list_per_partition(
        steps in proptest::collection::vec(step(), 1..50),
        segment_bytes in 200..3000_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(steps, segment_bytes));
    }
}
