//! Responses that can be asked for, continued and cancelled later.
//!
//! Bounded in number and in bytes; the oldest go first. They live as long as the
//! process does.
//!
//! Upstream: `response_store` in `sglang/srt/entrypoints/openai/serving_responses.py`.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::{
    openai::ChatMessage,
    responses::{Response, Status},
};
use tokio::task::AbortHandle;

/// Most responses kept.
const MAX_RESPONSES: usize = 1024;
/// Most bytes of them, as JSON.
const MAX_BYTES: usize = 64 << 20;

/// A response and the conversation that it ends.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) response: Response,
    /// Without instructions; with the answer once that is complete.
    pub(crate) messages: Vec<ChatMessage>,
}

#[derive(Debug, Default)]
pub(crate) struct ResponseStore(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<String, Entry>,
    /// Oldest first.
    order: VecDeque<String>,
    num_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    stored: Stored,
    num_bytes: usize,
    /// What works on it in the background.
    task: Option<AbortHandle>,
}

impl ResponseStore {
    pub(crate) fn insert(&self, stored: Stored) {
        let entry = Entry::new(stored);
        self.entries().insert(entry);
    }

    /// What can end the work on a response that is there already. If that has been dropped, or
    /// cancelled by now, it ends at once.
    pub(crate) fn attach(&self, id: &str, task: AbortHandle) {
        match self.entries().by_id.get_mut(id) {
            Some(entry) if entry.stored.response.status == Status::InProgress => {
                entry.task = Some(task);
            }
            _ => task.abort(),
        }
    }

    /// Replaces a response that is still in progress; one that was cancelled or
    /// has been dropped stays so.
    pub(crate) fn finish(&self, stored: Stored) {
        let finished = Entry::new(stored);
        let mut entries = self.entries();
        let entry = entries.by_id.get(&finished.stored.response.id);
        if entry.is_some_and(|entry| entry.stored.response.status == Status::InProgress) {
            entries.insert(finished);
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Stored> {
        self.entries().by_id.get(id).map(|entry| entry.stored.clone())
    }

    /// Ends the work on a response; one that is done stays as it is.
    pub(crate) fn cancel(&self, id: &str) -> Option<Response> {
        let mut entries = self.entries();
        let entry = entries.by_id.get_mut(id)?;
        let response = &mut entry.stored.response;
        if response.status == Status::InProgress {
            response.status = Status::Cancelled;
            if let Some(task) = entry.task.take() {
                task.abort();
            }
        }
        Some(response.clone())
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Takes its time to find out how large it is: not under the lock.
    fn new(stored: Stored) -> Self {
        let num_bytes = json_len(&stored.response) + json_len(&stored.messages);
        Self { stored, num_bytes, task: None }
    }
}

impl Entries {
    fn insert(&mut self, entry: Entry) {
        let id = entry.stored.response.id.clone();
        self.remove(&id);
        self.num_bytes += entry.num_bytes;
        self.by_id.insert(id.clone(), entry);
        self.order.push_back(id);
        while self.order.len() > MAX_RESPONSES || self.num_bytes > MAX_BYTES {
            let Some(oldest) = self.order.front().cloned() else { break };
            if let Some(task) = self.remove(&oldest).and_then(|entry| entry.task) {
                task.abort();
            }
        }
    }

    fn remove(&mut self, id: &str) -> Option<Entry> {
        let entry = self.by_id.remove(id)?;
        self.order.retain(|other| other != id);
        self.num_bytes -= entry.num_bytes;
        Some(entry)
    }
}

fn json_len(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use protocol::openai::Content;
    use serde_json::json;

    use super::*;

    fn stored(id: &str, status: Status, text: &str) -> Stored {
        let response = Response {
            id: id.to_owned(),
            object: "response",
            created_at: 0,
            model: String::new(),
            output: Vec::new(),
            status,
            usage: None,
            parallel_tool_calls: true,
            tool_choice: json!("auto"),
            tools: Vec::new(),
            error: None,
            incomplete_details: None,
            instructions: None,
            max_output_tokens: None,
            previous_response_id: None,
            reasoning: None,
            store: true,
            background: false,
            temperature: None,
            text: json!({}),
            top_p: None,
            truncation: "disabled",
            user: None,
            metadata: None,
        };
        let content = Some(Content::Text(text.to_owned()));
        let message = ChatMessage { content, ..ChatMessage::default() };
        Stored { response, messages: vec![message] }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let store = ResponseStore::default();
        for i in 0..=MAX_RESPONSES {
            store.insert(stored(&i.to_string(), Status::Completed, ""));
        }
        assert!(store.get("0").is_none() && store.get("1").is_some());
        assert_eq!(store.entries().order.len(), MAX_RESPONSES);
    }

    #[test]
    fn the_oldest_go_when_they_are_too_large() {
        let store = ResponseStore::default();
        let large = "x".repeat(MAX_BYTES / 2 - 2048);
        for id in ["a", "b", "c"] {
            store.insert(stored(id, Status::Completed, &large));
        }
        let kept = ["a", "b", "c"].map(|id| store.get(id).is_some());
        assert_eq!(kept, [false, true, true]);
        // Larger than all there may be.
        store.insert(stored("d", Status::Completed, &"x".repeat(MAX_BYTES)));
        let entries = store.entries();
        assert_eq!((entries.by_id.len(), entries.order.len(), entries.num_bytes), (0, 0, 0));
    }

    #[tokio::test]
    async fn work_on_what_is_cancelled_already_ends_at_once() {
        let store = ResponseStore::default();
        store.insert(stored("a", Status::InProgress, ""));
        store.insert(stored("b", Status::InProgress, ""));
        store.cancel("a");
        let work = || tokio::spawn(std::future::pending::<()>());
        let (a, b, c) = (work(), work(), work());
        for (id, task) in [("a", &a), ("b", &b), ("c", &c)] {
            store.attach(id, task.abort_handle());
        }
        assert!(a.await.unwrap_err().is_cancelled() && c.await.unwrap_err().is_cancelled());
        assert!(!b.is_finished());
        store.cancel("b");
        assert!(b.await.unwrap_err().is_cancelled());
    }

    #[test]
    fn what_is_cancelled_stays_cancelled() {
        let store = ResponseStore::default();
        store.insert(stored("a", Status::InProgress, ""));
        assert_eq!(store.cancel("a").map(|response| response.status), Some(Status::Cancelled));
        store.finish(stored("a", Status::Completed, "late"));
        assert_eq!(store.get("a").map(|s| s.response.status), Some(Status::Cancelled));
        store.insert(stored("b", Status::InProgress, ""));
        store.finish(stored("b", Status::Completed, ""));
        assert_eq!(store.cancel("b").map(|response| response.status), Some(Status::Completed));
        assert!(store.cancel("c").is_none());
        store.finish(stored("c", Status::Completed, ""));
        assert!(store.get("c").is_none());
    }
}
