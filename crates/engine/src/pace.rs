//! How many decode steps follow a piece of a long prompt: as many as keep the mean
//! time between a stream's tokens below a multiple of what it would be alone.
//!
//! It is measured, not configured: what a piece takes depends on model, device and
//! the prefix behind it, what a decode step takes on who runs.
//!
//! Upstream: none; SGLang mixes prompt and decode tokens in one batch instead
//! (`--enable-mixed-chunk`).

use std::time::{Duration, Instant};

use scheduler::ForwardMode;

/// Streams beside a long prompt take this much longer for a token, on average, and with
/// what the host adds still less than three times. The prompt has half of the time.
const SLOWDOWN: f64 = 2.2;
/// However slow a piece is, the prompt must move.
const MAX_DECODES: f64 = 64.0;
/// Weight of the newest decode step in the mean.
const NEWEST: f64 = 0.25;

/// Times of the steps that were read.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last_read: Option<Instant>,
    /// Mean seconds of a decode step.
    decode: Option<f64>,
}

impl Pace {
    /// Nothing runs: the time to the next step is nobody's.
    pub(crate) fn idle(&mut self) {
        self.last_read = None;
    }

    /// A step was read. Gives the number of decode steps after a prefill step, once
    /// both have been seen.
    pub(crate) fn read(&mut self, mode: ForwardMode, now: Instant) -> Option<usize> {
        let begin = self.last_read.replace(now)?;
        let seconds = now.duration_since(begin).max(Duration::from_nanos(1)).as_secs_f64();
        match mode {
            ForwardMode::Decode => {
                let mean = self.decode.unwrap_or(seconds);
                self.decode = Some(mean + NEWEST * (seconds - mean));
                None
            }
            ForwardMode::Extend => {
                let decodes = seconds / ((SLOWDOWN - 1.0) * self.decode?);
                Some(decodes.ceil().clamp(1.0, MAX_DECODES) as usize)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads these steps after so many ms each.
    fn paces(steps: &[(ForwardMode, u64)]) -> Vec<Option<usize>> {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let read = |&(mode, ms): &(ForwardMode, u64)| {
            now += Duration::from_millis(ms);
            pace.read(mode, now)
        };
        steps.iter().map(read).collect()
    }

    #[test]
    fn pieces_and_decode_steps_take_turns_in_time() {
        use ForwardMode::{Decode, Extend};
        let steps = [(Decode, 9), (Decode, 4), (Extend, 4), (Extend, 7), (Extend, 60)];
        // (60 + 13 * 4) / 13 ms a token is 2.2 times 4 ms.
        assert_eq!(paces(&steps), [None, None, Some(1), Some(2), Some(13)]);
        assert_eq!(paces(&[(Decode, 9), (Decode, 1), (Extend, 9000)])[2], Some(64));
        assert_eq!(paces(&[(Decode, 9), (Decode, 4), (Decode, 8), (Extend, 60)])[3], Some(10));
    }

    #[test]
    fn without_a_decode_step_there_is_no_pace() {
        use ForwardMode::{Decode, Extend};
        assert_eq!(paces(&[(Extend, 5), (Extend, 5)]), [None, None]);
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.read(Decode, now);
        pace.idle();
        // The first step after a pause has no beginning.
        pace.read(Decode, now + Duration::from_secs(9));
        assert_eq!(pace.read(Extend, now + Duration::from_secs(10)), None);
    }
}
