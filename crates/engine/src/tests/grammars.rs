//! Requests that follow grammars, beside others that do not.

use types::{GrammarError, NextTokens, TokenGrammar};

use super::*;

/// Lets a third of the vocabulary pass, which third all tokens so far decide; ends with
/// token 2 after so many tokens.
#[derive(Debug, Clone)]
struct Thirds {
    accepted: Vec<TokenId>,
    len: usize,
}

impl Thirds {
    fn allows(&self, token: TokenId) -> bool {
        let sum: TokenId = self.accepted.iter().sum();
        match self.accepted.len() < self.len {
            true => token != 2 && (token + sum).is_multiple_of(3),
            false => token == 2,
        }
    }
}

impl TokenGrammar for Thirds {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        let mut mask = vec![0; VOCAB.div_ceil(32)];
        let allowed = (0..VOCAB).filter(|&token| self.allows(token as TokenId));
        allowed.for_each(|token| mask[token / 32] |= 1 << (token % 32));
        Ok(NextTokens::Of(mask))
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        let allowed = self.allows(token);
        self.accepted.push(token);
        if allowed { Ok(()) } else { Err(GrammarError::Refused(token)) }
    }

    fn rollback(&mut self, _: usize) -> Result<(), GrammarError> {
        Err(GrammarError::Rollback)
    }

    fn is_terminated(&self) -> bool {
        self.accepted.len() > self.len
    }

    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        Box::new(self.clone())
    }
}

#[test]
fn grammars_are_followed_and_disturb_nobody() {
    let _alone = alone();
    let folder = tiny_llama();
    let base = config(folder.path());
    let free = run(&base, &requests(), true).tokens;
    let mut requests = requests();
    for (index, len) in [(0, 9), (1, 12), (3, 15), (6, 30)] {
        requests[index].grammar = Some(Box::new(Thirds { accepted: Vec::new(), len }));
        // The end of the grammar comes first.
        requests[index].sampling_params.min_new_tokens = len + 2;
    }
    let together = run(&base, &requests, true).tokens;
    for (index, req) in requests.iter().enumerate() {
        let tokens = &together[index];
        let Some(grammar) = &req.grammar else {
            assert_eq!(tokens, &free[index], "request {index} follows nothing");
            continue;
        };
        let mut grammar = grammar.clone();
        assert!(tokens.iter().all(|&token| grammar.accept(token).is_ok()), "{index}: {tokens:?}");
        let max = req.sampling_params.max_new_tokens.unwrap();
        assert!(grammar.is_terminated() || tokens.len() == max, "{index}: {tokens:?}");
        assert_ne!(tokens[..9], free[index][..9], "request {index} would say something else");
    }
    assert_eq!(run(&base, &requests, false).tokens, together, "one after the other");
    let schedule = ScheduleConfig { overlap: Overlap::Off, ..base.schedule.clone() };
    let no_overlap = EngineConfig { schedule, ..base.clone() };
    assert_eq!(run(&no_overlap, &requests, true).tokens, together, "without overlap");
    let copies = EngineConfig {
        prefill_attention_backend: "sdpa".to_owned(),
        decode_attention_backend: "sdpa".to_owned(),
        ..base
    };
    assert_eq!(run(&copies, &requests, true).tokens, together, "steps handed over late");
}
