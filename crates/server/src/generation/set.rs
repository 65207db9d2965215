//! The sequences of one request, running side by side.

use std::{collections::HashSet, sync::Arc};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use protocol::{MAX_BATCH_SIZE, OneOrMany, native::SessionParams};
use tokenizer::TokenizerError;
use tokio::sync::mpsc;
use types::{EngineMsg, GenerateReq, Rid, TokenGrammar, TokenId};
use uuid::Uuid;

use super::{
    Prompts, SamplingSpec, grammar,
    prompt::check_prompt,
    sequence::{Sequence, SequenceFlags, SequenceParts, Update},
};
use crate::{
    AppState, error::ApiError, requests::Received, sessions::Turn, state::unix_seconds,
    trace::current_parent,
};

/// A validated request.
pub(crate) struct GenerationPlan {
    pub(crate) prompts: Prompts,
    /// One for each prompt, all with the same `n`.
    pub(crate) specs: Vec<SamplingSpec>,
    pub(crate) rid: Option<OneOrMany<String>>,
    pub(crate) flags: SequenceFlags,
    /// What the one prompt goes on from, if a session is named.
    pub(crate) session: Option<SessionParams>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct SequenceSet {
    running: FuturesUnordered<BoxFuture<'static, (Sequence, Result<Update, ApiError>)>>,
    /// Lent out by the last [`Self::next`].
    lent: Option<Sequence>,
    finished: Vec<Sequence>,
}

impl GenerationPlan {
    /// Counts if the server schedules by priority.
    pub(crate) fn with_priority(mut self, priority: Option<i64>) -> Self {
        self.specs.iter_mut().for_each(|spec| spec.priority = priority);
        self
    }

    /// Tokenizes the prompts and hands every sequence to the engine.
    ///
    /// # Errors
    /// Whatever is wrong with the request, a full queue, a server that stops.
    pub(crate) async fn start(self, state: &AppState) -> Result<SequenceSet, ApiError> {
        state.accept_requests()?;
        let names = self.names()?;
        let Self { prompts, specs, flags, session, .. } = self;
        if state.engine.model().pooled.is_some() && specs.iter().any(|spec| spec.pooling.is_none())
        {
            return Err(ApiError::value(
                "This model gives embeddings or scores and no tokens: use /v1/embeddings, \
                 /encode or /classify.",
            ));
        }
        let looks_at_text =
            |spec: &SamplingSpec| !spec.text.stop.is_empty() || !spec.text.stop_regex.is_empty();
        if !state.tokenizer.is_there() && specs.iter().any(looks_at_text) {
            return Err(ApiError::value(format!("stop strings: {}", TokenizerError::Skipped)));
        }
        let mut prompts = prompts.tokenize(state).await?;
        let session = session.filter(|session| session.id.is_some());
        let mut turn = match &session {
            Some(params) => Some(session_turn(state, params, &names, &mut prompts).await?),
            None => None,
        };
        for (ids, spec) in prompts.iter().zip(&specs) {
            check_prompt(state, ids)?;
            spec.check_length(ids.len(), state.engine.model().context_length)?;
            spec.logprobs.as_ref().map_or(Ok(()), |logprobs| logprobs.check(ids.len()))?;
        }
        let grammars = grammars(state, &specs, &prompts).await?;
        let mut names = names.into_iter();
        let mut set = SequenceSet::default();
        for ((ids, spec), grammar) in prompts.into_iter().zip(&specs).zip(grammars) {
            let ids: Arc<[TokenId]> = ids.into();
            for sample in 0..spec.n {
                let rid = names.next().expect("a name for each sequence");
                let index = set.running.len();
                let (mut req, mut parts) =
                    sequence(state, (rid, index), (&ids, spec, sample), flags)?;
                req.grammar.clone_from(&grammar);
                parts.turn = turn.take();
                set.submit(req, parts).await?;
            }
        }
        Ok(set)
    }

    /// A name for each sequence: the client's where it gave one for it.
    fn names(&self) -> Result<Vec<Rid>, ApiError> {
        let n = self.specs.first().map_or(1, |spec| spec.n);
        let (num_prompts, total) = (self.prompts.len(), self.prompts.len().saturating_mul(n));
        if total > MAX_BATCH_SIZE {
            let message = format!("at most {MAX_BATCH_SIZE} sequences a request, got {total}");
            return Err(ApiError::value(message));
        }
        let derived = |name: &str, i: usize| Rid::new(format!("{name}_{i}"));
        let names: Vec<Rid> = match &self.rid {
            None => (0..total).map(|_| Rid::new(Uuid::new_v4().simple().to_string())).collect(),
            Some(OneOrMany::One(name)) if total == 1 => vec![Rid::new(name.as_str())],
            Some(OneOrMany::One(name)) => (0..total).map(|i| derived(name, i)).collect(),
            Some(OneOrMany::Many(names)) if names.len() != num_prompts => {
                let got = names.len();
                return Err(ApiError::value(format!("{got} rids for {num_prompts} prompts")));
            }
            Some(OneOrMany::Many(names)) if n == 1 => {
                names.iter().map(|name| Rid::new(name.as_str())).collect()
            }
            Some(OneOrMany::Many(names)) => {
                names.iter().flat_map(|name| (0..n).map(|i| derived(name, i))).collect()
            }
        };
        let mut seen = HashSet::new();
        match names.iter().find(|name| !seen.insert(*name)) {
            Some(name) => Err(duplicate(name)),
            None => Ok(names),
        }
    }
}

/// Puts what the session has before the prompt.
///
/// # Errors
/// Several sequences, or a request that has no place in the session.
async fn session_turn(
    state: &AppState,
    params: &SessionParams,
    names: &[Rid],
    prompts: &mut [Vec<TokenId>],
) -> Result<Turn, ApiError> {
    let ([rid], [input]) = (names, prompts) else {
        return Err(ApiError::value("session_params are for one prompt and one sample of it."));
    };
    if state.is_claimed(rid) {
        return Err(duplicate(rid));
    }
    let id = params.id.as_deref().unwrap_or_default();
    let bos = state.tokenizer.bos_token_id();
    let begun = state.sessions.begin((id, params), rid, std::mem::take(input), bos);
    let begun = begun.map_err(|error| ApiError::value(error.to_string()))?;
    for rid in begun.replaced {
        state.engine.send(EngineMsg::Abort { rid: Some(rid) }).await?;
    }
    *input = begun.input_ids;
    Ok(begun.turn)
}

/// Those that the prompts' completions follow.
async fn grammars(
    state: &AppState,
    specs: &[SamplingSpec],
    prompts: &[Vec<TokenId>],
) -> Result<Vec<Option<Box<dyn TokenGrammar>>>, ApiError> {
    let mut grammars = Vec::with_capacity(specs.len());
    for (spec, prompt) in specs.iter().zip(prompts) {
        grammars.push(grammar::followed_by(state, spec, prompt).await?);
    }
    Ok(grammars)
}

fn duplicate(rid: &Rid) -> ApiError {
    ApiError::value(format!("Duplicate request ID detected: {rid}"))
}

/// Claims the name; from here on the parts must become a [`Sequence`].
fn sequence(
    state: &AppState,
    (rid, index): (Rid, usize),
    (ids, spec, sample): (&Arc<[TokenId]>, &SamplingSpec, usize),
    flags: SequenceFlags,
) -> Result<(GenerateReq, SequenceParts), ApiError> {
    if !state.claim(&rid) {
        return Err(duplicate(&rid));
    }
    let req = GenerateReq {
        rid: rid.clone(),
        input_ids: ids.to_vec(),
        sampling_params: spec.params_of(sample, state.config.default_sampling_seed),
        eos_token_ids: state.eos_token_ids.clone(),
        logprobs: spec.logprobs.as_ref().map(|logprobs| logprobs.params(ids.len())),
        grammar: None,
        pooling: spec.pooling,
        second_text: spec.second_text,
        priority: spec.priority,
    };
    let received = Received {
        rid: rid.as_str().to_owned(),
        prompt_ids: Arc::clone(ids),
        params: req.sampling_params.clone(),
        is_streaming: flags.is_streaming,
        at: unix_seconds() - flags.arrived.elapsed().as_secs_f64(),
        parent: current_parent(),
    };
    let parts = SequenceParts {
        state: state.clone(),
        received: Arc::new(received),
        rid,
        index,
        prompt_ids: Arc::clone(ids),
        text: spec.text.clone(),
        logprobs: spec.logprobs.clone(),
        flags,
        turn: None,
    };
    Ok((req, parts))
}

impl SequenceSet {
    /// The first sequence of a request is refused when the inbox is full; the
    /// others wait for room, or a batch larger than the inbox could never run.
    async fn submit(&mut self, req: GenerateReq, parts: SequenceParts) -> Result<(), ApiError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let state = parts.state.clone();
        let sequence = Sequence::new(parts, receiver);
        let message = EngineMsg::Generate { req: Box::new(req), events: sender };
        match self.running.is_empty() {
            true => state.engine.submit(message)?,
            false => state.engine.send(message).await?,
        }
        self.run(sequence);
        Ok(())
    }

    fn run(&mut self, mut sequence: Sequence) {
        self.running.push(Box::pin(async move {
            let update = sequence.advance().await;
            (sequence, update)
        }));
    }

    /// The next step of any sequence; `None` when all have ended.
    ///
    /// # Errors
    /// The engine is gone.
    pub(crate) async fn next(&mut self) -> Option<Result<(&Sequence, Update), ApiError>> {
        if let Some(sequence) = self.lent.take() {
            self.run(sequence);
        }
        let (sequence, update) = self.running.next().await?;
        let update = match update {
            Ok(update) => update,
            Err(error) => return Some(Err(error)),
        };
        let sequence = match sequence.finish_reason() {
            Some(_) => {
                self.finished.push(sequence);
                self.finished.last()
            }
            None => Some(&*self.lent.insert(sequence)),
        };
        sequence.map(|sequence| Ok((sequence, update)))
    }

    /// Those that have ended, in that order.
    pub(crate) fn finished(&self) -> &[Sequence] {
        &self.finished
    }

    /// Runs all to their end, in the order of the request.
    ///
    /// # Errors
    /// The engine is gone or gave a sequence up.
    pub(crate) async fn collect(mut self) -> Result<Vec<Sequence>, ApiError> {
        while let Some(step) = self.next().await {
            let (sequence, _) = step?;
            if let Some(error) = sequence.finish_reason().and_then(ApiError::from_abort) {
                return Err(error);
            }
        }
        self.finished.sort_by_key(Sequence::index);
        Ok(self.finished)
    }
}
