//! What is known of requests besides their answers: the request log, and what is written down
//! when the engine dies.
//!
//! A line is written when a request comes and one when it ends, each of `n` samples and each
//! prompt of a batch by itself, as the engine sees them.
//!
//! Upstream: `sglang/srt/utils/request_logger.py`, `dump_requests_before_crash` in
//! `sglang/srt/managers/tokenizer_manager.py`.

mod book;
mod file;
mod log;
mod writer;

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};
use tokenizer::Tokenizer;
use types::{SamplingParams, TokenId};

pub(crate) use book::RequestBook;
use log::Finished;

use crate::trace::TraceParent;
pub use log::{LogFormat, LogTarget, LogTargetError, RequestLog, RequestLogOptions};

/// All that keeps track of requests.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    log: OnceLock<RequestLog>,
    pub(crate) book: RequestBook,
}

impl Requests {
    pub(crate) fn new(book: RequestBook) -> Self {
        Self { log: OnceLock::new(), book }
    }

    /// Decides where lines go, before the first of them.
    pub(crate) fn log_to(&self, log: RequestLog) {
        self.log.get_or_init(|| log);
    }

    /// Off, and to standard output, unless decided otherwise.
    pub(crate) fn log(&self) -> &RequestLog {
        self.log.get_or_init(RequestLog::default)
    }

    pub(crate) fn begin(&self, request: &Arc<Received>, tokenizer: &Tokenizer) {
        self.book.begin(request);
        self.log().received(request, tokenizer);
    }

    /// `meta_info` is made only if somebody wants it.
    pub(crate) fn end(
        &self,
        request: &Arc<Received>,
        (text, output_ids): (&str, &[TokenId]),
        meta_info: impl FnOnce() -> Value,
        tokenizer: &Tokenizer,
    ) {
        if self.log().is_on() || self.book.is_on() {
            let meta_info = meta_info();
            self.book.end(request, output_ids, &meta_info);
            let end = Finished { meta_info: &meta_info, text, output_ids };
            self.log().finished(request, end, tokenizer);
        }
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) rid: String,
    pub(crate) prompt_ids: Arc<[TokenId]>,
    pub(crate) params: SamplingParams,
    pub(crate) is_streaming: bool,
    /// Unix time, seconds.
    pub(crate) at: f64,
    /// Of the trace that it belongs to.
    pub(crate) parent: Option<TraceParent>,
}

impl Received {
    /// What it holds, in about so many bytes.
    fn num_bytes(&self) -> usize {
        let SamplingParams { stop_token_ids, logit_bias, .. } = &self.params;
        let lists = size_of_val(&**stop_token_ids) + size_of_val(&**logit_bias);
        self.rid.len() + size_of_val(&*self.prompt_ids) + lists
    }

    /// Under upstream's names; the prompt is left to the caller.
    fn to_json(&self, with_params: bool) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("rid".to_owned(), json!(self.rid));
        fields.insert("stream".to_owned(), json!(self.is_streaming));
        if with_params {
            fields.insert("sampling_params".to_owned(), params_json(&self.params));
        }
        fields
    }
}

fn params_json(params: &SamplingParams) -> Value {
    json!({
        "max_new_tokens": params.max_new_tokens,
        "min_new_tokens": params.min_new_tokens,
        "stop_token_ids": params.stop_token_ids,
        "ignore_eos": params.ignore_eos,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "sampling_seed": params.sampling_seed,
        "frequency_penalty": params.penalties.frequency,
        "presence_penalty": params.penalties.presence,
        "repetition_penalty": params.penalties.repetition,
        "logit_bias": params.logit_bias.iter().copied().collect::<Vec<_>>(),
    })
}
