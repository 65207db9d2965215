//! See the crate `fuzz-targets`.

#![no_main]

use fuzz_targets::{chat_template, guarded};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| guarded(|| chat_template::run(data)));
