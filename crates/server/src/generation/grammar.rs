//! From what a request asks its completion to follow, to the grammar.
//!
//! Upstream: `sglang/srt/constrained/grammar_manager.py`.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use constrained::{
    AfterReasoning, CompileError, GrammarBackendEntry, GrammarCompiler, GrammarKind, GrammarSpec,
    JsonOptions, ThinkingBudget, Vocabulary,
};
use protocol::{
    native::SamplingJson,
    openai::{AnswerGrammar, ResponseFormat},
};
use tokio::sync::Semaphore;
use types::{TokenGrammar, TokenId};

use super::SamplingSpec;
use crate::{AppState, error::ApiError, state::run_job};

/// Grammars compiled at once.
const MAX_JOBS: usize = 2;
/// A grammar is waited for so long, its turn included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// `--grammar-backend` and what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct GrammarConfig {
    /// What compiles grammars.
    pub backend: &'static GrammarBackendEntry,
    /// How JSON is spaced.
    pub json: JsonOptions,
}

impl Default for GrammarConfig {
    fn default() -> Self {
        let backend = constrained::find(constrained::DEFAULT_BACKEND);
        Self {
            backend: backend.expect("the default is in the table"),
            json: JsonOptions::default(),
        }
    }
}

/// What a completion follows, and from where on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Constraint {
    pub(crate) spec: GrammarSpec,
    /// The tokens after which the grammar begins; `None`: with the completion.
    pub(crate) after: Option<Arc<[TokenId]>>,
}

impl Constraint {
    pub(crate) fn new(spec: GrammarSpec) -> Self {
        Self { spec, after: None }
    }
}

/// The compiler of the server, made when the first grammar comes.
pub(crate) struct Grammars {
    config: GrammarConfig,
    compiler: OnceLock<Result<GrammarCompiler, String>>,
    jobs: Arc<Semaphore>,
}

impl Grammars {
    pub(crate) fn new(config: GrammarConfig) -> Self {
        let jobs = Arc::new(Semaphore::new(MAX_JOBS));
        Self { config, compiler: OnceLock::new(), jobs }
    }

    /// The grammar at its beginning, if it was asked for before.
    fn kept(&self, spec: &GrammarSpec) -> Option<Result<Box<dyn TokenGrammar>, ApiError>> {
        let grammar = self.compiler.get()?.as_ref().ok()?.cached(spec)?;
        Some(grammar.map_err(|error| ApiError::value(error.to_string())))
    }

    /// Blocks while the vocabulary is read.
    fn compiler(&self, state: &AppState) -> Result<&GrammarCompiler, ApiError> {
        let new = || -> Result<GrammarCompiler, String> {
            let new = self.config.backend.new.ok_or_else(|| {
                "Grammar-based generation (json_schema, regex, ebnf, structural_tag) is not \
                 supported when the server is launched with --grammar-backend none"
                    .to_owned()
            })?;
            let vocab_size = state.engine.model().vocab_size;
            let vocabulary = Vocabulary::new(&state.tokenizer, vocab_size, &state.eos_token_ids);
            let backend = vocabulary
                .and_then(|vocabulary| new(&Arc::new(vocabulary), self.config.json.clone()))
                .map_err(|error| format!("No grammar can be followed: {error}."))?;
            Ok(GrammarCompiler::new(backend))
        };
        let compiler = self.compiler.get_or_init(new);
        compiler.as_ref().map_err(|message| ApiError::value(message.clone()))
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The grammar that sampling parameters ask for. An empty text is none, as upstream.
///
/// # Errors
/// More than one.
pub(crate) fn constraint_of(json: &mut SamplingJson) -> Result<Option<Constraint>, ApiError> {
    let texts = [
        (GrammarKind::JsonSchema, json.json_schema.take()),
        (GrammarKind::Regex, json.regex.take()),
        (GrammarKind::Ebnf, json.ebnf.take()),
        (GrammarKind::StructuralTag, json.structural_tag.take()),
    ];
    let given = texts.into_iter().filter_map(|(kind, text)| {
        text.filter(|text| !text.is_empty()).map(|text| GrammarSpec::new(kind, text))
    });
    match given.collect::<Vec<_>>().as_slice() {
        [] => Ok(None),
        [spec] => Ok(Some(Constraint::new(spec.clone()))),
        _ => Err(ApiError::value(
            "Only one of regex, json_schema, ebnf, or structural_tag can be set.",
        )),
    }
}

/// What the completions of a prompt follow, at their beginning.
///
/// # Errors
/// A grammar that cannot be compiled, or not in time; a budget for reasoning that nothing
/// tells from the answer.
pub(crate) async fn followed_by(
    state: &AppState,
    spec: &SamplingSpec,
    prompt: &[TokenId],
) -> Result<Option<Box<dyn TokenGrammar>>, ApiError> {
    let grammar = match &spec.grammar {
        Some(constraint) => Some(compile(state, constraint).await?),
        None => None,
    };
    let budget = spec.thinking_budget;
    let Some(marks) = state.reasoning_marks.clone() else {
        return match budget {
            None => Ok(grammar),
            Some(_) => Err(ApiError::value("A budget for reasoning needs a --reasoning-parser.")),
        };
    };
    if budget.is_none() && marks.excluded.is_empty() {
        return Ok(grammar);
    }
    let begins_inside = match spec.begins_inside {
        Some(begins_inside) => begins_inside,
        None => {
            let (job_state, prompt) = (state.clone(), prompt.to_vec());
            state.run_text_job(move || Ok(is_open(&job_state, &prompt))).await?
        }
    };
    let vocab_size = state.engine.model().vocab_size;
    let budget = ThinkingBudget::new(marks, budget, begins_inside, vocab_size, grammar);
    Ok(Some(Box::new(budget)))
}

/// Whether a prompt ends inside of reasoning. By its text: there is more than one way to spell
/// a mark that is no token.
fn is_open(state: &AppState, prompt: &[TokenId]) -> bool {
    let Some(entry) = state.config.parsers.reasoning else { return false };
    let text = state.tokenizer.decode(prompt, false);
    text.rfind(entry.begin).is_some_and(|begins_at| !text[begins_at..].contains(entry.end))
}

/// The grammar at its beginning. One that is not kept is compiled off the async threads;
/// whoever waits too long is told so, and what is compiled is kept for others.
///
/// # Errors
/// A grammar that cannot be compiled, or not in time.
async fn compile(
    state: &AppState,
    constraint: &Constraint,
) -> Result<Box<dyn TokenGrammar>, ApiError> {
    let Constraint { spec, after } = constraint;
    let metrics = &state.metrics.grammar;
    metrics.observe_request();
    let grammar = match state.grammars.kept(spec) {
        Some(kept) => {
            metrics.observe_cache_hit();
            kept
        }
        None => {
            let _waiting = metrics.wait();
            compile_in_turn(state, spec).await
        }
    };
    let grammar = grammar.inspect_err(|_| metrics.observe_aborted())?;
    match after {
        Some(after) => Ok(Box::new(AfterReasoning::new(Arc::clone(after), grammar))),
        None => Ok(grammar),
    }
}

async fn compile_in_turn(
    state: &AppState,
    spec: &GrammarSpec,
) -> Result<Box<dyn TokenGrammar>, ApiError> {
    let (job_state, job_spec) = (state.clone(), spec.clone());
    // Beside the compilation, whose panics are caught, there is what it needs of the vocabulary.
    let panicked = ApiError::value(CompileError::Panicked { kind: spec.kind }.to_string());
    let work = run_job(&state.grammars.jobs, panicked, move || {
        let begin = Instant::now();
        let grammar = job_state.grammars.compiler(&job_state)?.compile(&job_spec);
        job_state.metrics.grammar.observe_compilation(begin.elapsed().as_secs_f64());
        grammar.map_err(|error| ApiError::value(error.to_string()))
    });
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| {
        state.metrics.grammar.observe_timeout();
        Err(ApiError::value(format!("Grammar preprocessing timed out: {}", spec.kind)))
    })
}

/// What `response_format` asks for.
///
/// # Errors
/// A format that lacks its schema.
pub(crate) fn response_grammar(format: Option<&ResponseFormat>) -> Result<AnswerGrammar, ApiError> {
    format.map_or_else(
        || Ok(AnswerGrammar::default()),
        |format| format.grammar().map_err(ApiError::value),
    )
}
