//! See the crate `fuzz-targets`.

#![no_main]

use fuzz_targets::{guarded, tool_call};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| guarded(|| tool_call::run(data)));
