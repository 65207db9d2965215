//! Rounding against the definitions, sizes against figures worked out by hand.

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;

fn round_trip(dtype: KvDtype, values: &[f32]) -> Vec<f32> {
    let mut row = vec![0xff; dtype.row_len(values.len())];
    dtype.pack(values, &mut row);
    let mut out = vec![f32::NAN; values.len()];
    dtype.unpack(&row, &mut out);
    out
}

/// By the definition of the format: sign, 4 bits of exponent, 3 of mantissa, bias 7.
fn fp8_numbers() -> Vec<f64> {
    let number = |code: i32| {
        let (exponent, mantissa) = (code >> 3, f64::from(code & 7) / 8.0);
        if exponent == 0 {
            mantissa * 2_f64.powi(-6)
        } else {
            (1.0 + mantissa) * 2_f64.powi(exponent - 7)
        }
    };
    (0..127).map(number).collect()
}

#[test]
fn rows_are_as_long_as_the_table_says() {
    let bytes = |dtype: KvDtype| [16, 64, 80, 96, 128, 256].map(|dim| dtype.row_bytes(dim));
    assert_eq!(bytes(KvDtype::Plain(Dtype::Bfloat16)), [32, 128, 160, 192, 256, 512]);
    assert_eq!(bytes(KvDtype::Fp8E4m3), [16, 64, 80, 96, 128, 256]);
    assert_eq!(bytes(KvDtype::Int8), [24, 72, 88, 104, 136, 272]);
    assert_eq!(bytes(KvDtype::Int4), [16, 40, 56, 64, 80, 160]);
}

#[test]
fn every_code_of_fp8_is_the_number_it_stands_for() {
    for (code, number) in fp8_numbers().into_iter().enumerate() {
        let code = u8::try_from(code).unwrap();
        assert_eq!(f64::from(of_fp8(code)), number, "code {code}");
        assert_eq!(f64::from(of_fp8(code | 0x80)), -number, "code {code}");
        assert_eq!(to_fp8(of_fp8(code)), code);
        assert_eq!(to_fp8(-of_fp8(code)), code | 0x80);
    }
}

#[test]
fn fp8_rounds_to_the_nearest_and_ties_to_even() {
    let numbers = fp8_numbers();
    for (code, pair) in numbers.windows(2).enumerate() {
        let middle = f64::midpoint(pair[0], pair[1]) as f32;
        let (low, high) = (u8::try_from(code).unwrap(), u8::try_from(code + 1).unwrap());
        assert_eq!(to_fp8(middle), if code % 2 == 0 { low } else { high }, "{middle}");
        assert_eq!(to_fp8(middle.next_down()), low);
        assert_eq!(to_fp8(middle.next_up()), high);
    }
    for large in [449.0, 1e30, f32::INFINITY, f32::NAN] {
        assert_eq!(of_fp8(to_fp8(large)), 448.0);
    }
    assert_eq!(of_fp8(to_fp8(-1e30)), -448.0);
}

#[test]
fn integers_are_off_by_half_a_step_at_most() {
    let mut rng = SmallRng::seed_from_u64(1);
    for case in 0..500 {
        let dim = [1, 7, 16, 32, 64, 80, 128, 200][case % 8];
        let (size, offset) = (10_f32.powi(rng.random_range(-6..6)), rng.random_range(-3.0..3.0));
        let values: Vec<f32> =
            (0..dim).map(|_| size * (offset + rng.random_range(-1.0..1.0))).collect();
        let (bytes, halves) =
            (round_trip(KvDtype::Int8, &values), round_trip(KvDtype::Int4, &values));
        for (at, value) in values.iter().enumerate() {
            let group = &values[at / GROUP * GROUP..dim.min(at / GROUP * GROUP + GROUP)];
            let (least, greatest) = group
                .iter()
                .fold((f32::MAX, f32::MIN), |(a, b), value| (a.min(*value), b.max(*value)));
            // A scale or bias that was rounded shifts the ends by 2^-8 of themselves.
            let most = least.abs().max(greatest.abs());
            let step = most / 127.0;
            assert!(
                (bytes[at] - value).abs() <= 0.5 * step + most / 250.0,
                "{value} {}",
                bytes[at]
            );
            let step = (greatest - least) / 15.0;
            let allowed = 0.5 * step + 16.0 * step / 250.0 + least.abs() / 250.0;
            assert!((halves[at] - value).abs() <= allowed, "{value} {} {allowed}", halves[at]);
        }
    }
}

#[test]
fn rows_of_one_value_come_back_as_they_were() {
    for dtype in KvDtype::PACKED {
        for value in [0.0, 1.5, -0.25] {
            let out = round_trip(dtype, &[value; 80]);
            assert!(out.iter().all(|out| (out - value).abs() <= value.abs() / 250.0), "{dtype}");
        }
    }
    assert_eq!(round_trip(KvDtype::Int4, &[1.5; 40]), [1.5; 40]);
}

#[test]
fn the_layout_is_that_of_the_table() {
    let mut values = [0.0; 40];
    (values[1], values[33]) = (127.0, -254.0);
    let mut row = [0xff; 48];
    KvDtype::Int8.pack(&values, &mut row);
    assert_eq!(row[..4], [128, 255, 128, 128]);
    assert_eq!(row[33], 1);
    // bf16 of 1 and 2, then what fills the row up.
    assert_eq!(row[40..], [0x80, 0x3f, 0x00, 0x40, 0, 0, 0, 0]);

    let mut row = [0xff; 32];
    (values[1], values[33]) = (15.0, -30.0);
    KvDtype::Int4.pack(&values, &mut row);
    assert_eq!(row[..2], [0xf0, 0]);
    assert_eq!(row[16..18], [0x0f, 0xff]);
    assert_eq!(row[20..28], [0x80, 0x3f, 0, 0, 0x00, 0x40, 0xf0, 0xc1]);
}
