//! Lexers of one grammar, which requests share.
//!
//! The library makes a lexer's states while tokens come, and that is most of what a mask
//! costs. A copy of a parser can share the lexer of the one it is copied from, behind a lock;
//! so the next request finds the states made, and those that run at the same time spread over
//! a few lexers and seldom wait for one another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{
    masks::{History, KnownPlaces, MaskStore, Place},
    parser::{LexerPlace, LlParser},
};

/// Lexers that are in use at once.
const MAX_SHARED: usize = 4;
/// Work a shared lexer has done, in the library's units: some 100 bytes each. One that has
/// done more goes with those that use it.
const MAX_COST: u64 = 100_000;

/// The lexers of a grammar.
pub(super) struct Lexers {
    /// At the beginning, with a lexer that was never used.
    cold: LlParser,
    /// Where that is, for all lexers.
    beginning: Option<Place>,
    /// The lexer comes to its beginning again only where the grammar begins again.
    repeats: bool,
    /// Work up to the first mask, most of it when the grammar was compiled.
    first_cost: u64,
    masks: Arc<MaskStore>,
    shared: Mutex<Vec<Shared>>,
}

struct Shared {
    /// At the beginning.
    parser: LlParser,
    places: Arc<KnownPlaces>,
    users: Weak<()>,
}

/// The use of a shared lexer.
#[derive(Clone)]
pub(super) struct Lease {
    lexers: Arc<Lexers>,
    places: Arc<KnownPlaces>,
    user: Arc<()>,
    /// Work that the lexer has done when it was last looked at, compiling included.
    cost: u64,
}

impl Lexers {
    /// `cold` has taken no token. If the grammar `repeats`, what may follow a lexeme after
    /// which the lexer is at its beginning is what the grammar begins with, all of it.
    pub(super) fn new(cold: LlParser, repeats: bool, masks: &Arc<MaskStore>) -> Self {
        let mut parser = cold.deep_clone();
        let lexer = parser.lexer_place().ok();
        let beginning = lexer.map(|lexer| Place { history: History::default(), lexer });
        // A grammar that cannot begin says so to whoever follows it.
        let _ = parser.mask();
        let (first_cost, _) = parser.mask_cost();
        let (masks, shared) = (Arc::clone(masks), Mutex::default());
        Self { cold, beginning, repeats, first_cost, masks, shared }
    }

    /// A parser at the beginning, with a lexer of its own.
    pub(super) fn cold(&self) -> LlParser {
        self.cold.deep_clone()
    }

    pub(super) fn beginning(&self) -> Option<Place> {
        self.beginning
    }

    /// Whether the grammar begins again at this place.
    pub(super) fn is_repeated(&self, lexer: LexerPlace) -> bool {
        self.repeats && self.beginning.is_some_and(|place| place.lexer == lexer)
    }

    /// A parser at the beginning, with the lexer that the fewest use.
    pub(super) fn lease(lexers: &Arc<Self>) -> (LlParser, Lease) {
        let mut shared = lexers.lock();
        let num_shared = shared.len();
        let lease = |places: &Arc<_>, user| {
            let (lexers, places) = (Arc::clone(lexers), Arc::clone(places));
            Lease { lexers, places, user, cost: 0 }
        };
        let least = shared.iter_mut().min_by_key(|shared| shared.users.strong_count());
        match least {
            Some(Shared { parser, places, users }) if users.strong_count() == 0 => {
                let user = Arc::new(());
                *users = Arc::downgrade(&user);
                (parser.clone(), lease(places, user))
            }
            Some(Shared { parser, places, users }) if num_shared == MAX_SHARED => {
                (parser.clone(), lease(places, users.upgrade().unwrap_or_default()))
            }
            other => {
                let (mut parser, places) = match other {
                    // Others go on with that lexer meanwhile: a copy of it may have more states
                    // than are known, and never fewer.
                    Some(warm) => {
                        let places = warm.places.copy();
                        (warm.parser.deep_clone(), places)
                    }
                    None => (lexers.cold(), KnownPlaces::new(&lexers.masks)),
                };
                parser.compute_masks_by(Arc::<KnownPlaces>::clone(&places));
                let (copy, user) = (parser.clone(), Arc::new(()));
                let lease = lease(&places, Arc::clone(&user));
                shared.push(Shared { parser, places, users: Arc::downgrade(&user) });
                (copy, lease)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The masks that are known by this lexer.
    pub(super) fn places(&self) -> &KnownPlaces {
        &self.places
    }

    /// The lexer has worked. It may be time that nobody else gets it.
    pub(super) fn spend(&mut self, cost: u64) {
        self.cost += cost;
        if self.cost > self.lexers.first_cost + MAX_COST {
            self.retire();
        }
    }

    /// Nobody else gets this lexer.
    pub(super) fn retire(&self) {
        let user = Arc::downgrade(&self.user);
        self.lexers.lock().retain(|shared| !shared.users.ptr_eq(&user));
    }
}

impl Drop for Lease {
    /// One warm lexer is enough while nobody follows the grammar.
    fn drop(&mut self) {
        if Arc::strong_count(&self.user) == 1 {
            let user = Arc::downgrade(&self.user);
            let mut shared = self.lexers.lock();
            let num_idle = shared.iter().filter(|shared| shared.users.strong_count() == 0).count();
            if num_idle > 0 {
                shared.retain(|shared| !shared.users.ptr_eq(&user));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llguidance_backend::tests::{library, parser};

    #[test]
    fn a_few_lexers_are_lent_to_many_and_none_that_is_retired() {
        let lexers =
            Arc::new(Lexers::new(parser("a+"), false, &Arc::new(MaskStore::new(library()))));
        let mut leases: Vec<Lease> = (0..9).map(|_| Lexers::lease(&lexers).1).collect();
        assert_eq!(lexers.lock().len(), MAX_SHARED);
        leases[0].retire();
        leases[1].spend(lexers.first_cost + MAX_COST + 1);
        assert_eq!(lexers.lock().len(), MAX_SHARED - 2);
        drop(leases);
        assert_eq!(lexers.lock().len(), 1, "one stays warm");
    }
}
