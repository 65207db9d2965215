//! See the crate `fuzz-targets`.

#![no_main]

use fuzz_targets::{guarded, http_body};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| guarded(|| http_body::run(data)));
