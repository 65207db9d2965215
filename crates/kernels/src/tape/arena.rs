//! Where the values of a tape lie in one buffer.

use mlx::{Array, Dtype};

/// Every place starts here: what the driver guarantees for allocations, too.
const ALIGNMENT: usize = 256;

/// More than was asked for: steps of as many rows with longer contexts need little more
/// (wider page tables), and should find it here.
const ROOM_BYTES: usize = 4 << 20;

/// The buffer that tapes have their values in. Those that run one after the other share
/// it; it grows if one needs more, and then the older ones keep the smaller one.
#[derive(Debug, Default)]
pub struct Arena {
    buffer: Option<Array>,
}

impl Arena {
    /// A buffer of at least `nbytes`.
    pub(super) fn at_least(&mut self, nbytes: usize) -> mlx::Result<&Array> {
        if self.buffer.as_ref().is_none_or(|buffer| buffer.nbytes() < nbytes) {
            let words = (nbytes + ROOM_BYTES).div_ceil(4);
            let buffer = Array::zeros(&[words], Dtype::Uint32)?;
            buffer.eval()?;
            mlx::synchronize()?;
            self.buffer = Some(buffer);
        }
        Ok(self.buffer.as_ref().expect("just made"))
    }
}

/// Offsets in bytes.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) inputs: Vec<usize>,
    pub(super) values: Vec<usize>,
    pub(super) nbytes: usize,
}

/// Places inputs, which stay, and values, of (bytes, first, last launch), each in
/// the first gap among those that live at the same time.
pub(super) fn plan(inputs: &[usize], lives: &[(usize, usize, usize)]) -> Plan {
    let mut base = 0;
    let inputs = inputs
        .iter()
        .map(|&nbytes| {
            let offset = base;
            base += nbytes.max(1).next_multiple_of(ALIGNMENT);
            offset
        })
        .collect();
    let mut values: Vec<usize> = Vec::with_capacity(lives.len());
    let mut end = base;
    for (place, &(nbytes, first, last)) in lives.iter().enumerate() {
        let mut taken: Vec<(usize, usize)> = lives[..place]
            .iter()
            .zip(&values)
            .filter(|((_, begin, end), _)| *begin <= last && first <= *end)
            .map(|(&(nbytes, ..), &offset)| (offset, offset + nbytes))
            .collect();
        taken.sort_unstable();
        let mut offset = base;
        for (start, stop) in taken {
            if offset + nbytes <= start {
                break;
            }
            offset = offset.max(stop.next_multiple_of(ALIGNMENT));
        }
        end = end.max(offset + nbytes);
        values.push(offset);
    }
    Plan { inputs, values, nbytes: end.next_multiple_of(ALIGNMENT) }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn the_buffer_grows_only_when_it_must() {
        let mut arena = Arena::default();
        let first = arena.at_least(1001).unwrap().clone();
        assert_eq!(first.nbytes(), 1004 + ROOM_BYTES);
        assert_eq!(arena.at_least(first.nbytes()).unwrap().id(), first.id());
        let next = arena.at_least(first.nbytes() + 1).unwrap();
        assert_eq!(next.nbytes(), 1008 + 2 * ROOM_BYTES);
    }

    #[test]
    fn places_are_used_again_after_their_last_reader() {
        let plan = plan(&[4, 1000], &[(100, 0, 1), (300, 1, 2), (100, 2, 3)]);
        assert_eq!(plan.inputs, [0, 256]);
        assert_eq!(plan.values, [1280, 1536, 1280]);
        assert_eq!(plan.nbytes, 2048);
    }

    #[test]
    fn what_lives_together_never_overlaps() {
        let mut random = SmallRng::seed_from_u64(1);
        for _ in 0..200 {
            let lives: Vec<_> = (0..40)
                .map(|time| {
                    let last = time + random.random_range(0..10_usize);
                    (random.random_range(1..5000_usize), time, last)
                })
                .collect();
            let plan = plan(&[10], &lives);
            for (i, &(size, first, last)) in lives.iter().enumerate() {
                let offset = plan.values[i];
                assert!(offset >= 256 && offset.is_multiple_of(ALIGNMENT));
                assert!(offset + size <= plan.nbytes);
                for (j, &(other, begin, end)) in lives.iter().enumerate().skip(i + 1) {
                    let apart = offset + size <= plan.values[j] || plan.values[j] + other <= offset;
                    assert!(apart || last < begin || end < first, "{i} and {j}");
                }
            }
        }
    }
}
