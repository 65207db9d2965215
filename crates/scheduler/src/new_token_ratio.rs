//! A guess of how much of `max_new_tokens` requests really use.
//!
//! It starts high, sinks while decoding goes well and jumps on a retraction.
//! Too low costs retractions, too high leaves memory unused.
//!
//! Upstream: `NewTokenRatioTracker` and `retract_decode` in `sglang/srt/managers/`.

/// Ratio at the start, before `schedule_conservativeness`.
const INIT: f64 = 0.7;
/// The floor, as a share of the start.
const MIN_FACTOR: f64 = 0.14;
/// Decode steps from the start to the floor.
const DECAY_STEPS: f64 = 600.0;

#[derive(Debug)]
pub(crate) struct NewTokenRatio {
    now: f64,
    init: f64,
    min: f64,
}

impl NewTokenRatio {
    pub(crate) fn new(schedule_conservativeness: f64) -> Self {
        let init = (INIT * schedule_conservativeness).min(1.0);
        Self { now: init, init, min: init * MIN_FACTOR }
    }

    pub(crate) fn get(&self) -> f64 {
        self.now
    }

    /// A decode step found room.
    pub(crate) fn decay(&mut self) {
        self.now = (self.now - (self.init - self.min) / DECAY_STEPS).max(self.min);
    }

    /// Requests were retracted; those left have generated `generated` of at most
    /// `max_new` tokens, the steps that the retraction made room for included.
    pub(crate) fn raise(&mut self, generated: usize, max_new: usize) {
        if max_new > 0 {
            self.now = (generated as f64 / max_new as f64).min(1.0);
        }
    }

    /// No request is live.
    pub(crate) fn reset(&mut self) {
        self.now = self.init;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_to_the_floor_in_600_steps_and_jumps_back() {
        let mut ratio = NewTokenRatio::new(1.0);
        assert_eq!(ratio.get(), 0.7);
        (0..300).for_each(|_| ratio.decay());
        assert!((ratio.get() - (0.7 + 0.098) / 2.0).abs() < 1e-9);
        (0..400).for_each(|_| ratio.decay());
        assert!((ratio.get() - 0.098).abs() < 1e-9);
        ratio.raise(60, 80);
        assert_eq!(ratio.get(), 0.75);
        ratio.raise(200, 80);
        assert_eq!(ratio.get(), 1.0);
        ratio.reset();
        assert_eq!(ratio.get(), 0.7);
        assert_eq!(NewTokenRatio::new(5.0).get(), 1.0);
    }
}
