//! Named situations, each with its exact outcome.

use std::sync::Arc;

use mem_cache::PageTables;
use types::{
    FinishReason, GenerateReq, LogprobParams, MatchedStop, ReqCounts, Rid, SamplingParams, TokenId,
};

use crate::{
    BatchOutput, Executor, ForwardMode, InputId, PrefillSharing, Progress, QueueRules, RowMask,
    ScheduleBatch, SchedulePolicy, Scheduler, SchedulerEvent, SchedulerLimits, SchedulerMsg,
};

/// Notes every batch. A sampled token says which of its completion it is: 100
/// and up.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub(super) batches: Vec<ScheduleBatch>,
    /// Of each constrained batch.
    pub(super) masks: Vec<Vec<RowMask>>,
    /// Fail the launch of this index.
    fails_at: Option<usize>,
}

impl Executor for Recorder {
    type Handle = usize;
    type Error = &'static str;

    fn launch(&mut self, batch: &ScheduleBatch, _: &PageTables) -> Result<usize, &'static str> {
        if self.fails_at == Some(self.batches.len()) {
            return Err("device lost");
        }
        self.batches.push(batch.clone());
        Ok(self.batches.len() - 1)
    }

    fn sample(
        &mut self,
        _: &mut usize,
        _: &ScheduleBatch,
        masks: &[RowMask],
    ) -> Result<(), &'static str> {
        self.masks.push(masks.to_vec());
        Ok(())
    }

    fn wait(&mut self, handle: usize) -> Result<BatchOutput, &'static str> {
        let rows = self.batches[handle].sampled_rows();
        let tokens = rows.map(|row| 100 + row.sampling.token_index as TokenId);
        Ok(tokens.collect::<Vec<_>>().into())
    }
}

pub(super) fn limits() -> SchedulerLimits {
    SchedulerLimits { num_pages: 128, overlap: false, ..Default::default() }
}

pub(super) fn scheduler(limits: SchedulerLimits) -> Scheduler<Recorder> {
    Scheduler::new(Recorder::default(), limits).unwrap()
}

pub(super) fn req(rid: &str, input_ids: Vec<TokenId>, max_new_tokens: usize) -> GenerateReq {
    GenerateReq {
        rid: Rid::new(rid),
        input_ids,
        sampling_params: SamplingParams {
            max_new_tokens: Some(max_new_tokens),
            ..Default::default()
        },
        eos_token_ids: Vec::new(),
        logprobs: None,
        grammar: None,
        pooling: None,
        second_text: None,
        priority: None,
    }
}

pub(super) fn send(req: GenerateReq) -> SchedulerMsg {
    SchedulerMsg::Generate(Box::new(req))
}

pub(super) fn step(
    scheduler: &mut Scheduler<Recorder>,
    msgs: Vec<SchedulerMsg>,
) -> Vec<SchedulerEvent> {
    let mut out = Vec::new();
    scheduler.step(msgs, &mut out).unwrap();
    assert_eq!(scheduler.audit(), Ok(()));
    out
}

pub(super) fn run_to_idle(
    scheduler: &mut Scheduler<Recorder>,
    msgs: Vec<SchedulerMsg>,
) -> Vec<SchedulerEvent> {
    let mut out = Vec::new();
    let mut msgs = Some(msgs);
    while scheduler.step(msgs.take().unwrap_or_default(), &mut out).unwrap() == Progress::Busy {
        assert_eq!(scheduler.audit(), Ok(()));
    }
    out
}

/// Tokens, counts and end of one request.
pub(super) fn answer(
    events: &[SchedulerEvent],
    name: &str,
) -> (Vec<TokenId>, ReqCounts, FinishReason) {
    let (mut tokens, mut last) = (Vec::new(), None);
    for event in events {
        if let SchedulerEvent::Req { rid, event } = event
            && rid.as_str() == name
        {
            assert!(last.is_none(), "an event after the last");
            tokens.extend(&event.token_ids);
            last = event.finish_reason.clone().map(|reason| (event.counts, reason));
        }
    }
    let (counts, reason) = last.expect("an end");
    (tokens, counts, reason)
}

/// `(prefix_len, extend_len, sampled)` of each row of a batch.
pub(super) fn shape(batch: &ScheduleBatch) -> Vec<(usize, usize, bool)> {
    batch.rows.iter().map(|row| (row.prefix_len, row.extend_len, row.sampled)).collect()
}

pub(super) fn prompt(len: usize) -> Vec<TokenId> {
    (0..len as TokenId).collect()
}

#[test]
fn a_stop_token_in_the_last_place_ends_a_completion_that_is_whole() {
    let mut scheduler = scheduler(limits());
    let mut req = req("a", prompt(1000), 4);
    req.sampling_params.stop_token_ids = vec![103];
    let events = run_to_idle(&mut scheduler, vec![send(req)]);
    let (tokens, _, reason) = answer(&events, "a");
    assert_eq!(tokens, [100, 101, 102, 103]);
    assert_eq!(reason, FinishReason::Stop { matched: Some(MatchedStop::Token(103)) });
}

#[test]
fn a_second_request_finds_the_prefix_of_the_first() {
    let mut scheduler = scheduler(limits());
    run_to_idle(&mut scheduler, vec![send(req("a", prompt(1000), 4))]);
    let mut second = prompt(1000);
    second.extend([7, 8, 9]);
    let events = run_to_idle(&mut scheduler, vec![send(req("b", second, 4))]);
    let (tokens, counts, reason) = answer(&events, "b");
    assert_eq!(tokens, [100, 101, 102, 103]);
    assert_eq!(reason, FinishReason::Length { length: 4 });
    assert_eq!(
        counts,
        ReqCounts {
            prompt_tokens: 1003,
            completion_tokens: 4,
            cached_tokens: 992,
            ..ReqCounts::default()
        }
    );
    let stats = scheduler.stats();
    assert_eq!((stats.prompt_tokens, stats.cached_tokens), (2003, 992));
    // The shared pages, once; neither filled another.
    assert_eq!(stats.num_evictable_tokens, 992);
    assert_eq!(stats.num_used_tokens(), 0);
}

#[test]
fn long_prompts_go_in_chunks_of_whole_pages() {
    let limits = SchedulerLimits { chunked_prefill_size: Some(40), ..limits() };
    let mut scheduler = scheduler(limits);
    let msgs = vec![send(req("a", prompt(90), 2)), send(req("b", vec![500; 10], 2))];
    run_to_idle(&mut scheduler, msgs);
    let batches = &scheduler.executor().batches;
    assert_eq!(shape(&batches[0]), [(0, 32, false)]);
    assert_eq!(shape(&batches[1]), [(32, 32, false)]);
    // The rest leaves 14 tokens of the budget to the next request.
    assert_eq!(shape(&batches[2]), [(64, 26, true), (0, 10, true)]);
    assert_eq!(batches[3].mode, ForwardMode::Decode);
    assert_eq!(shape(&batches[3]), [(90, 1, true), (10, 1, true)]);
    assert_eq!(batches[3].input_ids, [InputId::Host(100), InputId::Host(100)]);
    assert_eq!(batches[3].positions, [90, 10]);
    assert_eq!(batches.len(), 4);
}

/// Runs two streams, then sends a long prompt; gives the batches from there on.
fn beside_two_streams(
    decodes_per_piece: usize,
    msgs: impl Fn(usize) -> Vec<SchedulerMsg>,
) -> Vec<ScheduleBatch> {
    let prefill_sharing = Some(PrefillSharing { above: 64, chunk: 32 });
    let mut scheduler = scheduler(SchedulerLimits { prefill_sharing, ..limits() });
    scheduler.set_decodes_per_piece(decodes_per_piece);
    let mut events = Vec::new();
    let streams = ["s", "t"].map(|rid| send(req(rid, vec![rid.len() as TokenId; 8], 100)));
    scheduler.step(streams, &mut events).unwrap();
    let before = scheduler.executor().batches.len();
    for step in 0..40 {
        scheduler.step(msgs(step), &mut events).unwrap();
    }
    scheduler.executor().batches[before..].to_vec()
}

#[test]
fn streams_get_a_token_between_two_pieces_of_a_long_prompt() {
    let long = |step| match step {
        0 => vec![send(req("long", prompt(200), 1))],
        _ => Vec::new(),
    };
    for decodes in [1, 3] {
        let batches = beside_two_streams(decodes, long);
        let mut pieces = Vec::new();
        for turn in batches[..7 * (1 + decodes)].chunks(1 + decodes) {
            pieces.extend(shape(&turn[0]));
            for decode in &turn[1..] {
                assert_eq!((decode.mode, decode.rows.len() >= 2), (ForwardMode::Decode, true));
            }
        }
        // To its end, though what is left would have come in one piece.
        let expected: Vec<_> = (0..7).map(|i| (32 * i, (200 - 32 * i).min(32), i == 6)).collect();
        assert_eq!(pieces, expected);
    }
}

#[test]
fn a_short_prompt_waits_for_one_piece_of_a_long_one() {
    let msgs = |step| match step {
        0 => vec![send(req("long", prompt(400), 1))],
        2 => ["a", "b"].map(|rid| send(req(rid, vec![rid.as_bytes()[0].into(); 20], 1))).to_vec(),
        _ => Vec::new(),
    };
    for decodes in [1, 5] {
        let batches = beside_two_streams(decodes, msgs);
        assert_eq!(shape(&batches[0]), [(0, 32, false)]);
        assert_eq!(batches[1].mode, ForwardMode::Decode);
        assert_eq!(shape(&batches[2]), [(0, 20, true), (0, 20, true)], "the short ones, together");
        let next = batches[3..].iter().position(|batch| batch.mode == ForwardMode::Extend);
        assert_eq!(next, Some(decodes), "the streams again");
        assert_eq!(shape(&batches[3 + decodes]), [(32, 32, false)], "then the long one");
    }
}

#[test]
fn equal_prompts_wait_for_the_first_of_them() {
    let mut scheduler = scheduler(limits());
    let msgs = ["a", "b", "c"].map(|rid| send(req(rid, prompt(40), 1)));
    run_to_idle(&mut scheduler, msgs.to_vec());
    let batches = &scheduler.executor().batches;
    assert_eq!(shape(&batches[0]), [(0, 40, true)]);
    assert_eq!(shape(&batches[1]), [(32, 8, true), (32, 8, true)]);
    assert_eq!(batches.len(), 2);
}

#[test]
fn lpm_admits_the_longest_cached_prefix_first_and_fcfs_the_first() {
    for (policy, num_waiting, order) in [
        (SchedulePolicy::Fcfs, 2, [0, 32]),
        (SchedulePolicy::Lpm, 2, [32, 0]),
        (SchedulePolicy::Lpm, 129, [0, 32]),
    ] {
        let queue = QueueRules { policy, ..QueueRules::default() };
        let limits = SchedulerLimits { queue, max_running_requests: 1, ..limits() };
        let mut scheduler = scheduler(limits);
        run_to_idle(&mut scheduler, vec![send(req("warm", prompt(40), 1))]);
        let mut msgs = vec![send(req("new", vec![900; 40], 1)), send(req("old", prompt(40), 1))];
        for i in msgs.len()..num_waiting {
            msgs.push(send(req(&format!("r{i}"), vec![901], 1)));
        }
        run_to_idle(&mut scheduler, msgs);
        let batches = &scheduler.executor().batches;
        let prefix_lens = [batches[1].rows[0].prefix_len, batches[2].rows[0].prefix_len];
        assert_eq!(prefix_lens, order, "{policy:?} with {num_waiting} waiting");
    }
}

#[test]
fn overlap_launches_before_it_reads_and_drops_what_follows_an_eos() {
    let mut scheduler = scheduler(SchedulerLimits { overlap: true, ..limits() });
    let mut a = req("a", prompt(5), 10);
    a.eos_token_ids = vec![101];
    assert_eq!(step(&mut scheduler, vec![send(a), send(req("b", prompt(3), 10))]), []);
    let events = step(&mut scheduler, vec![]);
    assert_eq!(events.len(), 2, "the prefill's tokens, as the first decode runs");
    let decode = &scheduler.executor().batches[1];
    assert_eq!(decode.input_ids, [InputId::Previous { row: 0 }, InputId::Previous { row: 1 }]);

    let events = step(&mut scheduler, vec![]);
    let (_, counts, reason) = answer(&events, "a");
    assert_eq!(reason, FinishReason::Stop { matched: Some(MatchedStop::Token(101)) });
    assert_eq!(counts.completion_tokens, 2);
    // It sits in the batch launched before its end was known, and in no later one.
    assert_eq!(scheduler.executor().batches[2].rows.len(), 2);
    let events = step(&mut scheduler, vec![]);
    assert!(matches!(&events[..], [SchedulerEvent::Req { rid, .. }] if rid.as_str() == "b"));
    let decode = &scheduler.executor().batches[3];
    assert_eq!(decode.rows.len(), 1);
    assert_eq!(decode.input_ids, [InputId::Previous { row: 1 }]);
    let events = run_to_idle(&mut scheduler, vec![]);
    assert_eq!(answer(&events, "b").1.completion_tokens, 10);
}

#[test]
fn without_overlap_each_step_reads_its_own_batch() {
    let mut scheduler = scheduler(limits());
    assert_eq!(step(&mut scheduler, vec![send(req("a", prompt(5), 3))]).len(), 1);
    assert_eq!(step(&mut scheduler, vec![]).len(), 1);
    assert_eq!(scheduler.executor().batches[1].input_ids, [InputId::Host(100)]);
}

#[test]
fn bad_requests_are_refused_and_harm_nobody() {
    let mut scheduler =
        scheduler(SchedulerLimits { num_pages: 4, context_length: 200, ..limits() });
    let refusals = [
        (req("a", prompt(4), 1), "Duplicate request ID: a"),
        (req("b", vec![], 1), "The prompt is empty."),
        (
            req("c", prompt(200), 1),
            "The input (200 tokens) is longer than the model's context length (200 tokens).",
        ),
        (req("d", prompt(65), 1), "The input (65 tokens) is longer than the K/V pool (64 tokens)."),
    ];
    let mut msgs = vec![send(req("a", prompt(4), 3))];
    msgs.extend(refusals.iter().map(|(req, _)| send(req.clone())));
    let events = run_to_idle(&mut scheduler, msgs);
    for ((req, text), event) in refusals.iter().zip(&events) {
        let SchedulerEvent::Refused { rid, reason } = event else { panic!("{event:?}") };
        let FinishReason::Abort { message, status_code: 400, err_type } = reason else {
            panic!("{reason:?}")
        };
        assert_eq!((rid, &message[..], &err_type[..]), (&req.rid, *text, "BadRequestError"));
    }
    assert_eq!(answer(&events, "a").0, [100, 101, 102]);
}

#[test]
fn no_new_tokens_means_prefill_only() {
    for overlap in [false, true] {
        let mut scheduler = scheduler(SchedulerLimits { overlap, ..limits() });
        let events = run_to_idle(&mut scheduler, vec![send(req("a", prompt(40), 0))]);
        let (tokens, counts, reason) = answer(&events, "a");
        assert!(tokens.is_empty());
        assert_eq!(counts.completion_tokens, 0);
        assert_eq!(reason, FinishReason::Length { length: 0 });
        assert_eq!(shape(&scheduler.executor().batches[0]), [(0, 40, false)]);
        assert_eq!(scheduler.stats().num_evictable_tokens, 32);
    }
}

#[test]
fn the_context_ends_a_request_without_a_limit() {
    let mut scheduler = scheduler(SchedulerLimits { context_length: 50, ..limits() });
    let mut a = req("a", prompt(40), 0);
    a.sampling_params.max_new_tokens = None;
    let events = run_to_idle(&mut scheduler, vec![send(a), send(req("b", prompt(45), 99))]);
    assert_eq!(answer(&events, "a").2, FinishReason::Length { length: 10 });
    assert_eq!(answer(&events, "b").2, FinishReason::Length { length: 5 });
}

#[test]
fn stop_tokens_are_suppressed_until_min_new_tokens_then_obeyed() {
    let mut scheduler = scheduler(limits());
    let mut a = req("a", prompt(4), 10);
    a.eos_token_ids = vec![1, 102];
    a.sampling_params.stop_token_ids = vec![104];
    a.sampling_params.min_new_tokens = 3;
    let events = run_to_idle(&mut scheduler, vec![send(a.clone())]);
    // The recorder samples 102 against the rules: too early to count.
    let (tokens, _, reason) = answer(&events, "a");
    assert_eq!(tokens, [100, 101, 102, 103, 104]);
    assert_eq!(reason, FinishReason::Stop { matched: Some(MatchedStop::Token(104)) });
    let suppressed: Vec<_> = (scheduler.executor().batches.iter())
        .map(|batch| batch.rows[0].sampling.suppress.as_deref().map(<[_]>::to_vec))
        .collect();
    let all = Some(vec![1, 102, 104]);
    assert_eq!(suppressed, [all.clone(), all.clone(), all, None, None]);

    a.sampling_params.ignore_eos = true;
    let events = run_to_idle(&mut scheduler, vec![send(a)]);
    assert_eq!(answer(&events, "a").2, FinishReason::Length { length: 10 });
}

#[test]
fn the_cache_is_flushed_only_when_idle() {
    let mut scheduler = scheduler(limits());
    let msgs = vec![send(req("a", prompt(40), 2)), SchedulerMsg::FlushCache];
    let events = run_to_idle(&mut scheduler, msgs);
    assert_eq!(events[0], SchedulerEvent::CacheFlushed { ok: false });
    assert_eq!(scheduler.stats().num_evictable_tokens, 32);
    let events = step(&mut scheduler, vec![SchedulerMsg::FlushCache]);
    assert_eq!(events, [SchedulerEvent::CacheFlushed { ok: true }]);
    assert_eq!(scheduler.stats().num_free_tokens, 128 * 16);
}

#[test]
fn an_abort_frees_the_pages_at_once() {
    let mut scheduler = scheduler(SchedulerLimits { overlap: true, ..limits() });
    step(&mut scheduler, vec![send(req("a", prompt(40), 9)), send(req("b", vec![5; 9], 9))]);
    step(&mut scheduler, vec![]);
    let events = step(&mut scheduler, vec![SchedulerMsg::Abort(Rid::new("a"))]);
    assert_eq!(answer(&events, "a").2, FinishReason::aborted());
    assert_eq!(scheduler.stats().num_used_tokens(), 16, "the page of b");
    assert!(!scheduler.contains(&Rid::new("a")));
    let events = step(&mut scheduler, vec![SchedulerMsg::AbortAll]);
    assert_eq!(answer(&events, "b").2, FinishReason::aborted());
    assert_eq!(scheduler.stats().num_used_tokens(), 0);
    assert_eq!(scheduler.stats().num_aborted_reqs, 2);
    assert!(!scheduler.has_live_reqs());
}

#[test]
fn what_running_requests_may_generate_is_kept_free() {
    let limits = SchedulerLimits { num_pages: 8, page_size: 16, ..limits() };
    let mut scheduler = scheduler(limits);
    // 16 + 0.7 * 80 of 128 tokens: no room for 10 + 50 more.
    step(&mut scheduler, vec![send(req("a", prompt(16), 81)), send(req("b", vec![5; 10], 50))]);
    assert_eq!(scheduler.stats().num_running_reqs, 1);
    assert_eq!(scheduler.stats().num_waiting_reqs, 1);
    let events = run_to_idle(&mut scheduler, vec![]);
    assert_eq!(answer(&events, "b").0.len(), 50);
    assert_eq!(scheduler.stats().num_retractions, 0);
}

#[test]
fn retraction_takes_the_one_with_fewest_tokens_and_loses_none() {
    for overlap in [false, true] {
        let limits = SchedulerLimits {
            num_pages: 4,
            page_size: 16,
            schedule_conservativeness: 0.01,
            overlap,
            ..limits()
        };
        let mut scheduler = scheduler(limits);
        let mut events = step(&mut scheduler, vec![send(req("old", vec![5; 8], 40))]);
        let msgs = vec![send(req("young", vec![6; 8], 35))];
        events.extend(run_to_idle(&mut scheduler, msgs));
        let (tokens, counts, _) = answer(&events, "young");
        assert_eq!(counts.num_retractions, 1);
        assert_eq!(tokens, (100..135).collect::<Vec<_>>());
        let (tokens, counts, _) = answer(&events, "old");
        assert_eq!(counts.num_retractions, 0);
        assert_eq!(tokens, (100..140).collect::<Vec<_>>());
        assert_eq!(scheduler.stats().num_retractions, 1);
    }
}

#[test]
fn a_request_that_would_outgrow_the_pool_ends_with_it() {
    for overlap in [false, true] {
        let mut scheduler = scheduler(SchedulerLimits { num_pages: 2, overlap, ..limits() });
        let msgs = vec![send(req("a", prompt(20), 50)), send(req("b", prompt(32), 50))];
        let events = run_to_idle(&mut scheduler, msgs);
        for (rid, length) in [("a", 13), ("b", 1)] {
            let (tokens, _, reason) = answer(&events, rid);
            assert_eq!(reason, FinishReason::Length { length });
            assert_eq!(tokens.len(), length, "the last needs no slot of its own");
        }
        assert_eq!(scheduler.stats().num_used_tokens(), 0);
    }
}

#[test]
fn after_a_device_error_the_scheduler_can_go_on() {
    let mut scheduler = scheduler(SchedulerLimits { overlap: true, ..limits() });
    scheduler.executor_mut().fails_at = Some(2);
    let mut out = Vec::new();
    let msgs = vec![send(req("a", prompt(40), 9)), send(req("b", vec![5; 9], 9))];
    assert_eq!(scheduler.step(msgs, &mut out), Ok(Progress::Busy));
    assert_eq!(scheduler.step([], &mut out), Ok(Progress::Busy));
    assert_eq!(scheduler.step([], &mut out), Err("device lost"));
    scheduler.fail_all("device lost", &mut out);
    assert!(matches!(answer(&out, "a").2, FinishReason::Abort { status_code: 500, .. }));
    assert_eq!(scheduler.audit(), Ok(()));
    assert_eq!(scheduler.stats().num_free_tokens, 128 * 16);
    scheduler.executor_mut().fails_at = None;
    let events = run_to_idle(&mut scheduler, vec![send(req("c", prompt(40), 2))]);
    assert_eq!(answer(&events, "c").0, [100, 101]);
}

/// Their positions come in pieces, which are whole pages however large these are.
#[test]
fn log_probabilities_of_a_prompt_come_in_pieces() {
    for (page_size, pieces) in [(16, vec![512, 512, 476]), (1024, vec![1024, 476])] {
        let limits = SchedulerLimits { page_size, num_pages: 2048 / page_size, ..limits() };
        let mut scheduler = scheduler(SchedulerLimits { context_length: 2000, ..limits });
        let logprobs = LogprobParams { start_len: Some(0), ..LogprobParams::default() };
        let req = GenerateReq { logprobs: Some(Arc::new(logprobs)), ..req("a", prompt(1500), 1) };
        let events = run_to_idle(&mut scheduler, vec![send(req)]);
        assert_eq!(answer(&events, "a").0, [100]);
        let lens = scheduler.executor().batches.iter().map(|batch| batch.rows[0].extend_len);
        assert_eq!(lens.collect::<Vec<_>>(), pieces);
    }
}

#[test]
fn fewer_run_at_once_if_an_operator_says_so() {
    let mut scheduler = scheduler(limits());
    scheduler.limit_running(1);
    let msgs = vec![send(req("a", prompt(5), 3)), send(req("b", vec![9, 8, 7], 2))];
    let events = run_to_idle(&mut scheduler, msgs);
    assert_eq!(answer(&events, "a").0, [100, 101, 102]);
    assert_eq!(answer(&events, "b").0, [100, 101]);
    assert!(scheduler.executor().batches.iter().all(|batch| batch.rows.len() == 1));
    assert_eq!(scheduler.executor().batches.len(), 5);
}

#[test]
fn a_pause_with_retraction_frees_the_pool_and_changes_no_answer() {
    let mut scheduler = scheduler(SchedulerLimits { overlap: true, ..limits() });
    let long = SchedulerMsg::Generate(Box::new(req("long", prompt(100), 4)));
    let mut events = step(&mut scheduler, vec![send(req("a", vec![5, 6], 9)), long]);
    events.extend(step(&mut scheduler, vec![]));
    scheduler.pause();
    events.extend(step(&mut scheduler, vec![send(req("late", vec![7], 1))]));
    let num_batches = scheduler.executor().batches.len();
    scheduler.retract_all();
    let flush = vec![SchedulerMsg::FlushCache];
    assert_eq!(step(&mut scheduler, flush), [SchedulerEvent::CacheFlushed { ok: true }]);
    let stats = scheduler.stats();
    assert_eq!((stats.num_running_reqs, stats.num_waiting_reqs), (0, 3));
    assert_eq!(stats.num_free_tokens, stats.max_total_num_tokens);
    assert_eq!(scheduler.executor().batches.len(), num_batches, "nothing was launched");
    scheduler.resume();
    events.extend(run_to_idle(&mut scheduler, vec![]));
    assert_eq!(answer(&events, "a").0, (100..109).collect::<Vec<_>>());
    assert_eq!(answer(&events, "long").0, [100, 101, 102, 103]);
    assert_eq!(answer(&events, "late").0, [100]);
    // Those that lost their pages go first, in the order in which they came.
    let after = &scheduler.executor().batches[num_batches];
    assert_eq!(after.rows.iter().map(|row| row.sampled).collect::<Vec<_>>(), [true; 3]);
    assert_eq!(after.rows[2].extend_len, 1);
}
