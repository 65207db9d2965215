//! A response that is being made.

use protocol::{
    openai::{self, ChatMessage, ChatTokenLogprob},
    responses::{
        CallOutput, IncompleteDetails, InputTokensDetails, MessageOutput, OutputItem, OutputPart,
        OutputTokensDetails, Reasoning, Response, ResponseError, ResponsesRequest, Status, Usage,
    },
};
use serde_json::{Value, json};
use types::FinishReason;
use uuid::Uuid;

use super::reasoning::ReasoningForm;
use crate::{
    AppState,
    answer::AnswerFormat,
    error::ApiError,
    generation::{Sequence, SequenceSet},
    response_store::Stored,
    routes::usage::UsagePolicy,
    state::unix_seconds,
};

pub(super) struct Draft {
    state: AppState,
    /// In progress, with what is known at the start.
    pub(super) response: Response,
    pub(super) format: AnswerFormat,
    pub(super) usage: UsagePolicy,
    /// The conversation up to the answer, without instructions.
    pub(super) messages: Vec<ChatMessage>,
    pub(super) reasoning: ReasoningForm,
}

/// `{prefix}_` and a number.
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v4().simple())
}

impl Draft {
    pub(super) fn new(state: &AppState, request: &ResponsesRequest) -> Self {
        let reasoning = request.reasoning.as_ref();
        let echoed = |asked: &Reasoning| json!({"effort": asked.effort, "summary": asked.summary});
        let response = Response {
            id: request.request_id.clone().unwrap_or_else(|| new_id("resp")),
            object: "response",
            created_at: unix_seconds() as u64,
            model: request.model.clone().unwrap_or_else(|| state.config.served_model_name.clone()),
            output: Vec::new(),
            status: Status::InProgress,
            usage: None,
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            tool_choice: request.tool_choice.clone().unwrap_or_else(|| "auto".into()),
            tools: request.tools.clone().unwrap_or_default(),
            error: None,
            incomplete_details: None,
            instructions: request.instructions.clone(),
            max_output_tokens: request.max_output_tokens,
            previous_response_id: request.previous_response_id.clone(),
            reasoning: reasoning.map(echoed),
            store: request.store.unwrap_or(true),
            background: request.background.unwrap_or(false),
            temperature: request.temperature,
            text: request
                .text
                .clone()
                .map_or_else(|| json!({"format": {"type": "text"}}), Value::Object),
            top_p: request.top_p,
            truncation: "disabled",
            user: request.user.clone(),
            metadata: request.metadata.clone(),
        };
        Self {
            state: state.clone(),
            response,
            format: AnswerFormat::default(),
            usage: UsagePolicy::new(state, None, 1),
            messages: Vec::new(),
            reasoning: ReasoningForm::new(request),
        }
    }

    /// The response of an answer that has ended; stored if it is to be.
    pub(super) fn finish(self, sequence: &Sequence) -> Stored {
        let output = self.output(sequence);
        self.finish_with(sequence, output)
    }

    /// The same with the items that a stream has sent.
    pub(super) fn finish_with(self, sequence: &Sequence, output: Vec<OutputItem>) -> Stored {
        let Self { state, mut response, mut messages, .. } = self;
        messages.extend(answer_message(&output));
        response.status = status_of(sequence);
        let is_cut_off = response.status == Status::Incomplete;
        let details = IncompleteDetails { reason: "max_output_tokens" };
        response.incomplete_details = is_cut_off.then_some(details);
        response.usage = Some(usage(&self.usage, sequence));
        response.output = output;
        keep(&state, Stored { response, messages })
    }

    /// The response of an answer that could not be made; stored if it is to be.
    pub(super) fn fail(self, error: &ApiError) -> Stored {
        let Self { state, mut response, messages, .. } = self;
        let code = if error.status.is_client_error() { "invalid_prompt" } else { "server_error" };
        response.status = Status::Failed;
        response.error = Some(ResponseError { code, message: error.message.clone() });
        keep(&state, Stored { response, messages })
    }

    /// Goes on without the client. Whoever cancels the response ends it.
    pub(super) fn run_in_background(self, set: SequenceSet) {
        let state = self.state.clone();
        let (response, messages) = (self.response.clone(), self.messages.clone());
        let id = response.id.clone();
        state.responses.insert(Stored { response, messages });
        let task = tokio::spawn(async move {
            match set.collect().await {
                Ok(sequences) => {
                    if let Some(sequence) = sequences.first() {
                        self.finish(sequence);
                    }
                }
                Err(error) => {
                    self.fail(&error);
                }
            }
        });
        state.responses.attach(&id, task.abort_handle());
    }

    fn output(&self, sequence: &Sequence) -> Vec<OutputItem> {
        let answer = self.format.parse(sequence.text());
        let status = status_of(sequence);
        let mut output = Vec::new();
        if !answer.reasoning.is_empty() {
            output.push(self.reasoning.item(new_id("rs"), answer.reasoning, status));
        }
        if !answer.content.is_empty() || answer.calls.is_empty() {
            let logprobs = sequence.logprobs();
            let logprobs = logprobs.map(|(said, tokens)| said.chat(&tokens, 0).content);
            let logprobs = logprobs.unwrap_or_default();
            output.push(message_item(new_id("msg"), answer.content, logprobs, status));
        }
        let calls = answer.calls.into_iter().map(|call| {
            OutputItem::FunctionCall(CallOutput {
                id: new_id("fc"),
                call_id: call.id,
                name: call.name,
                arguments: call.arguments,
                status: Status::Completed,
            })
        });
        output.extend(calls);
        output
    }
}

fn keep(state: &AppState, stored: Stored) -> Stored {
    match (stored.response.store, stored.response.background) {
        (true, true) => state.responses.finish(stored.clone()),
        (true, false) => state.responses.insert(stored.clone()),
        (false, _) => {}
    }
    stored
}

pub(super) fn message_item(
    id: String,
    text: String,
    logprobs: Vec<ChatTokenLogprob>,
    status: Status,
) -> OutputItem {
    let content = vec![OutputPart::OutputText { text, annotations: [], logprobs }];
    OutputItem::Message(MessageOutput { id, role: "assistant", content, status })
}

pub(super) fn status_of(sequence: &Sequence) -> Status {
    match sequence.finish_reason() {
        None => Status::InProgress,
        Some(FinishReason::Stop { .. }) => Status::Completed,
        Some(FinishReason::Length { .. }) => Status::Incomplete,
        Some(FinishReason::Abort { .. }) => Status::Cancelled,
    }
}

fn usage(policy: &UsagePolicy, sequence: &Sequence) -> Usage {
    let counts = sequence.counts();
    let reasoning_tokens = policy.reasoning_tokens(sequence);
    Usage {
        input_tokens: counts.prompt_tokens,
        input_tokens_details: InputTokensDetails {
            cached_tokens: counts.cached_tokens,
            cache_write_tokens: 0,
        },
        output_tokens: counts.completion_tokens,
        output_tokens_details: OutputTokensDetails { reasoning_tokens },
        total_tokens: counts.prompt_tokens + counts.completion_tokens,
    }
}

/// The answer as the next prompt is to have it.
fn answer_message(output: &[OutputItem]) -> Option<ChatMessage> {
    let text_of = |content: &[OutputPart]| -> String {
        let text = |part: &OutputPart| match part {
            OutputPart::OutputText { text, .. }
            | OutputPart::ReasoningText { text }
            | OutputPart::SummaryText { text } => text.clone(),
        };
        content.iter().map(text).collect()
    };
    let (mut said, mut thought, mut calls) = (String::new(), String::new(), Vec::new());
    for item in output {
        match item {
            OutputItem::Reasoning(item) => thought += &text_of(&item.content),
            OutputItem::Message(item) => said += &text_of(&item.content),
            OutputItem::FunctionCall(call) => {
                calls.push(openai::call(Some(&call.call_id), &call.name, &call.arguments));
            }
        }
    }
    (!output.is_empty())
        .then(|| ChatMessage::new("assistant", said).with_reasoning(thought).with_calls(calls))
}
