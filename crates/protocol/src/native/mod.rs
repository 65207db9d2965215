//! SGLang's own endpoints.

mod control;
mod encode;
mod generate;
mod info;
mod operate;
mod parsers;
mod sampling;
mod session;

pub use control::{
    AbortRequest, DetokenizeRequest, DetokenizeResponse, FlushCacheQuery, TOKENIZE_TABLE,
    TokenizeRequest, TokenizeResponse,
};
pub use encode::{ENCODE_TABLE, EncodeMeta, EncodeRequest, EncodeResponse};
pub use generate::{
    GENERATE_TABLE, GenerateRequest, GenerateResponse, MetaInfo, MetaLogprobs, TokenLogprob,
    TokensLogprobs,
};
pub use info::{
    InternalState, Load, LoadDisaggregation, LoadMemory, LoadQueues, LoadsQuery, LoadsResponse,
    MemoryUsage, ModelInfoResponse,
};
pub use operate::{
    CONFIGURE_LOGGING_TABLE, ConfigureLoggingRequest, ContinueRequest, PauseMode, PauseRequest,
    PauseResponse, START_PROFILE_TABLE, SetInternalStateRequest, SlowDownRequest,
    StartProfileRequest, UPDATE_WEIGHTS_TABLE, UpdateWeightVersionRequest,
    UpdateWeightVersionResponse, UpdateWeightsFromDiskRequest, UpdateWeightsResponse,
};
pub use parsers::{
    ParseFunctionCallRequest, ParseFunctionCallResponse, ParsedCall, ReasoningBlock,
    ReasoningBlocks, SeparateReasoningRequest, SeparateReasoningResponse,
};
pub use sampling::{CUSTOM_PARAMS_TABLE, CustomParams, MaxNewTokens, SAMPLING_TABLE, SamplingJson};
pub use session::{CloseSessionRequest, OpenSessionRequest, SESSION_TABLE, SessionParams};
