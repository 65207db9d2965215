//! Prefill batches on which running requests ride.

use super::scenarios::{answer, limits, prompt, req, run_to_idle, scheduler, send, shape, step};
use crate::{ForwardMode, InputId, SchedulerLimits};

fn mixed(chunked_prefill_size: usize) -> SchedulerLimits {
    let chunked_prefill_size = Some(chunked_prefill_size);
    SchedulerLimits { mixed_chunk: true, chunked_prefill_size, ..limits() }
}

#[test]
fn a_stream_gets_a_token_with_every_chunk() {
    for overlap in [false, true] {
        let mut scheduler = scheduler(SchedulerLimits { overlap, ..mixed(48) });
        let mut events = step(&mut scheduler, vec![send(req("s", vec![7; 8], 9))]);
        events.extend(step(&mut scheduler, vec![send(req("long", prompt(120), 3))]));
        events.extend(run_to_idle(&mut scheduler, Vec::new()));
        let batches = &scheduler.executor().batches;
        // A token of the 48 is the stream's, and chunks are whole pages.
        assert_eq!(shape(&batches[1]), [(0, 32, false), (8, 1, true)]);
        assert_eq!(shape(&batches[2]), [(32, 32, false), (9, 1, true)]);
        assert_eq!(shape(&batches[3]), [(64, 32, false), (10, 1, true)]);
        assert_eq!(shape(&batches[4]), [(96, 24, true), (11, 1, true)]);
        for batch in &batches[1..5] {
            assert_eq!((batch.mode, batch.num_decode_rows), (ForwardMode::Extend, 1));
            assert_eq!(batch.prefill_rows().len(), 1);
        }
        assert_eq!(shape(&batches[5]), [(12, 1, true), (120, 1, true)]);
        assert_eq!(batches[5].mode, ForwardMode::Decode);
        let rider = if overlap { InputId::Previous { row: 0 } } else { InputId::Host(102) };
        assert_eq!(batches[3].input_ids.last(), Some(&rider));
        assert_eq!(batches[3].positions.last(), Some(&10));
        assert_eq!(answer(&events, "s").0, (100..109).collect::<Vec<_>>());
        assert_eq!(answer(&events, "long").0, [100, 101, 102]);
    }
}

#[test]
fn a_prompt_gets_a_page_on_however_many_ride() {
    let mut scheduler = scheduler(mixed(16));
    let streams = (0..20).map(|i| send(req(&format!("s{i}"), vec![50 + i; 8], 60))).collect();
    step(&mut scheduler, streams);
    while scheduler.stats().num_waiting_reqs > 0 {
        step(&mut scheduler, Vec::new());
    }
    let before = scheduler.executor().batches.len();
    step(&mut scheduler, vec![send(req("long", prompt(40), 1))]);
    run_to_idle(&mut scheduler, Vec::new());
    let batches = &scheduler.executor().batches[before..];
    let pieces: Vec<_> = batches.iter().take(3).map(|batch| shape(batch)[0]).collect();
    assert_eq!(pieces, [(0, 16, false), (16, 16, false), (32, 8, true)]);
    assert!(batches[..3].iter().all(|batch| batch.num_decode_rows == 20));
}

/// Nobody is retracted so that others may ride; their own turn comes next.
#[test]
fn those_who_find_no_room_to_ride_get_the_next_step() {
    let limits = SchedulerLimits { num_pages: 5, schedule_conservativeness: 0.001, ..mixed(48) };
    let mut scheduler = scheduler(limits);
    // Its 16 tokens fill a page, so that its next one needs another.
    let mut events = step(&mut scheduler, vec![send(req("s", vec![7; 16], 4))]);
    events.extend(step(&mut scheduler, vec![send(req("long", prompt(63), 1))]));
    events.extend(run_to_idle(&mut scheduler, Vec::new()));
    let batches = &scheduler.executor().batches;
    assert_eq!(shape(&batches[1]), [(0, 32, false)]);
    assert_eq!(batches[1].num_decode_rows, 0);
    assert_eq!(shape(&batches[2]), [(16, 1, true)], "the long one has given its pages back");
    assert_eq!(answer(&events, "s").0, [100, 101, 102, 103]);
    assert_eq!(answer(&events, "long").1.num_retractions, 1);
}
