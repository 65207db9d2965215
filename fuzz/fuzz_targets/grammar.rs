//! See the crate `fuzz-targets`.

#![no_main]

use fuzz_targets::{grammar, guarded};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| guarded(|| grammar::run(data)));
