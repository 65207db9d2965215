//! Every vector unpacks what plain code unpacks, and adds lanes up in one order.

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;
use crate::cpu::isa::Isa;

/// Weights of a unit unpacked with these bits, back in their natural order.
struct UnpackUnit<'a, const BITS: usize>(&'a [u8], f32, f32);

impl<const BITS: usize> WithVector for UnpackUnit<'_, BITS> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<V: Vector>(self) -> Vec<f32> {
        assert_eq!(self.0.len(), UNIT * BITS / 8);
        let positions: [f32; UNIT] = std::array::from_fn(|at| at as f32);
        // SAFETY: lengths are as needed.
        let (weights, order) = unsafe {
            let group = V::affine_group::<BITS>(self.1, self.2);
            (
                values::<V>(V::unit_affine::<BITS>(self.0.as_ptr(), group)),
                values::<V>(V::arrange::<BITS>(V::unit_f32(positions.as_ptr()))),
            )
        };
        let mut natural = vec![f32::NAN; UNIT];
        for (weight, at) in weights.into_iter().zip(order) {
            natural[at as usize] = weight;
        }
        natural
    }
}

fn values<V: Vector>(unit: V::Unit) -> Vec<f32> {
    let mut out = vec![0.0; UNIT];
    for (vector, to) in unit.as_ref().iter().zip(out.chunks_mut(V::LANES)) {
        // SAFETY: there is room for the lanes.
        unsafe { vector.store(to.as_mut_ptr()) };
    }
    out
}

fn check_unpack<const BITS: usize>() {
    let mut rng = SmallRng::seed_from_u64(BITS as u64);
    for _ in 0..50 {
        let bytes: Vec<u8> = (0..UNIT * BITS / 8).map(|_| rng.random()).collect();
        // Exact in f32, so that one rounding or two make no difference.
        let (scale, bias) =
            (0.125 * rng.random_range(-8..9) as f32, rng.random_range(-8..9) as f32);
        let expected: Vec<f32> = (0..UNIT)
            .map(|at| {
                let bit = |i: usize| u32::from(bytes[i / 8] >> (i % 8) & 1);
                let q: u32 = (0..BITS).map(|i| bit(at * BITS + i) << i).sum();
                scale * q as f32 + bias
            })
            .collect();
        for isa in Isa::available() {
            let actual = with_vector(isa, UnpackUnit::<BITS>(&bytes, scale, bias));
            assert_eq!(actual, expected, "{BITS} bits, {isa:?}");
        }
    }
}

#[test]
fn units_are_unpacked() {
    check_unpack::<2>();
    check_unpack::<3>();
    check_unpack::<4>();
    check_unpack::<5>();
    check_unpack::<6>();
    check_unpack::<8>();
}

struct Sums<'a>(&'a [f32]);

impl WithVector for Sums<'_> {
    type Output = (Vec<f32>, Vec<f32>, Vec<f32>);

    /// Lanes summed one vector at a time, four at a time, and as the contract says.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) -> Self::Output {
        let halves = |lanes: &[f32]| {
            let mut lanes = lanes.to_vec();
            while lanes.len() > 1 {
                let half = lanes.len() / 2;
                lanes = (0..half).map(|i| lanes[i] + lanes[i + half]).collect();
            }
            lanes[0]
        };
        let lanes: Vec<&[f32]> = self.0.chunks_exact(V::LANES).take(4).collect();
        // SAFETY: chunks have as many values as there are lanes.
        let four = [0, 1, 2, 3].map(|i| unsafe { V::load(lanes[i].as_ptr()) });
        // SAFETY: nothing is read.
        let (one, all) = unsafe { (four.map(|vector| vector.sum()), V::sum4(four)) };
        (one.to_vec(), all.to_vec(), lanes.into_iter().map(halves).collect())
    }
}

#[test]
fn lanes_are_summed_in_one_order() {
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..100 {
        let values: Vec<f32> = (0..64).map(|_| rng.random_range(-1.0..1.0)).collect();
        for isa in Isa::available() {
            let (one, all, expected) = with_vector(isa, Sums(&values));
            assert_eq!(one, expected, "{isa:?}");
            assert_eq!(all, expected, "{isa:?}");
        }
    }
}

struct Widened<'a>(&'a [bf16; UNIT], &'a [f16; UNIT]);

impl WithVector for Widened<'_> {
    type Output = (Vec<f32>, Vec<f32>);

    #[inline(always)]
    unsafe fn run<V: Vector>(self) -> Self::Output {
        // SAFETY: these are units.
        unsafe {
            (values::<V>(V::unit_bf16(self.0.as_ptr())), values::<V>(V::unit_f16(self.1.as_ptr())))
        }
    }
}

#[test]
fn halves_are_widened() {
    let bf16s: [bf16; UNIT] = std::array::from_fn(|i| bf16::from_f32(0.37 * i as f32 - 5.0));
    let f16s: [f16; UNIT] = std::array::from_fn(|i| f16::from_f32(0.37 * i as f32 - 5.0));
    let expected = (bf16s.map(bf16::to_f32).to_vec(), f16s.map(f16::to_f32).to_vec());
    for isa in Isa::available() {
        assert_eq!(with_vector(isa, Widened(&bf16s, &f16s)), expected, "{isa:?}");
    }
}
