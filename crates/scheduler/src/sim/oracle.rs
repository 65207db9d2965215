//! What each request must produce, from its own words alone: no batch, no
//! cache, no scheduler.

use types::{FinishReason, GenerateReq, MatchedStop, NextTokens, Pooling, TokenId, splitmix64};

/// Small, so that stop tokens and equal pages happen.
pub(super) const VOCAB_SIZE: u64 = 12;

/// Identifies a prefix: what K/V at its last position depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PrefixHash(u64);

impl PrefixHash {
    pub(super) const EMPTY: Self = Self(0);

    pub(super) fn push(self, token: TokenId) -> Self {
        Self(splitmix64(self.0 ^ (u64::from(token) + 1)))
    }

    /// The output of a "model" that is pooled; sums of a few thousand are exact.
    pub(super) fn output(self) -> f32 {
        (self.0 % 4096) as f32
    }

    /// The "model" and the "sampler": the next token after this prefix.
    pub(super) fn sample(self, temperature: f32, seed: u64, suppress: &[TokenId]) -> TokenId {
        let mut state = if temperature == 0.0 { self.0 } else { splitmix64(self.0 ^ seed) };
        loop {
            state = splitmix64(state);
            let token = (state % VOCAB_SIZE) as TokenId;
            if !suppress.contains(&token) {
                return token;
            }
        }
    }
}

/// The completion and the end of a request that nothing interrupts.
pub(super) fn complete(req: &GenerateReq, max_req_len: usize) -> (Vec<TokenId>, FinishReason) {
    let params = &req.sampling_params;
    let room = max_req_len - req.input_ids.len();
    let max_new_tokens = params.max_new_tokens.map_or(room, |max| max.min(room));
    let stops: Vec<_> = req.eos_token_ids.iter().chain(&params.stop_token_ids).copied().collect();
    let mut prefix = req.input_ids.iter().fold(PrefixHash::EMPTY, |hash, &id| hash.push(id));
    let mut output = Vec::new();
    let mut grammar = req.grammar.clone();
    while output.len() < max_new_tokens {
        let early = output.len() < params.min_new_tokens;
        let mut forbidden = if early { stops.clone() } else { Vec::new() };
        if let Some(grammar) = &mut grammar
            && let NextTokens::Of(mask) = grammar.next_tokens().expect("a next token")
        {
            let ids = 0..VOCAB_SIZE as TokenId;
            let is_allowed = |id: TokenId| mask[0] >> id & 1 == 1;
            if ids.clone().all(|id| !is_allowed(id) || forbidden.contains(&id)) {
                forbidden.clear();
            }
            forbidden.extend(ids.filter(|&id| !is_allowed(id)));
        }
        let seed = params.sampling_seed.unwrap_or(0);
        let token = prefix.sample(params.temperature, seed, &forbidden);
        output.push(token);
        prefix = prefix.push(token);
        let is_last = output.len() == max_new_tokens;
        if let Some(grammar) = &mut grammar {
            grammar.accept(token).expect("an allowed token");
            if !is_last && grammar.is_terminated() {
                return (output, FinishReason::Stop { matched: Some(MatchedStop::Token(token)) });
            }
        }
        if !early && !params.ignore_eos && stops.contains(&token) {
            return (output, FinishReason::Stop { matched: Some(MatchedStop::Token(token)) });
        }
    }
    let length = output.len();
    (output, FinishReason::Length { length })
}

/// The vector of a request that wants one.
pub(super) fn pooled(req: &GenerateReq) -> Option<Vec<f32>> {
    let mut prefix = PrefixHash::EMPTY;
    let outputs = req.input_ids.iter().map(|&id| {
        prefix = prefix.push(id);
        prefix.output()
    });
    let outputs: Vec<f32> = outputs.collect();
    let value = match req.pooling? {
        Pooling::Last => *outputs.last()?,
        Pooling::First => *outputs.first()?,
        Pooling::Mean => outputs.iter().sum::<f32>() / outputs.len() as f32,
    };
    Some(vec![value])
}
