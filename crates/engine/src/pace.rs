//! How many decode steps follow a piece of a long prompt: as many as keep the mean
//! time between a stream's tokens below a multiple of what it would be alone.
//!
//! It is measured, not configured: what a piece takes depends on model, device and
//! the prefix behind it, what a decode step takes on who runs.
//!
//! Upstream: none; SGLang mixes prompt and decode tokens in one batch instead
//! (`--enable-mixed-chunk`).

use std::{mem::take, time::Instant};

use scheduler::ForwardMode;

/// Streams beside a long prompt take this much longer for a token, on average, and with
/// what the host adds still less than three times. The prompt has half of the time.
const SLOWDOWN: f64 = 2.2;
/// However slow a piece is, the prompt must move.
const MAX_DECODES: f64 = 64.0;
/// Between two pieces, so that some decode step is handed over and read without one.
const MIN_DECODES: f64 = 2.0;
/// Weight of the newest decode step in the mean.
const NEWEST: f64 = 0.25;

/// Times of the passes of the engine's loop.
///
/// A pass hands one step over and reads another one. On some devices the host waits
/// for much of a piece while it hands it over, so the decode step that such a pass
/// reads seems slow: only passes without any piece tell what a decode step takes.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last_pass: Option<Instant>,
    /// Mean seconds of a decode step.
    decode: Option<f64>,
    /// Seconds of the passes with the piece that is not read yet.
    piece: f64,
    /// Decode steps that were read in these passes.
    decodes_in_piece: f64,
}

impl Pace {
    /// Nothing runs: the time to the next pass is nobody's.
    pub(crate) fn idle(&mut self) {
        self.last_pass = None;
    }

    /// A pass has ended. Gives the number of decode steps after a prefill step, when
    /// one was read.
    pub(crate) fn pass(
        &mut self,
        launched: Option<ForwardMode>,
        read: Option<ForwardMode>,
        now: Instant,
    ) -> Option<usize> {
        let begin = self.last_pass.replace(now)?;
        let seconds = now.duration_since(begin).as_secs_f64();
        let is_decode = read == Some(ForwardMode::Decode);
        if launched != Some(ForwardMode::Extend) && read != Some(ForwardMode::Extend) {
            if is_decode {
                let mean = self.decode.unwrap_or(seconds);
                self.decode = Some(mean + NEWEST * (seconds - mean));
            }
            return None;
        }
        self.piece += seconds;
        self.decodes_in_piece += f64::from(u8::from(is_decode));
        (read == Some(ForwardMode::Extend)).then(|| self.decodes_per_piece())
    }

    /// A piece was read.
    fn decodes_per_piece(&mut self) -> usize {
        let (piece, decodes) = (take(&mut self.piece), take(&mut self.decodes_in_piece));
        let Some(decode) = self.decode.filter(|&seconds| seconds > 0.0) else {
            return MIN_DECODES as usize;
        };
        let count = (piece - decodes * decode) / ((SLOWDOWN - 1.0) * decode);
        count.ceil().clamp(MIN_DECODES, MAX_DECODES) as usize
    }
}

#[cfg(test)]
mod tests {
    use ForwardMode::{Decode, Extend};

    use std::time::Duration;

    use super::*;

    type Pass = (Option<ForwardMode>, Option<ForwardMode>, u64);

    /// What these passes of so many ms each say.
    fn paces(passes: &[Pass]) -> Vec<Option<usize>> {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let pass = |&(launched, read, ms): &Pass| {
            now += Duration::from_millis(ms);
            pace.pass(launched, read, now)
        };
        passes.iter().map(pass).collect()
    }

    const START: Pass = (Some(Decode), None, 9);
    const DECODE: Pass = (Some(Decode), Some(Decode), 4);

    #[test]
    fn pieces_and_decode_steps_take_turns_in_time() {
        // (60 + 13 * 4) / 13 ms a token is 2.2 times 4 ms.
        let ahead =
            [START, DECODE, (Some(Extend), Some(Decode), 4), (Some(Decode), Some(Extend), 60)];
        assert_eq!(paces(&ahead), [None, None, None, Some(13)]);
        // A step is read before the next one is handed over.
        let in_turn = [START, DECODE, (Some(Extend), Some(Extend), 60)];
        assert_eq!(paces(&in_turn)[2], Some(13));
        // The host waits for the piece while it hands it over.
        let held = [
            START,
            DECODE,
            (Some(Extend), Some(Decode), 62),
            (Some(Decode), Some(Extend), 2),
            DECODE,
        ];
        assert_eq!(paces(&held), [None, None, None, Some(13), None]);
        let slow = [START, (Some(Decode), Some(Decode), 1), (Some(Extend), Some(Extend), 9000)];
        assert_eq!(paces(&slow)[2], Some(64));
        let quick = [START, DECODE, (Some(Extend), Some(Extend), 1)];
        assert_eq!(paces(&quick)[2], Some(2));
    }

    #[test]
    fn a_pass_with_a_piece_says_nothing_of_decode_steps() {
        let cycle = [(Some(Extend), Some(Decode), 62), (Some(Decode), Some(Extend), 2)];
        let passes = [&[START, DECODE][..], &cycle, &cycle, &cycle].concat();
        assert_eq!(paces(&passes)[3..], [Some(13), None, Some(13), None, Some(13)]);
        // With no other pass there is no pace; two decode steps make one.
        let unknown = [&[START][..], &cycle, &[DECODE], &cycle].concat();
        assert_eq!(paces(&unknown), [None, None, Some(2), None, None, Some(13)]);
    }

    #[test]
    fn a_pause_is_nobodys_time() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let seconds = |seconds| now + Duration::from_secs(seconds);
        pace.pass(Some(Decode), None, now);
        pace.pass(Some(Decode), Some(Decode), seconds(1));
        pace.idle();
        pace.pass(Some(Extend), None, seconds(99));
        assert_eq!(pace.pass(Some(Decode), Some(Extend), seconds(111)), Some(10));
    }
}
