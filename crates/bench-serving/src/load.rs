//! Sends conversations as they are due and records what comes back.
//!
//! A limit on concurrency counts conversations: each holds its place from its
//! first request to its last answer, like a user at a keyboard.

use std::{sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{Client, RequestOutput, RequestShape, dataset::Conversation, history::History};

/// When conversations begin and how many may run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Conversations a second, at random (Poisson); infinite: all at once.
    pub request_rate: f64,
    /// Conversations at once.
    pub max_concurrency: Option<usize>,
    /// Of the arrival times.
    pub seed: u64,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    /// From the start to the last answer.
    pub duration: Duration,
    /// One for each turn, conversations in order.
    pub outputs: Vec<RequestOutput>,
}

impl Load {
    /// When each conversation begins, after the start.
    fn arrivals(&self, count: usize) -> Vec<Duration> {
        let mut rng = SmallRng::seed_from_u64(self.seed);
        let mut next = 0.0;
        (0..count)
            .map(|_| {
                let at = Duration::from_secs_f64(next);
                if self.request_rate.is_finite() {
                    next -= (1.0 - rng.random::<f64>()).ln() / self.request_rate;
                }
                at
            })
            .collect()
    }
}

/// Runs all conversations to their ends; `done` is called after each request.
///
/// # Panics
/// If `done` does.
pub async fn apply(
    load: &Load,
    client: &Client,
    shape: &RequestShape,
    conversations: Vec<Conversation>,
    done: impl Fn(&RequestOutput) + Send + Sync + 'static,
) -> Recording {
    let places = Semaphore::new(load.max_concurrency.unwrap_or(Semaphore::MAX_PERMITS));
    let shared = Arc::new((client.clone(), shape.clone(), places, done));
    let arrivals = load.arrivals(conversations.len());
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    let count = conversations.len();
    for ((index, conversation), at) in conversations.into_iter().enumerate().zip(arrivals) {
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let (client, shape, places, done) = &*shared;
            sleep_until(start + at).await;
            let _place = places.acquire().await.expect("the semaphore is never closed");
            (index, converse(client, shape, conversation, start, done).await)
        });
    }
    let mut outputs = vec![Vec::new(); count];
    while let Some(result) = tasks.join_next().await {
        let (index, output) = result.expect("conversations do not panic");
        outputs[index] = output;
    }
    Recording { duration: start.elapsed(), outputs: outputs.concat() }
}

async fn converse(
    client: &Client,
    shape: &RequestShape,
    conversation: Conversation,
    start: Instant,
    done: &(impl Fn(&RequestOutput) + Send + Sync),
) -> Vec<RequestOutput> {
    let mut history = History::new(shape.backend, conversation.len());
    let mut outputs = Vec::with_capacity(conversation.len());
    let mut broken = false;
    for turn in conversation {
        let sent = start.elapsed();
        let mut output = if broken {
            RequestOutput::failed("not sent: an earlier turn has failed")
        } else {
            history.ask(&turn.prompt);
            client.generate(shape, &history, turn.output_len).await
        };
        output.start = sent;
        broken |= output.error.is_some() || !history.answer(&output);
        done(&output);
        outputs.push(output);
    }
    outputs
}

#[cfg(test)]
mod tests;
