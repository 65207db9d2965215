//! What the fuzz targets do with an input. The programs around it are in `fuzz/`, outside the
//! workspace; this is here so that CI sees whether it compiles, and that good inputs pass.

pub mod chat_template;
#[cfg(feature = "mlx")]
pub mod gguf;
pub mod grammar;
pub mod http_body;
pub mod reasoning;
#[cfg(feature = "mlx")]
pub mod safetensors;
pub mod tokenizer;
pub mod tool_call;

#[path = "../../server/tests/it/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "it is made for the server's tests, and has more than is used here"
)]
mod support;

use std::{
    backtrace::Backtrace,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::{Mutex, Once, PoisonError},
};

/// Panics since the last input began, of all threads.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs one input. libFuzzer's own hook ends the process at any panic; ours counts those
/// that nobody catches, since some crates contain libraries that panic by design.
#[expect(clippy::print_stderr, reason = "it is what a fuzzer shows")]
pub fn guarded(run: impl FnOnce()) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| panic::set_hook(Box::new(note_panic)));
    lock().clear();
    if panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
        for panic in lock().iter() {
            eprintln!("{panic}");
        }
        std::process::abort();
    }
}

fn note_panic(info: &panic::PanicHookInfo<'_>) {
    let mut panics = lock();
    // One that repeats within an input says nothing new.
    if panics.len() < 8 {
        panics.push(format!("{info}\n{}", Backtrace::force_capture()));
    }
}

fn lock() -> std::sync::MutexGuard<'static, Vec<String>> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cuts the first `N` bytes off; zeros where there are none.
pub fn head<const N: usize>(data: &[u8]) -> ([u8; N], &[u8]) {
    let (head, rest) = data.split_at(N.min(data.len()));
    let mut bytes = [0; N];
    bytes[..head.len()].copy_from_slice(head);
    (bytes, rest)
}

/// A generator for what need not be in the input, such as places to cut a text at.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    /// `text` in pieces of up to 16 characters, or, for odd seeds, of one.
    pub fn cut<'a>(&mut self, text: &'a str) -> Vec<&'a str> {
        let longest = if self.0.is_multiple_of(2) { 16 } else { 1 };
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let num_chars = 1 + self.below(longest);
            let at = rest.char_indices().nth(num_chars).map_or(rest.len(), |(at, _)| at);
            let (piece, left) = rest.split_at(at);
            pieces.push(piece);
            rest = left;
        }
        pieces
    }
}

/// A folder of this process, in memory where the system has such a place.
pub fn folder() -> PathBuf {
    let places = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    let place = places.iter().find(|place| place.is_dir()).expect("a place for files");
    let folder = place.join(format!("sglang-mlx-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}
