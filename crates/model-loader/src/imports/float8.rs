//! Numbers of one byte, by table: exact on every device.

use mlx::{Array, Dtype};

/// The numbers that bytes stand for in E4M3 without infinities, f32.
pub(super) fn from_e4m3(bytes: &Array) -> mlx::Result<Array> {
    by_table(bytes, e4m3)
}

/// The powers of two that bytes stand for in E8M0, f32.
pub(super) fn from_e8m0(bytes: &Array) -> mlx::Result<Array> {
    by_table(bytes, |byte| match byte {
        255 => f32::NAN,
        _ => (f32::from(byte) - 127.0).exp2(),
    })
}

fn by_table(bytes: &Array, value: impl Fn(u8) -> f32) -> mlx::Result<Array> {
    let table: Vec<f32> = (0..=u8::MAX).map(value).collect();
    Array::from_slice(&table, &[table.len()])?.take(bytes, 0)
}

fn e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (f32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match byte & 0x7F {
        0x7F => f32::NAN,
        0..8 => fraction * (-9_f32).exp2(),
        _ => (1.0 + fraction / 8.0) * (exponent - 7.0).exp2(),
    };
    if byte < 0x80 { magnitude } else { -magnitude }
}

/// As numbers, whatever kind of scales they are.
pub(super) fn scales(stored: &Array) -> mlx::Result<Array> {
    match stored.dtype() {
        Dtype::Uint8 => from_e8m0(stored),
        _ => stored.astype(Dtype::Float32),
    }
}
