//! Numbers of tokens as upstream takes them: `16384`, `16k`, `25.6k`, `16Ki`.
//!
//! Upstream: `human_readable_int` in `sglang/srt/utils/common.py`.

const SUFFIXES: &[(&str, u64)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// A plain number, or one with an SI suffix (k, M, G, T), which may have decimals, or with an IEC
/// suffix (Ki, Mi, Gi, Ti). What is less than a token is dropped.
///
/// # Errors
/// Anything else; more than fits.
pub(super) fn parse(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let suffix = SUFFIXES.iter().find(|suffix| text.ends_with(suffix.0));
    let (name, unit) = suffix.copied().unwrap_or(("", 1));
    let number = text.strip_suffix(name).unwrap_or(text);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(decimals) {
        return Err("a number, with a suffix if need be: k, M, G, T or Ki, Mi, Gi, Ti".to_owned());
    }
    if number.contains('.') && !matches!(name, "k" | "M" | "G" | "T") {
        return Err("decimals are for the suffixes k, M, G, T".to_owned());
    }
    let tokens = || -> Option<usize> {
        let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
        // Digits beyond a token's change nothing.
        let decimals = &decimals[..decimals.len().min(12)];
        let scale = 10u128.pow(decimals.len() as u32);
        let part = decimals.parse::<u128>().ok()? * u128::from(unit) / scale;
        whole.checked_add(part as u64)?.try_into().ok()
    };
    tokens().ok_or_else(|| "it is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_upstreams() {
        for (text, tokens) in [
            ("16384", 16384),
            (" 0 ", 0),
            ("1k", 1000),
            ("25.6k", 25_600),
            ("1.23456k", 1234),
            ("0.000001M", 1),
            ("1M", 1_000_000),
            ("1Ki", 1024),
            ("3Mi", 3 << 20),
            ("2T", 2_000_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(tokens), "{text}");
        }
        for text in ["", "k", "1K", "1ki", "1.5", "1.5Ki", ".5k", "1.k", "-1", "+1", "1e3", "1 k"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("99999999999T").unwrap_err(), "it is too large");
    }
}
