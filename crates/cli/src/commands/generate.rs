//! `generate`: one prompt through the engine, without HTTP.
//!
//! Greedy unless a temperature is given, as a command line is used to compare.

use std::{
    io::{Stdout, Write, stdout},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use engine::StartedEngine;
use serde_json::json;
use tokenizer::{ChatTemplate, IncrementalDecoder, RenderOptions, Tokenizer};
use tokio::sync::mpsc;
use types::{
    EngineMsg, FinishReason, GenerateReq, ReqEvent, Rid, SamplingParams, TOP_K_ALL, TokenId,
};

use crate::{args::EngineArgs, logging, progress::progress, text, text::TemplateChoice};

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt")]
struct PromptArgs {
    /// The prompt's text.
    #[arg(long, required_unless_present = "input_ids", conflicts_with = "input_ids")]
    prompt: Option<String>,

    /// The prompt as token ids: 1,2,3.
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    input_ids: Option<Vec<TokenId>>,

    /// Put the prompt into the model's chat template, as the user's turn.
    #[arg(long, requires = "prompt")]
    chat: bool,

    /// The system's turn, with --chat.
    #[arg(long, requires = "chat", value_name = "TEXT")]
    system: Option<String>,

    /// A chat template by name or file instead of the model's own, as for launch-server.
    #[arg(long, requires = "chat", value_name = "NAME|FILE")]
    chat_template: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
struct SamplingArgs {
    /// Tokens to generate at most.
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    max_new_tokens: usize,

    /// 0: the most likely token.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,

    /// Choose among the most likely tokens that have this probability together.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,

    /// Choose among this many of the most likely tokens; -1: all.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    top_k: i64,

    /// Least probability relative to the most likely token.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,

    /// Makes a sampled answer repeatable.
    #[arg(long, value_name = "SEED")]
    sampling_seed: Option<u64>,

    /// Go on after an end-of-sequence token.
    #[arg(long)]
    ignore_eos: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// Print one JSON object instead of streaming text.
    #[arg(long)]
    json: bool,

    /// Instead of generating, write the prompt's logits to a safetensors file:
    /// `logits`, f32, [prompt tokens, vocabulary], and `input_ids`, int32.
    #[arg(long, value_name = "FILE")]
    dump_logits: Option<PathBuf>,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<ExitCode> {
    logging::init(&args.engine.observability.log_level)?;
    let config = args.engine.resolve()?;
    if let Some(file) = &args.output.dump_logits {
        let source = engine::inspect(&config, progress().as_ref())?;
        let (tokenizer, template) = text::load(&args.engine.model, &source, args.template())?;
        let prompt = args.prompt.ids(&tokenizer, template.as_ref())?;
        engine::dump_prompt_logits(&config, &prompt, file, progress().as_ref())?;
        return Ok(ExitCode::SUCCESS);
    }
    let started = Instant::now();
    let engine = engine::start(config, progress())?;
    let load_time = started.elapsed();
    let result = complete(args, &engine, load_time);
    // The engine may be gone already; what it died of is what `join` returns.
    let _ = engine.handle.submit(EngineMsg::Drain);
    engine.join()?;
    result.map(|()| ExitCode::SUCCESS)
}

fn complete(args: &GenerateArgs, engine: &StartedEngine, load_time: Duration) -> Result<()> {
    let (tokenizer, template) = text::load(&args.engine.model, &engine.text, args.template())?;
    let prompt = args.prompt.ids(&tokenizer, template.as_ref())?;
    let eos_token_ids = text::eos_token_ids(&engine.text, &tokenizer);
    let mut answer = Answer::new(&tokenizer, &prompt, !args.output.json);
    let submitted = Instant::now();
    let mut events = submit(args, engine, prompt, eos_token_ids)?;
    while let Some(event) = events.blocking_recv() {
        if answer.push(&event, submitted)? {
            break;
        }
    }
    answer.finish(args.output.json, load_time)
}

fn submit(
    args: &GenerateArgs,
    engine: &StartedEngine,
    prompt: Vec<TokenId>,
    eos_token_ids: Vec<TokenId>,
) -> Result<mpsc::UnboundedReceiver<ReqEvent>> {
    let model = engine.handle.model();
    engine::check_gives_tokens(model)?;
    if let Some(id) = prompt.iter().find(|&&id| id as usize >= model.vocab_size) {
        bail!("token id {id} is outside the vocabulary of {}", model.vocab_size);
    }
    let (sender, events) = mpsc::unbounded_channel();
    let req = Box::new(GenerateReq {
        rid: Rid::new("generate"),
        input_ids: prompt,
        sampling_params: args.sampling.params(model.vocab_size)?,
        eos_token_ids,
        logprobs: None,
        grammar: None,
        pooling: None,
        second_text: None,
        priority: None,
    });
    engine.handle.submit(EngineMsg::Generate { req, events: sender })?;
    Ok(events)
}

impl GenerateArgs {
    fn template(&self) -> TemplateChoice<'_> {
        let chat_template = self.prompt.chat_template.as_deref();
        TemplateChoice { chat_template, ..TemplateChoice::default() }
    }
}

impl PromptArgs {
    fn ids(&self, tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Result<Vec<TokenId>> {
        let ids = match (&self.input_ids, &self.prompt) {
            (Some(ids), _) => ids.clone(),
            (None, Some(prompt)) if self.chat => {
                let template = template.context("this model has no chat template")?;
                let system =
                    self.system.as_ref().map(|text| json!({"role": "system", "content": text}));
                let user = json!({"role": "user", "content": prompt});
                let messages: Vec<_> = system.into_iter().chain([user]).collect();
                let text = template.render(&messages, &RenderOptions::default())?;
                tokenizer.encode(&text, template.adds_special_tokens())?
            }
            (None, Some(prompt)) => tokenizer.encode(prompt, true)?,
            (None, None) => bail!("one of --prompt and --input-ids is needed"),
        };
        if ids.is_empty() {
            bail!("the prompt is empty");
        }
        Ok(ids)
    }
}

impl SamplingArgs {
    fn params(&self, vocab_size: usize) -> Result<SamplingParams> {
        let top_k = match self.top_k {
            -1 => TOP_K_ALL,
            other => u32::try_from(other).context("--top-k must be -1 or at least 1")?,
        };
        let params = SamplingParams {
            max_new_tokens: Some(self.max_new_tokens),
            ignore_eos: self.ignore_eos,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k,
            min_p: self.min_p,
            sampling_seed: self.sampling_seed,
            ..SamplingParams::default()
        };
        Ok(params.normalized(vocab_size)?)
    }
}

/// What came back so far.
struct Answer {
    decoder: IncrementalDecoder,
    stream: Option<Stdout>,
    output_ids: Vec<TokenId>,
    text: String,
    last: Option<ReqEvent>,
    first_token: Option<Duration>,
    end: Duration,
}

impl Answer {
    fn new(tokenizer: &Tokenizer, prompt: &[TokenId], stream: bool) -> Self {
        Self {
            decoder: IncrementalDecoder::after_prompt(tokenizer, true, prompt),
            stream: stream.then(stdout),
            output_ids: Vec::new(),
            text: String::new(),
            last: None,
            first_token: None,
            end: Duration::ZERO,
        }
    }

    /// True after the last event.
    fn push(&mut self, event: &ReqEvent, submitted: Instant) -> Result<bool> {
        self.end = submitted.elapsed();
        if !event.token_ids.is_empty() {
            self.first_token.get_or_insert(self.end);
        }
        self.output_ids.extend(&event.token_ids);
        let last = event.finish_reason.is_some();
        let mut piece = self.decoder.push(&event.token_ids).to_owned();
        if last {
            piece.push_str(self.decoder.flush());
        }
        if let Some(stream) = &mut self.stream {
            stream.write_all(piece.as_bytes())?;
            stream.flush()?;
        }
        self.text.push_str(&piece);
        self.last = Some(event.clone());
        Ok(last)
    }

    fn finish(mut self, json: bool, load_time: Duration) -> Result<()> {
        let event = self.last.take().context("the engine gave no answer")?;
        if let Some(FinishReason::Abort { message, .. }) = event.finish_reason {
            bail!("{message}");
        }
        if !json {
            writeln!(stdout())?;
            return Ok(());
        }
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let first = self.first_token.unwrap_or(self.end);
        let rate = |tokens: usize, time: Duration| match time.as_secs_f64() {
            seconds if seconds > 0.0 => tokens as f64 / seconds,
            _ => 0.0,
        };
        let decoded = self.output_ids.len().saturating_sub(1);
        let report = json!({
            "output_ids": self.output_ids,
            "text": self.text,
            "prompt_tokens": event.counts.prompt_tokens,
            "finish_reason": event.finish_reason,
            "timings": {
                "load_ms": ms(load_time),
                "ttft_ms": ms(first),
                "total_ms": ms(self.end),
                "prefill_tps": rate(event.counts.prompt_tokens, first),
                "decode_tps": rate(decoded, self.end.saturating_sub(first)),
            },
        });
        writeln!(stdout(), "{report}")?;
        Ok(())
    }
}
