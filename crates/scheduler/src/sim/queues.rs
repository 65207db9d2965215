//! The waiting queue's rules, each with its exact outcome.

use std::time::Duration;

use types::{FinishReason, GenerateReq, Rid, TokenId};

use super::scenarios::{Recorder, answer, limits, prompt, req, run_to_idle, scheduler, send, step};
use crate::{
    ForwardMode, PriorityRules, QueueRules, RetractionPolicy, SchedulePolicy, Scheduler,
    SchedulerEvent, SchedulerLimits, SchedulerMsg,
};

/// One request at a time, so that the order of service is the order of admission.
fn one_by_one(queue: QueueRules) -> SchedulerLimits {
    SchedulerLimits { queue, max_running_requests: 1, ..limits() }
}

fn by(policy: SchedulePolicy) -> QueueRules {
    QueueRules { policy, ..QueueRules::default() }
}

fn with(priority: PriorityRules) -> QueueRules {
    QueueRules { priority: Some(priority), ..QueueRules::default() }
}

/// A request known by its number, with a prompt that no other shares.
fn numbered(number: u64, prompt_len: usize, max_new_tokens: usize) -> GenerateReq {
    let prompt = vec![1000 + number as TokenId; prompt_len];
    let mut req = req(&format!("r{number}"), prompt, max_new_tokens);
    req.sampling_params.sampling_seed = Some(number);
    req
}

fn prioritized(number: u64, priority: Option<i64>) -> GenerateReq {
    GenerateReq { priority, ..numbered(number, 8, 2) }
}

/// Numbers in the order in which their prefill began.
fn order(scheduler: &Scheduler<Recorder>) -> Vec<u64> {
    let batches = scheduler.executor().batches.iter();
    let extends = batches.filter(|batch| batch.mode == ForwardMode::Extend);
    let mut order = Vec::new();
    for row in extends.flat_map(|batch| &batch.rows) {
        if !order.contains(&row.sampling.seed) {
            order.push(row.sampling.seed);
        }
    }
    order
}

fn order_of(queue: QueueRules, reqs: Vec<GenerateReq>) -> Vec<u64> {
    let mut scheduler = scheduler(one_by_one(queue));
    run_to_idle(&mut scheduler, reqs.into_iter().map(send).collect());
    order(&scheduler)
}

/// Why a request was refused or ended.
fn reason(events: &[SchedulerEvent], name: &str) -> (u16, String) {
    let refused = events.iter().find_map(|event| match event {
        SchedulerEvent::Refused { rid, reason } if rid.as_str() == name => Some(reason.clone()),
        _ => None,
    });
    match refused.unwrap_or_else(|| answer(events, name).2) {
        FinishReason::Abort { message, status_code, .. } => (status_code, message),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn lof_admits_the_longest_output_first() {
    let reqs = [(1, 5), (2, 9), (3, 7), (4, 9)].map(|(number, max)| numbered(number, 8, max));
    assert_eq!(order_of(by(SchedulePolicy::Lof), reqs.to_vec()), [2, 4, 3, 1]);
}

#[test]
fn shortest_prefill_first_admits_the_fewest_tokens_first() {
    let reqs = [(1, 50), (2, 9), (3, 70), (4, 9)].map(|(number, len)| numbered(number, len, 1));
    let queue = by(SchedulePolicy::ShortestPrefillFirst);
    assert_eq!(order_of(queue, reqs.to_vec()), [2, 4, 1, 3]);
}

#[test]
fn hrrn_weighs_waiting_against_work() {
    // Nobody has waited at first; then the ratios are 40/10, 40/20 and 40/80, and after
    // that (both grow alike) 20 is still ahead of 80.
    let reqs = [(1, 40), (2, 80), (3, 20), (4, 10)].map(|(number, len)| numbered(number, len, 1));
    assert_eq!(order_of(by(SchedulePolicy::Hrrn), reqs.to_vec()), [1, 4, 3, 2]);
}

#[test]
fn random_is_an_order_of_its_seed() {
    let draw = |random_seed| {
        let reqs = (0..20).map(|number| numbered(number, 8, 1)).collect();
        order_of(QueueRules { random_seed, ..by(SchedulePolicy::Random) }, reqs)
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let mut sorted = draw(3);
    sorted.sort_unstable();
    assert_eq!(sorted, (0..20).collect::<Vec<_>>());
}

#[test]
fn dfs_weight_serves_the_heaviest_branch_first_and_its_depths_before_it() {
    // All in one batch: its rows are in the order of admission.
    let queue = by(SchedulePolicy::DfsWeight);
    let mut scheduler = scheduler(SchedulerLimits { queue, ..limits() });
    let branch = |first: TokenId, len: usize| (first..).take(len).collect::<Vec<_>>();
    let warm = [branch(0, 49), branch(500, 33)].map(|ids| req(&format!("w{}", ids[0]), ids, 1));
    run_to_idle(&mut scheduler, warm.map(send).to_vec());
    scheduler.executor_mut().batches.clear();
    // Two below 500; three below 0, two of which go on to its end.
    let mut reqs = Vec::new();
    for (number, first, len) in [(1, 500, 33), (2, 0, 17), (3, 0, 49), (4, 500, 33), (5, 0, 49)] {
        let mut ids = branch(first, len);
        ids.push(900 + number as TokenId);
        reqs.push(GenerateReq { input_ids: ids, ..numbered(number, 1, 1) });
    }
    reqs.push(numbered(6, 40, 1)); // in no branch
    run_to_idle(&mut scheduler, reqs.into_iter().map(send).collect());
    let order = order(&scheduler);
    assert_eq!(order, [3, 5, 2, 1, 4, 6]);
}

#[test]
fn priorities_come_before_every_policy() {
    let priorities = [(1, Some(1)), (2, Some(5)), (3, None), (4, Some(5)), (5, Some(-2))];
    let reqs = || priorities.map(|(number, priority)| prioritized(number, priority)).to_vec();
    assert_eq!(order_of(with(PriorityRules::default()), reqs()), [2, 4, 1, 5, 3]);
    let low = PriorityRules { low_values_first: true, ..PriorityRules::default() };
    assert_eq!(order_of(with(low), reqs()), [5, 1, 2, 4, 3]);
    let default = PriorityRules { default_value: Some(3), ..PriorityRules::default() };
    assert_eq!(order_of(with(default), reqs()), [2, 4, 3, 1, 5]);
    assert_eq!(order_of(QueueRules::default(), reqs()), [1, 2, 3, 4, 5], "not asked for");

    let lof = QueueRules { policy: SchedulePolicy::Lof, ..with(PriorityRules::default()) };
    let mut reqs = reqs();
    reqs[3].sampling_params.max_new_tokens = Some(9);
    assert_eq!(order_of(lof, reqs), [4, 2, 1, 5, 3]);
}

#[test]
fn a_priority_where_none_counts_is_refused_if_told_so() {
    let queue = QueueRules { refuses_priority: true, ..QueueRules::default() };
    let mut scheduler = scheduler(one_by_one(queue));
    let msgs = vec![send(prioritized(1, Some(0))), send(prioritized(2, None))];
    let events = run_to_idle(&mut scheduler, msgs);
    let text = "Using priority is disabled for this server. Please send a new request without a \
                priority.";
    assert_eq!(reason(&events, "r1"), (503, text.to_owned()));
    assert_eq!(answer(&events, "r2").0, [100, 101]);
}

#[test]
fn one_more_than_may_wait_is_refused() {
    let queue = QueueRules { max_queued_requests: Some(2), ..QueueRules::default() };
    let mut scheduler = scheduler(one_by_one(queue));
    let mut events = step(&mut scheduler, vec![send(numbered(1, 8, 9))]);
    let msgs = [2, 3, 4].map(|number| send(prioritized(number, Some(9))));
    events.extend(run_to_idle(&mut scheduler, msgs.to_vec()));
    assert_eq!(reason(&events, "r4"), (503, "The request queue is full.".to_owned()));
    for (name, len) in [("r1", 9), ("r2", 2), ("r3", 2)] {
        assert_eq!(answer(&events, name).0.len(), len, "{name}");
    }
    assert_eq!(scheduler.stats().num_aborted_reqs, 1);
}

#[test]
fn a_full_queue_gives_up_its_lowest_priority_for_a_higher_one() {
    let queue = QueueRules { max_queued_requests: Some(3), ..with(PriorityRules::default()) };
    let mut scheduler = scheduler(one_by_one(queue));
    let mut events = step(&mut scheduler, vec![send(prioritized(1, Some(9)))]);
    let priorities = [(2, Some(1)), (3, Some(1)), (4, Some(2)), (5, Some(1)), (6, Some(2))];
    let msgs = priorities.map(|(number, priority)| send(prioritized(number, priority)));
    events.extend(run_to_idle(&mut scheduler, msgs.to_vec()));
    let gone = "The request is aborted by a higher priority request.".to_owned();
    assert_eq!(reason(&events, "r5"), (503, "The request queue is full.".to_owned()));
    assert_eq!(reason(&events, "r3"), (503, gone), "the later of the two lowest");
    assert_eq!(order(&scheduler), [1, 4, 6, 2]);
}

#[test]
fn a_prefill_batch_has_no_more_requests_than_it_may() {
    let queue = QueueRules { prefill_max_requests: Some(2), ..QueueRules::default() };
    let mut scheduler = scheduler(SchedulerLimits { queue, ..limits() });
    let msgs = (0..5).map(|number| send(numbered(number, 8, 1))).collect();
    run_to_idle(&mut scheduler, msgs);
    let sizes: Vec<_> = scheduler.executor().batches.iter().map(|b| b.rows.len()).collect();
    assert_eq!(sizes, [2, 2, 1]);
}

fn at(seconds: u64) -> SchedulerMsg {
    SchedulerMsg::Time(Duration::from_secs(seconds))
}

#[test]
fn what_waits_or_runs_for_too_long_is_ended() {
    let queue = QueueRules {
        waiting_timeout: Some(Duration::from_secs(10)),
        running_timeout: Some(Duration::from_secs(30)),
        ..QueueRules::default()
    };
    let mut scheduler = scheduler(one_by_one(queue));
    let mut events = step(&mut scheduler, vec![at(100), send(numbered(1, 8, 99))]);
    events.extend(step(&mut scheduler, vec![at(105), send(numbered(2, 8, 99))]));
    events.extend(step(&mut scheduler, vec![at(115)]));
    assert!(scheduler.contains(&Rid::new("r2")), "ten seconds are not more than ten");
    events.extend(step(&mut scheduler, vec![at(116)]));
    let waited = "Request waiting timeout reached.".to_owned();
    assert_eq!(reason(&events, "r2"), (503, waited));
    events.extend(step(&mut scheduler, vec![at(130)]));
    assert!(scheduler.contains(&Rid::new("r1")));
    events.extend(step(&mut scheduler, vec![at(131)]));
    assert_eq!(reason(&events, "r1"), (503, "Request running timeout reached.".to_owned()));
    assert_eq!(scheduler.stats().num_used_tokens(), 0);
    assert!(!scheduler.has_live_reqs());
}

#[test]
fn the_time_in_the_queue_is_that_before_the_first_step() {
    let mut scheduler = scheduler(one_by_one(QueueRules::default()));
    let mut events = step(&mut scheduler, vec![at(100), send(numbered(1, 8, 2))]);
    events.extend(step(&mut scheduler, vec![at(103), send(numbered(2, 8, 2))]));
    events.extend(run_to_idle(&mut scheduler, vec![at(107)]));
    let queue_time = |name: &str| answer(&events, name).1.queue_time;
    assert_eq!(queue_time("r1"), Duration::ZERO);
    assert_eq!(queue_time("r2"), Duration::from_secs(4));
}

/// One runs with priority 0; what a second with this priority finds.
fn beside_a_lower_one(priority: i64, threshold: Option<u64>, overlap: bool) -> (Vec<u64>, u64) {
    let rules = PriorityRules { preemption_threshold: threshold, ..PriorityRules::default() };
    let mut scheduler = scheduler(SchedulerLimits { overlap, ..one_by_one(with(rules)) });
    let low = GenerateReq { priority: Some(0), ..numbered(1, 20, 30) };
    let mut events = step(&mut scheduler, vec![send(low)]);
    events.extend(step(&mut scheduler, Vec::new()));
    let high = GenerateReq { priority: Some(priority), ..numbered(2, 20, 3) };
    events.extend(run_to_idle(&mut scheduler, vec![send(high)]));
    // Nobody loses a token, or gets one twice.
    assert_eq!(answer(&events, "r1").0, (100..130).collect::<Vec<_>>());
    assert_eq!(answer(&events, "r2").0, [100, 101, 102]);
    let num_preemptions = scheduler.stats().num_preemptions;
    assert_eq!(answer(&events, "r1").1.num_retractions as u64, num_preemptions);
    let ends = events.iter().filter_map(|event| match event {
        SchedulerEvent::Req { rid, event } if event.finish_reason.is_some() => {
            rid.as_str()[1..].parse().ok()
        }
        _ => None,
    });
    (ends.collect(), num_preemptions)
}

#[test]
fn only_a_priority_higher_by_more_than_the_threshold_preempts() {
    for overlap in [false, true] {
        assert_eq!(beside_a_lower_one(10, Some(10), overlap), (vec![1, 2], 0));
        assert_eq!(beside_a_lower_one(11, Some(10), overlap), (vec![2, 1], 1));
        assert_eq!(beside_a_lower_one(i64::MAX, None, overlap), (vec![1, 2], 0));
    }
}

#[test]
fn the_lowest_and_newest_make_room_and_no_more_of_them_than_need_be() {
    let rules = PriorityRules { preemption_threshold: Some(0), ..PriorityRules::default() };
    let limits =
        SchedulerLimits { queue: with(rules), max_running_requests: 4, num_pages: 32, ..limits() };
    let mut scheduler = scheduler(limits);
    // Each has 80 tokens and is expected to take 35 more: three of them fill 345 of 512.
    let low = [(1, 1), (2, 0), (3, 0)].map(|(number, priority)| {
        send(GenerateReq { priority: Some(priority), ..numbered(number, 80, 50) })
    });
    let mut events = step(&mut scheduler, low.to_vec());
    let high = GenerateReq { priority: Some(5), ..numbered(4, 160, 40) };
    events.extend(step(&mut scheduler, vec![send(high)]));
    assert_eq!(scheduler.stats().num_preemptions, 1);
    assert_eq!(scheduler.stats().num_running_reqs, 3);
    events.extend(run_to_idle(&mut scheduler, Vec::new()));
    let retractions = ["r1", "r2", "r3", "r4"].map(|name| answer(&events, name).1.num_retractions);
    assert_eq!(retractions, [0, 0, 1, 0]);
    let stats = scheduler.stats();
    // The third had one token when it went.
    assert_eq!((stats.retracted_input_tokens, stats.retracted_output_tokens), (80, 1));
}

#[test]
fn nobody_makes_room_in_vain() {
    let rules = PriorityRules { preemption_threshold: Some(0), ..PriorityRules::default() };
    let limits = SchedulerLimits { queue: with(rules), num_pages: 32, ..limits() };
    let mut scheduler = scheduler(limits);
    let msgs = [(1, 9, 300), (2, 0, 40)].map(|(number, priority, len)| {
        send(GenerateReq { priority: Some(priority), ..numbered(number, len, 10) })
    });
    let mut events = step(&mut scheduler, msgs.to_vec());
    // 300 tokens are of a higher priority still: 250 do not fit beside them.
    let middle = GenerateReq { priority: Some(5), ..numbered(3, 250, 10) };
    events.extend(run_to_idle(&mut scheduler, vec![send(middle)]));
    assert_eq!(scheduler.stats().num_preemptions, 0);
    assert_eq!(answer(&events, "r3").0.len(), 10);
}

/// Requests with 18 pages in common and this priority, beside two of priority 0; then one of
/// priority 5 that needs 17 of 32 pages. How many of them it sends back.
fn preempted_beside(shared: &[i64]) -> u64 {
    let rules = PriorityRules { preemption_threshold: Some(0), ..PriorityRules::default() };
    let limits = SchedulerLimits { queue: with(rules), num_pages: 32, ..limits() };
    let mut scheduler = scheduler(limits);
    let mut events = Vec::new();
    for (number, &priority) in (1..).zip(shared) {
        let mut req = GenerateReq { priority: Some(priority), ..numbered(number, 296, 10) };
        req.input_ids[..288].fill(7);
        events.extend(step(&mut scheduler, vec![send(req)]));
    }
    let high = GenerateReq { priority: Some(5), ..numbered(9, 250, 10) };
    events.extend(run_to_idle(&mut scheduler, vec![send(high)]));
    assert_eq!(answer(&events, "r9").0.len(), 10);
    scheduler.stats().num_preemptions
}

#[test]
fn pages_that_are_shared_are_freed_by_the_last_who_has_them() {
    assert_eq!(preempted_beside(&[9, 0, 0]), 0, "the first keeps what they share");
    assert_eq!(preempted_beside(&[0, 0]), 2, "it takes both");
}

#[test]
fn a_long_queue_is_not_matched_against_the_tree() {
    // Of 128 and of 129, the last has most of its prompt cached.
    for (policy, first_of_few, first_of_many) in [
        (SchedulePolicy::Lpm, 0, 1),
        (SchedulePolicy::DfsWeight, 0, 1),
        (SchedulePolicy::ShortestPrefillFirst, 0, 1),
    ] {
        for (count, first) in [(127, first_of_few), (128, first_of_many)] {
            let mut scheduler = scheduler(one_by_one(by(policy)));
            run_to_idle(&mut scheduler, vec![send(req("warm", prompt(49), 1))]);
            scheduler.executor_mut().batches.clear();
            let mut msgs: Vec<_> = (1..=count).map(|n| send(numbered(n, 40, 1))).collect();
            msgs.push(send(GenerateReq { input_ids: prompt(49), ..numbered(0, 1, 1) }));
            step(&mut scheduler, msgs);
            assert_eq!(order(&scheduler), [first], "{policy:?} {count}");
        }
    }
}

#[test]
fn a_prompt_in_pieces_gives_way_to_a_higher_priority_and_goes_on_behind_it() {
    let rules = PriorityRules { preemption_threshold: Some(0), ..PriorityRules::default() };
    let chunked_prefill_size = Some(32);
    let mut scheduler =
        scheduler(SchedulerLimits { queue: with(rules), chunked_prefill_size, ..limits() });
    let long = GenerateReq { priority: Some(0), ..numbered(1, 100, 1) };
    step(&mut scheduler, vec![send(long)]);
    let high = GenerateReq { priority: Some(1), ..numbered(2, 8, 1) };
    let events = run_to_idle(&mut scheduler, vec![send(high)]);
    let rows = |i: usize| {
        let rows = scheduler.executor().batches[i].rows.iter();
        rows.map(|row| (row.sampling.seed, row.prefix_len, row.extend_len)).collect::<Vec<_>>()
    };
    // What was prefilled is found again; 24 tokens are a page and a half, so one goes along.
    assert_eq!(rows(1), [(2, 0, 8), (1, 32, 16)]);
    assert_eq!(rows(2), [(1, 48, 32)]);
    assert_eq!(answer(&events, "r1").0, [100]);
    assert_eq!(scheduler.stats().num_preemptions, 1);
}

#[test]
fn retraction_by_priority_keeps_the_higher_one() {
    for (retraction, expected) in
        [(RetractionPolicy::Length, [0, 1]), (RetractionPolicy::Priority, [1, 0])]
    {
        let rules = PriorityRules { retraction, ..PriorityRules::default() };
        let limits = SchedulerLimits {
            queue: with(rules),
            num_pages: 4,
            schedule_conservativeness: 0.01,
            ..limits()
        };
        let mut scheduler = scheduler(limits);
        let old = GenerateReq { priority: Some(0), ..numbered(1, 8, 40) };
        let mut events = step(&mut scheduler, vec![send(old)]);
        let young = GenerateReq { priority: Some(1), ..numbered(2, 8, 35) };
        events.extend(run_to_idle(&mut scheduler, vec![send(young)]));
        let counts = ["r1", "r2"].map(|name| answer(&events, name).1.num_retractions);
        assert_eq!(counts, expected, "{retraction:?}");
    }
}

/// How many of 100 long requests begin before a short one that comes right behind them, with
/// 100 more coming after it, one a step.
fn begun_before(queue: QueueRules, short: GenerateReq) -> usize {
    let max_prefill_tokens = 200;
    let mut scheduler = scheduler(SchedulerLimits {
        queue,
        max_prefill_tokens,
        max_running_requests: 2,
        ..limits()
    });
    run_to_idle(&mut scheduler, vec![send(req("warm", prompt(33), 1))]);
    scheduler.executor_mut().batches.clear();
    let long = |number| send(numbered(number, 200, 4));
    let mut msgs: Vec<_> = (1..=100).map(long).collect();
    msgs.push(send(short));
    step(&mut scheduler, msgs);
    for number in 101..=200 {
        step(&mut scheduler, vec![long(number)]);
    }
    run_to_idle(&mut scheduler, Vec::new());
    let order = order(&scheduler);
    assert_eq!(order.len(), 201);
    order.iter().position(|&number| number == 0).expect("it is served")
}

/// The bound of each policy, for a request of 8 tokens behind 100 of 200.
#[test]
fn a_short_request_behind_a_hundred_long_ones_starts_within_its_policys_bound() {
    let short = || numbered(0, 8, 1);
    let cached = || GenerateReq { input_ids: prompt(40), ..short() };
    let urgent = || GenerateReq { priority: Some(1), ..short() };
    let priority = PriorityRules { preemption_threshold: Some(0), ..PriorityRules::default() };
    for (queue, short, most) in [
        // As many as were there; nobody who came later.
        (by(SchedulePolicy::Fcfs), short(), 100),
        // As many as have a longer prefix cached: none.
        (by(SchedulePolicy::Lpm), cached(), 0),
        (by(SchedulePolicy::DfsWeight), cached(), 0),
        // One, until something has been prefilled to wait for.
        (by(SchedulePolicy::Hrrn), short(), 1),
        (by(SchedulePolicy::ShortestPrefillFirst), short(), 0),
        // None if its output is as long as any, and longer.
        (by(SchedulePolicy::Lof), numbered(0, 8, 5), 0),
        // None with a lower priority.
        (with(PriorityRules::default()), urgent(), 0),
        (with(priority), urgent(), 0),
    ] {
        assert_eq!(begun_before(queue.clone(), short), most, "{queue:?}");
    }
    // Whoever a policy does not prefer waits with the others, or behind them all.
    assert_eq!(begun_before(by(SchedulePolicy::Lpm), short()), 100);
    assert_eq!(begun_before(by(SchedulePolicy::Lof), short()), 200, "lof has no bound");
    let places: Vec<_> = (0..30)
        .map(|random_seed| {
            let queue = QueueRules { random_seed, ..by(SchedulePolicy::Random) };
            begun_before(queue, short())
        })
        .collect();
    let mean = places.iter().sum::<usize>() as f64 / places.len() as f64;
    // Each of the 200 others is as likely before it as behind it.
    assert!((80.0..120.0).contains(&mean), "{places:?}");
}
