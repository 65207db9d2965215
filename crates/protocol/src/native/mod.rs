//! SGLang's own endpoints.

mod control;
mod encode;
mod generate;
mod info;
mod parsers;
mod sampling;

pub use control::{
    AbortRequest, DetokenizeRequest, DetokenizeResponse, FlushCacheQuery, TOKENIZE_TABLE,
    TokenizeRequest, TokenizeResponse,
};
pub use encode::{ENCODE_TABLE, EncodeMeta, EncodeRequest, EncodeResponse};
pub use generate::{
    GENERATE_TABLE, GenerateRequest, GenerateResponse, MetaInfo, MetaLogprobs, TokenLogprob,
    TokensLogprobs,
};
pub use info::{InternalState, Load, LoadsResponse, MemoryUsage, ModelInfoResponse};
pub use parsers::{
    ParseFunctionCallRequest, ParseFunctionCallResponse, ParsedCall, ReasoningBlock,
    ReasoningBlocks, SeparateReasoningRequest, SeparateReasoningResponse,
};
pub use sampling::{MaxNewTokens, SAMPLING_TABLE, SamplingJson};
