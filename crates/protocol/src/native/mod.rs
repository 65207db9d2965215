//! SGLang's own endpoints.

mod control;
mod generate;
mod info;
mod sampling;

pub use control::{
    AbortRequest, DetokenizeRequest, DetokenizeResponse, FlushCacheQuery, TOKENIZE_TABLE,
    TokenizeRequest, TokenizeResponse,
};
pub use generate::{
    GENERATE_TABLE, GenerateRequest, GenerateResponse, MetaInfo, MetaLogprobs, TokenLogprob,
    TokensLogprobs,
};
pub use info::{InternalState, Load, LoadsResponse, MemoryUsage, ModelInfoResponse};
pub use sampling::{MaxNewTokens, SAMPLING_TABLE, SamplingJson};
