//! The memory plan: what the weights take, what the K/V pool gets, what one
//! step may need on top. Made once at start, printed, exported, and refused if
//! it cannot hold; afterwards nothing long-lived is allocated any more.
//!
//! ```text
//! |<------------------------- memory_bytes ------------------------->|
//! |<-- mem_fraction_static ------------------------>|                |
//! | weights | K/V pool                              |  activations   |
//! ```
//!
//! The pool ends where the static share ends, or earlier if the activations of
//! the largest step need the room.
//!
//! Upstream: `sglang/srt/model_executor/model_runner_kv_cache_mixin.py`.

#[cfg(test)]
mod tests;
mod windows;

use std::fmt;

use mem_cache::{StateConfig, WindowConfig};
use nn::quant::MARK_BYTES;
use thiserror::Error;

use crate::{ChunkedPrefill, MemoryOptions, Platform};

/// The figures of a model that decide how much memory a step takes.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelShape {
    /// Bytes of its weights as loaded.
    pub weight_bytes: usize,
    /// Bytes of K and V of one token, over all layers.
    pub kv_bytes_per_token: usize,
    /// The largest sliding window, if some layers have one.
    pub window: Option<usize>,
    /// Bytes of K and V of one token, over the layers with a window.
    pub window_bytes_per_token: usize,
    /// Bytes of what recurrent layers remember of a sequence; 0 without such layers.
    pub state_bytes: usize,
    /// Bytes of one element of an activation.
    pub itemsize: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the widest MLP.
    pub intermediate_size: usize,
    /// Query heads of the widest layer.
    pub num_heads: usize,
    /// Width of K (and of V) of the widest layer, repeated to the query heads.
    pub expanded_kv_dim: usize,
    /// Scores that attention over latents computes at a time; 0 without latents.
    pub latent_scores: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// What the model was trained for.
    pub context_length: usize,
}

/// A plan that cannot hold.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PlanError {
    /// Not even the weights and one step fit.
    #[error(
        "the model does not fit: weights take {}, one step of {step_tokens} tokens up to {}, and \
         {} may be used (--mem-fraction-static {mem_fraction_static} of {}); use a smaller or \
         more strongly quantized model, or lower --context-length or --chunked-prefill-size",
        Bytes(*weight_bytes), Bytes(*activation_bytes), Bytes(*usable_bytes), Bytes(*memory_bytes)
    )]
    TooSmall {
        /// See [`MemoryPlan`].
        weight_bytes: usize,
        /// See [`MemoryPlan`].
        activation_bytes: usize,
        /// Tokens of the largest step.
        step_tokens: usize,
        /// What weights and pool may take.
        usable_bytes: usize,
        /// See [`MemoryPlan`].
        memory_bytes: usize,
        /// See [`MemoryPlan`].
        mem_fraction_static: f64,
    },
    /// The weights alone are more than there is, by the size of their files.
    #[error(
        "the model does not fit: its weights take about {}, and {} are there; use a smaller or \
         more strongly quantized model",
        Bytes(*weight_bytes), Bytes(*memory_bytes)
    )]
    WeightsTooLarge {
        /// As they will be in memory.
        weight_bytes: usize,
        /// See [`MemoryPlan`].
        memory_bytes: usize,
    },
    /// The pool that was asked for does not fit.
    #[error(
        "--max-total-tokens {asked} needs {} for the K/V pool, but {} is left for it, enough for \
         {fits} tokens; lower it, or raise --mem-fraction-static",
        Bytes(*needs_bytes), Bytes(*left_bytes)
    )]
    PoolTooLarge {
        /// `--max-total-tokens`.
        asked: usize,
        /// Bytes of such a pool.
        needs_bytes: usize,
        /// Bytes that may be used for it.
        left_bytes: usize,
        /// Tokens that would fit.
        fits: usize,
    },
    /// An option outside its range.
    #[error("{option} must be {must}, got {given}")]
    Option {
        /// The flag.
        option: &'static str,
        /// What is allowed.
        must: String,
        /// What was given.
        given: String,
    },
}

/// Who gets how much. Bytes, tokens and requests as named.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryPlan {
    /// What the device has for this process.
    pub memory_bytes: usize,
    /// Share of it for weights and pool.
    pub mem_fraction_static: f64,
    /// Weights.
    pub weight_bytes: usize,
    /// K/V pool, window pages included.
    pub kv_pool_bytes: usize,
    /// Window pages, if layers with a window keep fewer tokens than the others.
    pub windows: Option<WindowConfig>,
    /// Pool of recurrent states, if the model has such layers.
    pub states: Option<StateConfig>,
    /// Bytes of that pool.
    pub state_pool_bytes: usize,
    /// Bound on what the largest step allocates and frees again.
    pub activation_bytes: usize,
    /// Tokens in a page.
    pub page_size: usize,
    /// Pages in the pool.
    pub num_pages: usize,
    /// Requests in one decode batch.
    pub max_running_requests: usize,
    /// Prompt and completion together.
    pub context_length: usize,
    /// Tokens of one prefill step; `None`: not split.
    pub chunked_prefill_size: Option<usize>,
    /// Longest prompt that can be admitted.
    pub max_req_input_len: usize,
}

impl MemoryPlan {
    /// Plans for `model` on `platform`. Wants the size of the weights, so it
    /// is made after loading and before anything else is allocated.
    ///
    /// # Errors
    /// An option out of range, or a plan that cannot hold.
    pub fn new(
        platform: &Platform,
        model: &ModelShape,
        options: &MemoryOptions,
        max_prefill_tokens: usize,
    ) -> Result<Self, PlanError> {
        let context_length = context_length(model, options)?;
        let page_size = at_least_one("--page-size", options.page_size)?;
        let mut max_running = match options.max_running_requests {
            Some(given) => at_least_one("--max-running-requests", given)?,
            None => platform.entry.max_running_requests,
        };
        let step_bytes = |step_tokens: usize| {
            let scores = !platform.entry.fused_attention;
            let step_tokens = step_tokens.max(max_running);
            activation_bytes(model, step_tokens, max_running, context_length, scores)
        };
        let largest = platform.memory_bytes / 4;
        let chunked_prefill_size =
            chunk_size(platform, options, page_size, |chunk| step_bytes(chunk) <= largest)?;
        let step_tokens = chunked_prefill_size.unwrap_or(context_length.max(max_prefill_tokens));
        let activation_bytes = step_bytes(step_tokens) + unpacked_bytes(platform, model);

        let mem_fraction_static = mem_fraction_static(platform, options)?;
        let memory_bytes = platform.memory_bytes;
        let static_bytes = (memory_bytes as f64 * mem_fraction_static) as usize;
        let usable_bytes = static_bytes.min(memory_bytes.saturating_sub(activation_bytes));
        let left_bytes = usable_bytes.saturating_sub(model.weight_bytes);
        let states = states(model, left_bytes, page_size, &mut max_running, options)?;
        let state_pool_bytes = states.map_or(0, |states| states.num_states * model.state_bytes);
        let left_bytes = left_bytes.saturating_sub(state_pool_bytes);
        let kv = windows::KvBytes::new(model, options, page_size, (context_length, step_tokens))?;
        let fits = kv.pages_in(left_bytes);
        if fits < MIN_PAGES {
            return Err(PlanError::TooSmall {
                weight_bytes: model.weight_bytes,
                activation_bytes,
                step_tokens,
                usable_bytes,
                memory_bytes,
                mem_fraction_static,
            });
        }

        let num_pages = match options.max_total_tokens {
            Some(asked) => pages_asked(asked, page_size, fits, &kv, left_bytes)?,
            None => fits.min(default_pages(platform, options, context_length, page_size)),
        };
        let max_total_num_tokens = num_pages * page_size;
        Ok(Self {
            memory_bytes,
            mem_fraction_static,
            weight_bytes: model.weight_bytes,
            kv_pool_bytes: kv.bytes_of(num_pages),
            windows: kv.windows(num_pages),
            states,
            state_pool_bytes,
            activation_bytes,
            page_size,
            num_pages,
            max_running_requests: max_running.min(num_pages),
            context_length,
            chunked_prefill_size,
            // One slot for the first generated token's successor, as upstream.
            max_req_input_len: context_length.min(max_total_num_tokens).saturating_sub(1).max(1),
        })
    }

    /// Tokens in the K/V pool.
    pub fn max_total_num_tokens(&self) -> usize {
        self.num_pages * self.page_size
    }

    /// What MLX may hold at any time before it must free or fail.
    pub fn memory_limit_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// What MLX may keep of freed buffers: those of one step, to be used again
    /// by the next.
    pub fn cache_limit_bytes(&self) -> usize {
        self.activation_bytes
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memory plan: {} usable, weights {}, K/V pool {} ({} tokens in {} pages of {}), \
             activations up to {}, mem_fraction_static={}, max_running_requests={}, \
             context_length={}, chunked_prefill_size={}, max_req_input_len={}",
            Bytes(self.memory_bytes),
            Bytes(self.weight_bytes),
            Bytes(self.kv_pool_bytes),
            self.max_total_num_tokens(),
            self.num_pages,
            self.page_size,
            Bytes(self.activation_bytes),
            self.mem_fraction_static,
            self.max_running_requests,
            self.context_length,
            self.chunked_prefill_size.map_or("off".to_owned(), |size| size.to_string()),
            self.max_req_input_len,
        )?;
        if let Some(WindowConfig { window, num_pages }) = self.windows {
            let tokens = num_pages * self.page_size;
            write!(f, ", layers with a window of {window} keep {tokens} tokens")?;
        }
        match self.states {
            None => Ok(()),
            Some(StateConfig { num_states, snapshot_interval }) => write!(
                f,
                ", recurrent states {} ({num_states}, at least every {snapshot_interval} tokens \
                 of a prompt)",
                Bytes(self.state_pool_bytes),
            ),
        }
    }
}

/// States for each running request: its own, the one at its last page, and two of
/// prefixes that are shared.
const STATES_PER_REQUEST: usize = 4;

/// Of what the weights leave, states take no more than one part in so many.
const STATE_SHARE: usize = 3;

/// Tokens of a prompt between two snapshots, about. A state takes the memory of a few
/// thousand tokens of K and V, so closer ones would crowd out other prefixes.
const SNAPSHOT_INTERVAL: usize = 1024;

/// The pool of recurrent states. Where it cannot hold enough for `max_running` requests,
/// there will be fewer of them, unless somebody asked for as many.
fn states(
    model: &ModelShape,
    left_bytes: usize,
    page_size: usize,
    max_running: &mut usize,
    options: &MemoryOptions,
) -> Result<Option<StateConfig>, PlanError> {
    if model.state_bytes == 0 {
        return Ok(None);
    }
    let most = left_bytes / STATE_SHARE / model.state_bytes;
    let num_states = (STATES_PER_REQUEST * *max_running).min(most).max(3);
    if num_states < 2 * *max_running {
        let fits = num_states / 2;
        if let Some(given) = options.max_running_requests {
            let must = format!("at most {fits}: as many recurrent states fit twice");
            return Err(out_of_range("--max-running-requests", must, given));
        }
        *max_running = fits;
    }
    let snapshot_interval = SNAPSHOT_INTERVAL.next_multiple_of(page_size);
    Ok(Some(StateConfig { num_states, snapshot_interval }))
}

/// A pool smaller than this cannot hold one request and its next token.
const MIN_PAGES: usize = 2;

/// An automatic chunk is not made smaller than this: the weights would be read
/// for too few tokens.
const MIN_CHUNK: usize = 64;

/// Bound on what one step holds at its worst moment, in bytes:
///
/// - residual stream and MLP of `step_tokens` tokens: 8 rows of `hidden_size`
///   and 3 of `intermediate_size` are alive together;
/// - attention of one layer: K and V of one whole context, gathered and repeated
///   to the query heads, and the mask of `step_tokens` queries against it, or
///   twice their scores in f32 where no fused kernel avoids them (a chunk
///   belongs to few requests, so contexts do not add up); over latents a bounded
///   number of scores, four times (masked, exponentiated, and the next ones);
/// - logits of `max_running` rows, in f32, 8 times (the sampler's sort, sums
///   and noise).
fn activation_bytes(
    model: &ModelShape,
    step_tokens: usize,
    max_running: usize,
    context_length: usize,
    scores: bool,
) -> usize {
    const F32: usize = 4;
    let stream =
        step_tokens * (8 * model.hidden_size + 3 * model.intermediate_size) * model.itemsize;
    let gathered = 2 * 2 * context_length * model.expanded_kv_dim * model.itemsize;
    let per_pair = if scores { 2 * model.num_heads * F32 } else { model.itemsize };
    let scores = step_tokens * context_length * per_pair;
    let logits = 8 * max_running * model.vocab_size * F32;
    let latent_scores =
        4 * F32 * model.latent_scores.min(step_tokens * context_length * model.num_heads);
    stream + gathered + scores + latent_scores + logits
}

/// Packed matrices that are unpacked for a prompt: two marks' worth, and those after the
/// last; 4 bits become 16.
fn unpacked_bytes(platform: &Platform, model: &ModelShape) -> usize {
    match platform.entry.unpacks_for_prompts {
        true => (3 * MARK_BYTES).min(4 * model.weight_bytes),
        false => 0,
    }
}

fn mem_fraction_static(platform: &Platform, options: &MemoryOptions) -> Result<f64, PlanError> {
    match options.mem_fraction_static {
        Some(given) if given > 0.0 && given < 1.0 => Ok(given),
        Some(given) => Err(out_of_range("--mem-fraction-static", "between 0 and 1", given)),
        None => Ok(platform.entry.mem_fraction_static),
    }
}

fn context_length(model: &ModelShape, options: &MemoryOptions) -> Result<usize, PlanError> {
    match options.context_length {
        None => Ok(model.context_length),
        Some(given) if given >= 1 && given <= model.context_length => Ok(given),
        Some(given) => Err(out_of_range(
            "--context-length",
            format!("between 1 and the model's {}", model.context_length),
            given,
        )),
    }
}

/// The automatic chunk is the platform's, halved until a step fits.
fn chunk_size(
    platform: &Platform,
    options: &MemoryOptions,
    page_size: usize,
    fits: impl Fn(usize) -> bool,
) -> Result<Option<usize>, PlanError> {
    match options.chunked_prefill {
        ChunkedPrefill::Off => Ok(None),
        ChunkedPrefill::Auto => {
            let mut chunk = platform.chunked_prefill_size();
            while chunk > MIN_CHUNK && !fits(chunk) {
                chunk /= 2;
            }
            Ok(Some(chunk.next_multiple_of(page_size)))
        }
        ChunkedPrefill::Tokens(given) if given >= 1 && given % page_size == 0 => Ok(Some(given)),
        ChunkedPrefill::Tokens(given) => Err(out_of_range(
            "--chunked-prefill-size",
            format!("-1 or a multiple of --page-size {page_size}"),
            given,
        )),
    }
}

fn pages_asked(
    asked: usize,
    page_size: usize,
    fits: usize,
    kv: &windows::KvBytes,
    left_bytes: usize,
) -> Result<usize, PlanError> {
    let pages = asked / page_size;
    if pages < MIN_PAGES {
        let must = format!("at least {MIN_PAGES} pages ({} tokens)", MIN_PAGES * page_size);
        return Err(out_of_range("--max-total-tokens", must, asked));
    }
    if pages > fits {
        return Err(PlanError::PoolTooLarge {
            asked,
            needs_bytes: kv.bytes_of(pages),
            left_bytes,
            fits: fits * page_size,
        });
    }
    Ok(pages)
}

/// An explicit share is taken as meant; the default one stops where more
/// contexts would hardly be used.
fn default_pages(
    platform: &Platform,
    options: &MemoryOptions,
    context_length: usize,
    page_size: usize,
) -> usize {
    match (options.mem_fraction_static, platform.entry.max_contexts) {
        (None, Some(contexts)) => contexts * context_length.div_ceil(page_size).max(MIN_PAGES),
        _ => usize::MAX,
    }
}

fn at_least_one(option: &'static str, given: usize) -> Result<usize, PlanError> {
    if given == 0 { Err(out_of_range(option, "at least 1", given)) } else { Ok(given) }
}

fn out_of_range(
    option: &'static str,
    must: impl Into<String>,
    given: impl fmt::Display,
) -> PlanError {
    PlanError::Option { option, must: must.into(), given: given.to_string() }
}

/// Prints bytes with a unit that suits their size.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(pub usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / (1 << 20) as f64;
        if mib >= 1024.0 { write!(f, "{:.2} GiB", mib / 1024.0) } else { write!(f, "{mib:.1} MiB") }
    }
}
