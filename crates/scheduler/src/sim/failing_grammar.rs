//! A grammar that fails, beside a request that follows none.

use types::{FinishReason, GenerateReq, GrammarError, NextTokens, Rid, TokenGrammar, TokenId};

use super::scenarios::{limits, req, scheduler};
use crate::{Progress, SchedulerEvent, SchedulerLimits, SchedulerMsg};

/// Allows what the recorder samples up to token number `fails_at`, and then fails to say
/// what comes next, or is given a token that it did not allow.
#[derive(Debug, Clone)]
struct Failing {
    num_accepted: usize,
    fails_at: usize,
    in_mask: bool,
}

impl TokenGrammar for Failing {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        match self.in_mask && self.num_accepted == self.fails_at {
            true => Err(GrammarError::DeadEnd),
            false => Ok(NextTokens::Of(vec![u32::MAX; 5])),
        }
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        if !self.in_mask && self.num_accepted == self.fails_at {
            return Err(GrammarError::Refused(token));
        }
        self.num_accepted += 1;
        Ok(())
    }

    fn rollback(&mut self, _: usize) -> Result<(), GrammarError> {
        Err(GrammarError::Rollback)
    }

    fn is_terminated(&self) -> bool {
        false
    }

    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        Box::new(self.clone())
    }
}

#[test]
fn a_grammar_that_fails_ends_its_request_alone() {
    for overlap in [false, true] {
        for in_mask in [false, true] {
            let mut scheduler = scheduler(SchedulerLimits { overlap, ..limits() });
            let grammar = Failing { num_accepted: 0, fails_at: 2, in_mask };
            let failing =
                GenerateReq { grammar: Some(Box::new(grammar)), ..req("a", vec![1; 4], 9) };
            let mut inbox = vec![
                SchedulerMsg::Generate(Box::new(failing)),
                SchedulerMsg::Generate(Box::new(req("b", vec![2; 4], 6))),
            ];
            let mut events = Vec::new();
            while scheduler.step(inbox.drain(..), &mut events).unwrap() == Progress::Busy {
                assert_eq!(scheduler.audit(), Ok(()), "overlap {overlap}, in the mask {in_mask}");
            }
            let (mut ends, mut tokens) = (Vec::new(), [0, 0]);
            for event in events {
                let SchedulerEvent::Req { rid, event } = event else { panic!("{event:?}") };
                tokens[usize::from(rid == Rid::new("b"))] += event.token_ids.len();
                ends.extend(event.finish_reason.map(|reason| (rid.to_string(), reason)));
            }
            let [(first, reason), (second, FinishReason::Length { length: 6 })] = &ends[..] else {
                panic!("{ends:?}");
            };
            assert_eq!((first.as_str(), second.as_str()), ("a", "b"));
            assert!(matches!(reason, FinishReason::Abort { status_code: 400, .. }), "{reason:?}");
            assert_eq!(tokens, [if in_mask { 2 } else { 3 }, 6]);
            let masks = &scheduler.executor().masks;
            assert!(masks.iter().take(2).all(|masks| masks.len() == 1), "{masks:?}");
        }
    }
}
