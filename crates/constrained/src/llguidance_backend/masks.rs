//! Masks that took long, kept for whoever comes to the same place in a grammar.
//!
//! Where the library cannot tell that parts of the vocabulary fit, it walks all of it, a
//! millisecond or two, and remembers the mask until the next. But completions come to the same
//! places again: at the beginning of a text, within a begun mark, so many characters into it.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use llguidance::derivre::StateID;
use types::TokenId;

use super::parser::LexerPlace;

/// Bytes of masks kept for all grammars of a vocabulary.
const MAX_BYTES: usize = 64 << 20;
/// Masks kept for one lexer, the same one for several places counted for each; and of
/// histories.
const MAX_PLACES: usize = 4096;
/// Nodes of the vocabulary's tree that were looked at for a mask that is kept: some 20
/// microseconds.
const MIN_NODES: usize = 2000;

/// Which lexemes were read so far, by a number: in a grammar, what its parser expects. The
/// same number is the same history; a history may have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct History(u64);

/// What makes one history of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// The lexemes end that this state tells, and the next begins with this byte.
    Lexeme(StateID, Option<u8>),
    /// A special token, at this place of the lexer.
    Token(LexerPlace, TokenId),
}

/// Where a parser is: all that its mask depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) history: History,
    pub(super) lexer: LexerPlace,
}

/// The masks kept for all grammars of a vocabulary, equal ones once.
#[derive(Debug)]
pub(super) struct MaskStore {
    distinct: Mutex<HashSet<Arc<[u32]>>>,
    /// All that keep some.
    places: Mutex<Vec<Weak<KnownPlaces>>>,
    max_bytes: usize,
    min_nodes: usize,
}

/// What is known by one lexer, whose numbers of states mean nothing to others.
#[derive(Debug)]
pub(super) struct KnownPlaces {
    known: Mutex<Known>,
    store: Arc<MaskStore>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    histories: HashMap<(History, Step), History>,
    /// Of histories, those that are forgotten included: no number is used twice.
    num_histories: u64,
    masks: HashMap<Place, Arc<[u32]>>,
}

impl MaskStore {
    pub(super) fn new() -> Self {
        Self::with_limits(MAX_BYTES, MIN_NODES)
    }

    /// Keeps so many bytes of masks for which so many nodes were looked at.
    pub(super) fn with_limits(max_bytes: usize, min_nodes: usize) -> Self {
        Self { distinct: Mutex::default(), places: Mutex::default(), max_bytes, min_nodes }
    }

    /// The mask, if there is room for it.
    fn keep(&self, mask: &[u32]) -> Option<Arc<[u32]>> {
        let mut distinct = lock(&self.distinct);
        if let Some(same) = distinct.get(mask) {
            return Some(Arc::clone(same));
        }
        // All masks of a vocabulary are as long.
        let is_full = |num_masks: usize| (num_masks + 1) * size_of_val(mask) > self.max_bytes;
        if is_full(distinct.len()) {
            distinct.retain(|mask| Arc::strong_count(mask) > 1);
        }
        if is_full(distinct.len()) {
            return None;
        }
        let mask: Arc<[u32]> = mask.into();
        distinct.insert(Arc::clone(&mask));
        Some(mask)
    }

    /// Forgets all masks: what is needed comes again.
    fn clear(&self) {
        let places: Vec<_> = lock(&self.places).iter().filter_map(Weak::upgrade).collect();
        for places in places {
            lock(&places.known).masks.clear();
        }
    }
}

impl KnownPlaces {
    pub(super) fn new(store: &Arc<MaskStore>) -> Arc<Self> {
        Self::with(Known::default(), store)
    }

    /// The same for a copy of the lexer, independent from now on.
    pub(super) fn copy(&self) -> Arc<Self> {
        Self::with(lock(&self.known).clone(), &self.store)
    }

    fn with(known: Known, store: &Arc<MaskStore>) -> Arc<Self> {
        let this = Arc::new(Self { known: Mutex::new(known), store: Arc::clone(store) });
        let mut all = lock(&store.places);
        all.retain(|places| places.strong_count() > 0);
        all.push(Arc::downgrade(&this));
        this
    }

    pub(super) fn history(&self, before: History, step: Step) -> History {
        let known = &mut *lock(&self.known);
        if let Some(&history) = known.histories.get(&(before, step)) {
            return history;
        }
        known.num_histories += 1;
        let history = History(known.num_histories);
        insert(&mut known.histories, (before, step), history);
        history
    }

    pub(super) fn mask(&self, place: &Place) -> Option<Arc<[u32]>> {
        lock(&self.known).masks.get(place).cloned()
    }

    /// Keeps a mask, if so many nodes were looked at that it is worth it.
    pub(super) fn keep(&self, place: Place, mask: &[u32], num_nodes: usize) {
        if num_nodes < self.store.min_nodes {
            return;
        }
        let kept = self.store.keep(mask).or_else(|| {
            self.store.clear();
            self.store.keep(mask)
        });
        if let Some(mask) = kept {
            insert(&mut lock(&self.known).masks, place, mask);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A map that is full forgets all: what is needed comes again.
fn insert<K: Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: V) {
    if map.len() == MAX_PLACES {
        map.clear();
    }
    map.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(state: u32) -> Place {
        let lexer = LexerPlace { state: StateID::new(state), is_within: false };
        Place { history: History::default(), lexer }
    }

    #[test]
    fn masks_are_kept_within_their_bytes_equal_ones_once() {
        let store = Arc::new(MaskStore::with_limits(40, 7));
        let num_masks = || lock(&store.distinct).len();
        let (places, others) = (KnownPlaces::new(&store), KnownPlaces::new(&store));
        places.keep(place(0), &[1, 2], 6);
        assert_eq!(places.mask(&place(0)), None, "it took too few nodes");
        for state in 0..20 {
            places.keep(place(state), &[1, 2], 7);
        }
        let first = places.mask(&place(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &places.mask(&place(19)).unwrap()));
        drop(first);
        for state in 20..24 {
            others.keep(place(state), &[state, 0], 7);
        }
        assert_eq!(num_masks(), 5, "40 bytes");
        places.keep(place(24), &[24, 0], 7);
        assert_eq!(others.mask(&place(20)), None, "all others make room");
        assert_eq!(*places.mask(&place(24)).unwrap(), [24, 0]);
        assert_eq!(num_masks(), 1);
    }

    #[test]
    fn places_that_are_gone_leave_room() {
        let store = Arc::new(MaskStore::with_limits(16, 0));
        let (gone, stays) = (KnownPlaces::new(&store), KnownPlaces::new(&store));
        gone.keep(place(1), &[1, 0], 0);
        stays.keep(place(2), &[2, 0], 0);
        let copy = gone.copy();
        drop(gone);
        assert_eq!(*copy.mask(&place(1)).unwrap(), [1, 0], "a copy knows the same");
        drop(copy);
        stays.keep(place(3), &[3, 0], 0);
        assert!(stays.mask(&place(2)).is_some() && stays.mask(&place(3)).is_some());
    }

    #[test]
    fn histories_are_told_apart_and_bounded() {
        let places = KnownPlaces::new(&Arc::new(MaskStore::new()));
        let step = |state, byte| Step::Lexeme(StateID::new(state), byte);
        let start = History::default();
        let first = places.history(start, step(1, None));
        assert_eq!(places.history(start, step(1, None)), first);
        let others = [
            places.history(first, step(1, None)),
            places.history(start, step(1, Some(b'a'))),
            places.history(start, step(2, None)),
        ];
        assert_eq!(HashSet::from(others).union(&HashSet::from([start, first])).count(), 5);
        let mut last = start;
        for _ in 0..3 * MAX_PLACES {
            last = places.history(last, step(1, Some(b'b')));
            assert_ne!(last, first, "no number comes again");
        }
        assert!(lock(&places.known).histories.len() <= MAX_PLACES);
    }
}
