//! See the crate `fuzz-targets`.

#![no_main]

use fuzz_targets::{guarded, tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| guarded(|| tokenizer::run(data)));
