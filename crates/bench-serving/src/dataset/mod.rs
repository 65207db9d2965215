//! What is asked: conversations of one or more turns, the same for the same seed.
//!
//! Upstream: `sglang/benchmark/datasets/`.

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

use crate::BenchError;

/// One request: what it adds to its conversation, and how much it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Token ids.
    pub prompt: Vec<u32>,
    /// Tokens to generate.
    pub output_len: usize,
}

/// Turns, each sent when the one before is answered.
pub type Conversation = Vec<Turn>;

/// Lengths between `ratio` of the full one and the full one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lengths {
    /// Tokens.
    pub full: usize,
    /// 0 to 1.
    pub range_ratio: f64,
}

impl Lengths {
    fn sample(self, rng: &mut SmallRng) -> usize {
        let least = ((self.full as f64 * self.range_ratio) as usize).max(1);
        rng.random_range(least..=self.full)
    }

    fn check(self, what: &str) -> Result<(), BenchError> {
        if self.full > 0 && (0.0..=1.0).contains(&self.range_ratio) {
            return Ok(());
        }
        let what = format!("{what}: the length must be positive and the range ratio from 0 to 1");
        Err(BenchError::Dataset { what })
    }
}

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dataset {
    /// Unrelated conversations of random tokens; upstream's `random-ids` with one
    /// turn each.
    RandomIds {
        /// Conversations.
        num_prompts: usize,
        /// Requests in each.
        num_turns: usize,
        /// Of each question.
        input: Lengths,
        /// Of each answer.
        output: Lengths,
    },
    /// Groups of conversations that begin with the same long prompt; upstream's
    /// `generated-shared-prefix`.
    SharedPrefix {
        /// Different prefixes.
        num_groups: usize,
        /// Conversations behind each.
        prompts_per_group: usize,
        /// At most so many conversations in all.
        num_prompts: Option<usize>,
        /// Requests in each.
        num_turns: usize,
        /// Of the common prefix.
        system: Lengths,
        /// Of each question.
        question: Lengths,
        /// Of each answer.
        output: Lengths,
        /// Group by group instead of shuffled.
        ordered: bool,
    },
}

/// Makes the conversations.
///
/// # Errors
/// Counts or lengths of zero.
pub fn conversations(
    dataset: &Dataset,
    vocab_size: u32,
    seed: u64,
) -> Result<Vec<Conversation>, BenchError> {
    check(dataset, vocab_size)?;
    let mut source = Source { rng: SmallRng::seed_from_u64(seed), vocab_size };
    Ok(match *dataset {
        Dataset::RandomIds { num_prompts, num_turns, input, output } => {
            (0..num_prompts).map(|_| source.conversation(num_turns, input, output)).collect()
        }
        Dataset::SharedPrefix {
            num_groups,
            prompts_per_group,
            num_prompts,
            num_turns,
            system,
            question,
            output,
            ordered,
        } => {
            let mut all = Vec::new();
            for _ in 0..num_groups {
                let prefix = source.prompt(system);
                for _ in 0..prompts_per_group {
                    let mut conversation = source.conversation(num_turns, question, output);
                    conversation[0].prompt.splice(..0, prefix.iter().copied());
                    all.push(conversation);
                }
            }
            if !ordered {
                all.shuffle(&mut source.rng);
            }
            all.truncate(num_prompts.unwrap_or(all.len()));
            all
        }
    })
}

fn check(dataset: &Dataset, vocab_size: u32) -> Result<(), BenchError> {
    let counts = match *dataset {
        Dataset::RandomIds { num_prompts, num_turns, input, output } => {
            input.check("input")?;
            output.check("output")?;
            [num_prompts, num_turns, 1]
        }
        Dataset::SharedPrefix {
            num_groups,
            prompts_per_group,
            num_turns,
            system,
            question,
            output,
            ..
        } => {
            system.check("system prompt")?;
            question.check("question")?;
            output.check("output")?;
            [num_groups, prompts_per_group, num_turns]
        }
    };
    if counts.contains(&0) || vocab_size == 0 {
        let what = "a dataset needs at least one prompt, one turn and one token".to_owned();
        return Err(BenchError::Dataset { what });
    }
    Ok(())
}

struct Source {
    rng: SmallRng,
    vocab_size: u32,
}

impl Source {
    fn prompt(&mut self, lengths: Lengths) -> Vec<u32> {
        let len = lengths.sample(&mut self.rng);
        (0..len).map(|_| self.rng.random_range(0..self.vocab_size)).collect()
    }

    fn conversation(&mut self, num_turns: usize, input: Lengths, output: Lengths) -> Conversation {
        (0..num_turns)
            .map(|_| Turn { prompt: self.prompt(input), output_len: output.sample(&mut self.rng) })
            .collect()
    }
}

#[cfg(test)]
mod tests;
