//! Which tokens may come next, for the rows of a batch that follow grammars.
//!
//! The batch's forward pass runs on the device meanwhile; rows share the host's cores.
//!
//! Upstream: `update_regex_vocab_mask` in `sglang/srt/sampling/sampling_batch_info.py`.

use rayon::prelude::*;
use types::{GrammarError, NextTokens, TokenGrammar, TokenId};

use crate::{
    Executor, ReqId, RowMask, Scheduler, SchedulerEvent, req::grammar_failed, scheduler::News,
};

/// A row of the batch, its place among the sampled ones, its request's grammar.
struct Following {
    row: usize,
    sampled_row: usize,
    req: ReqId,
    grammar: Box<dyn TokenGrammar>,
}

impl<E: Executor> Scheduler<E> {
    /// Samples the batch in flight, if that had to wait for the tokens before. Requests
    /// whose grammars fail end here.
    pub(crate) fn sample_constrained(
        &mut self,
        out: &mut Vec<SchedulerEvent>,
    ) -> Result<(), E::Error> {
        let Some(mut in_flight) = self.in_flight.take_if(|flight| flight.batch.is_constrained())
        else {
            return Ok(());
        };
        let mut following = self.take_grammars(&in_flight.batch);
        let next: Vec<Result<NextTokens, GrammarError>> = match &mut following[..] {
            [only] => vec![only.grammar.next_tokens()],
            many => many.par_iter_mut().map(|row| row.grammar.next_tokens()).collect(),
        };
        let mut masks = Vec::new();
        for (Following { row, sampled_row, req, grammar }, next) in following.into_iter().zip(next)
        {
            self.reqs[req].grammar = Some(grammar);
            match next {
                Ok(NextTokens::Any) => {}
                Ok(NextTokens::Of(words)) => {
                    let sampling = &mut in_flight.batch.rows[row].sampling;
                    // A grammar that has to end here ends, whatever `min_new_tokens` says.
                    sampling.suppress =
                        sampling.suppress.take().filter(|ids| leave_any(&words, ids));
                    masks.push(RowMask { sampled_row, words });
                }
                Err(error) => {
                    self.finish(req, News::default(), grammar_failed(&error), out);
                    self.running.retain(|&id| id != req);
                }
            }
        }
        self.executor.sample(&mut in_flight.handle, &in_flight.batch, &masks)?;
        self.in_flight = Some(in_flight);
        Ok(())
    }

    /// Those of requests that live; the others' tokens are dropped, so any will do.
    fn take_grammars(&mut self, batch: &crate::ScheduleBatch) -> Vec<Following> {
        let rows = batch.rows.iter().enumerate().filter(|(_, row)| row.sampled).enumerate();
        rows.filter_map(|(sampled_row, (row, entry))| {
            let grammar = self.reqs.get_mut(entry.req)?.grammar.take()?;
            Some(Following { row, sampled_row, req: entry.req, grammar })
        })
        .collect()
    }
}

/// Whether a mask allows anything besides `ids`, which are all different.
fn leave_any(mask: &[u32], ids: &[TokenId]) -> bool {
    let is_allowed =
        |&&id: &&TokenId| mask.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
    let mut num_others = ids.iter().filter(is_allowed).count();
    // Mostly the first words say it.
    mask.iter().any(|word| {
        let num_allowed = word.count_ones() as usize;
        let is_more = num_allowed > num_others;
        num_others = num_others.saturating_sub(num_allowed);
        is_more
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mask_allows_besides() {
        for (mask, ids, expected) in [
            (&[0b1010, 0][..], &[1, 3][..], false),
            (&[0b1010, 0], &[1, 2], true),
            (&[0b1010, 1], &[1, 3], true),
            (&[0b1010, 1], &[1, 3, 32], false),
            (&[1 << 31, 0], &[31, 64, 9000], false),
            (&[0, 1 << 31], &[31], true),
            (&[0, 0], &[], false),
        ] {
            assert_eq!(leave_any(mask, ids), expected, "{mask:?} {ids:?}");
        }
    }
}
