//! Lexers of one grammar, which requests share.
//!
//! The library makes a lexer's states while tokens come, and that is most of what a mask
//! costs. A copy of a matcher can share the lexer of the one it is copied from, behind a lock;
//! so the next request finds the states made, and those that run at the same time spread over
//! a few lexers and seldom wait for one another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use llguidance::Matcher;

/// Lexers that are in use at once.
const MAX_SHARED: usize = 4;
/// Work a shared lexer has done, in the library's units: some 100 bytes each. One that has
/// done more goes with those that use it.
const MAX_COST: u64 = 100_000;

/// The lexers of a grammar.
pub(super) struct Lexers {
    /// At the beginning, with a lexer that was never used.
    cold: Matcher,
    /// Work up to the first mask, most of it when the grammar was compiled.
    first_cost: u64,
    shared: Mutex<Vec<Shared>>,
}

struct Shared {
    /// At the beginning.
    matcher: Matcher,
    users: Weak<()>,
}

/// The use of a shared lexer.
#[derive(Clone)]
pub(super) struct Lease {
    lexers: Arc<Lexers>,
    user: Arc<()>,
    /// Work that the lexer has done when it was last looked at, compiling included.
    cost: u64,
}

impl Lexers {
    pub(super) fn new(cold: Matcher) -> Self {
        let mut matcher = cold.deep_clone();
        // A grammar that cannot begin says so to whoever follows it.
        let _ = matcher.compute_mask_or_eos();
        let first_cost = matcher.last_step_stats().map_or(0, |stats| stats.lexer_cost);
        Self { cold, first_cost, shared: Mutex::default() }
    }

    /// A matcher at the beginning, with a lexer of its own.
    pub(super) fn cold(&self) -> Matcher {
        self.cold.deep_clone()
    }

    /// A matcher at the beginning, with the lexer that the fewest use.
    pub(super) fn lease(lexers: &Arc<Self>) -> (Matcher, Lease) {
        let mut shared = lexers.lock();
        let num_shared = shared.len();
        let least = shared.iter_mut().min_by_key(|shared| shared.users.strong_count());
        let lease = |user| Lease { lexers: Arc::clone(lexers), user, cost: 0 };
        match least {
            Some(Shared { matcher, users }) if users.strong_count() == 0 => {
                let user = Arc::new(());
                *users = Arc::downgrade(&user);
                (matcher.clone(), lease(user))
            }
            Some(Shared { matcher, users }) if num_shared == MAX_SHARED => {
                (matcher.clone(), lease(users.upgrade().unwrap_or_default()))
            }
            other => {
                let warm = other.map_or(&lexers.cold, |shared| &shared.matcher).deep_clone();
                let (matcher, user) = (warm.clone(), Arc::new(()));
                shared.push(Shared { matcher: warm, users: Arc::downgrade(&user) });
                (matcher, lease(user))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
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
    use crate::llguidance_backend::tests::matcher;

    #[test]
    fn a_few_lexers_are_lent_to_many_and_none_that_is_retired() {
        let lexers = Arc::new(Lexers::new(matcher("a+")));
        let mut leases: Vec<Lease> = (0..9).map(|_| Lexers::lease(&lexers).1).collect();
        assert_eq!(lexers.lock().len(), MAX_SHARED);
        leases[0].retire();
        leases[1].spend(lexers.first_cost + MAX_COST + 1);
        assert_eq!(lexers.lock().len(), MAX_SHARED - 2);
        drop(leases);
        assert_eq!(lexers.lock().len(), 1, "one stays warm");
    }
}
