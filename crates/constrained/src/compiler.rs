//! Compiled grammars, kept for the next request that asks for the same.

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    thread,
};

use types::TokenGrammar;

use crate::{CompileError, GrammarBackend, GrammarSpec};

/// Grammars kept.
const MAX_CACHED: usize = 256;
/// Bytes of text of all grammars kept.
const MAX_CACHED_BYTES: usize = 16 << 20;
/// Bytes of a grammar.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Libraries descend into nested grammars, and from rule to rule, by recursion.
const STACK_BYTES: usize = 256 << 20;
/// Levels of nesting along a chain of rules. A library has been seen to take some 4 KB of
/// stack for one.
pub(crate) const MAX_LEVELS: usize = 16_000;

/// Compiles grammars, each once as long as it is kept.
pub struct GrammarCompiler {
    backend: Box<dyn GrammarBackend>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<GrammarSpec, Entry>,
    /// Of all entries' texts.
    num_bytes: usize,
    /// Counts look-ups: the age of entries.
    time: u64,
}

/// A grammar at its beginning, or why there is none.
type Compiled = Result<Box<dyn TokenGrammar>, CompileError>;

struct Entry {
    /// Failures are kept too: they may have taken long.
    grammar: Compiled,
    last_used: u64,
}

impl GrammarCompiler {
    /// With nothing in its cache.
    pub fn new(backend: Box<dyn GrammarBackend>) -> Self {
        Self { backend, cache: Mutex::default() }
    }

    /// The grammar at its beginning, if it is kept.
    pub fn cached(
        &self,
        spec: &GrammarSpec,
    ) -> Option<Result<Box<dyn TokenGrammar>, CompileError>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.time += 1;
        let time = cache.time;
        let entry = cache.entries.get_mut(spec)?;
        entry.last_used = time;
        Some(entry.grammar.clone())
    }

    /// The grammar at its beginning. Blocks while it is compiled.
    ///
    /// # Errors
    /// A grammar that cannot be compiled within the limits.
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Box<dyn TokenGrammar>, CompileError> {
        if let Some(grammar) = self.cached(spec) {
            return grammar;
        }
        let (kind, len) = (spec.kind, spec.text.len());
        if len > MAX_TEXT_BYTES {
            return Err(CompileError::TooLong { kind, len, max: MAX_TEXT_BYTES });
        }
        let (grammar, kept) = self.compile_aside(spec)?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(spec.clone(), kept);
        grammar
    }

    /// What comes of a grammar, and a copy of that. On a thread with much stack; a panic of the
    /// library is a failure like others.
    ///
    /// # Errors
    /// There is no thread, which is not the grammar's fault.
    fn compile_aside(&self, spec: &GrammarSpec) -> Result<(Compiled, Compiled), CompileError> {
        let work = || {
            let grammar = self.backend.compile(spec);
            (grammar.clone(), grammar)
        };
        let result = thread::scope(|scope| {
            let builder = thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES);
            let thread = builder.spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(work)));
            thread.ok().map(|thread| thread.join().and_then(|result| result))
        });
        let panicked = CompileError::Panicked { kind: spec.kind };
        let result = result.ok_or_else(|| panicked.clone())?;
        Ok(result.unwrap_or_else(|_| (Err(panicked.clone()), Err(panicked))))
    }
}

impl Cache {
    /// Makes room by forgetting what was not used for the longest time.
    fn insert(&mut self, spec: GrammarSpec, grammar: Compiled) {
        self.num_bytes += spec.text.len();
        self.time += 1;
        let entry = Entry { grammar, last_used: self.time };
        let key = spec.clone();
        if self.entries.insert(spec, entry).is_some() {
            self.num_bytes -= key.text.len();
        }
        while self.entries.len() > MAX_CACHED || self.num_bytes > MAX_CACHED_BYTES {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_used);
            let Some(oldest) = oldest.map(|(spec, _)| spec.clone()) else { break };
            self.entries.remove(&oldest);
            self.num_bytes -= oldest.text.len();
        }
    }
}

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarCompiler").field("backend", &self.backend).finish_non_exhaustive()
    }
}
