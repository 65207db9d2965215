//! Masks that took long, kept for whoever comes to the same place in a grammar.
//!
//! Where the library cannot tell that parts of the vocabulary fit, it walks all of it, a
//! millisecond or two, and remembers the mask until the next. But completions come to the same
//! places again: at the beginning of a text, within a begun mark, so many characters into it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use llguidance::{derivre::StateID, earley::BiasComputer};
use types::TokenId;

use super::{interior::Interior, parser::LexerPlace};

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

/// What is known of a state of a lexer.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// So many masks took long there, since their places were not known.
    Slow(u32),
    /// Which tokens stay within the lexeme.
    Interior(Arc<(Interior, Room)>),
    /// To look into it does not pay.
    Useless,
}

/// The masks kept for all grammars of a vocabulary, equal ones once.
pub(super) struct MaskStore {
    /// How the library computes a mask.
    library: Arc<dyn BiasComputer>,
    distinct: Mutex<HashSet<Arc<[u32]>>>,
    /// All that keep some.
    places: Mutex<Vec<Weak<KnownPlaces>>>,
    /// Bytes of what is kept of states.
    num_bytes: Arc<AtomicUsize>,
    max_bytes: usize,
    min_nodes: usize,
}

/// Bytes that count as long as this lives.
#[derive(Debug)]
pub(super) struct Room {
    num_bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.fetch_sub(self.num_bytes, Ordering::Relaxed);
    }
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
    states: HashMap<StateID, Seen>,
}

impl MaskStore {
    pub(super) fn new(library: Arc<dyn BiasComputer>) -> Self {
        Self::with_limits(library, MAX_BYTES, MIN_NODES)
    }

    /// Keeps so many bytes of masks for which so many nodes were looked at.
    pub(super) fn with_limits(
        library: Arc<dyn BiasComputer>,
        max_bytes: usize,
        min_nodes: usize,
    ) -> Self {
        let (distinct, places, num_bytes) = Default::default();
        Self { library, distinct, places, num_bytes, max_bytes, min_nodes }
    }

    fn room_for(&self, num_bytes: usize) -> Option<Room> {
        let masks: usize = lock(&self.distinct).iter().map(|mask| size_of_val(&**mask)).sum();
        let room = Room { num_bytes, all: Arc::clone(&self.num_bytes) };
        let before = self.num_bytes.fetch_add(num_bytes, Ordering::Relaxed);
        (masks + before + num_bytes <= self.max_bytes).then_some(room)
    }

    /// The mask, if there is room for it.
    fn keep(&self, mask: &[u32]) -> Option<Arc<[u32]>> {
        let mut distinct = lock(&self.distinct);
        if let Some(same) = distinct.get(mask) {
            return Some(Arc::clone(same));
        }
        // All masks of a vocabulary are as long.
        let others = self.num_bytes.load(Ordering::Relaxed);
        let is_full =
            |num_masks: usize| (num_masks + 1) * size_of_val(mask) + others > self.max_bytes;
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

    /// Forgets all that takes room: what is needed comes again.
    fn clear(&self) {
        let places: Vec<_> = lock(&self.places).iter().filter_map(Weak::upgrade).collect();
        for places in places {
            let known = &mut *lock(&places.known);
            known.masks.clear();
            known.states.clear();
        }
        lock(&self.distinct).retain(|mask| Arc::strong_count(mask) > 1);
    }
}

impl fmt::Debug for MaskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskStore").field("num_bytes", &self.num_bytes).finish_non_exhaustive()
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
        if !self.is_worth_it(num_nodes) {
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

    pub(super) fn library(&self) -> &dyn BiasComputer {
        &*self.store.library
    }

    /// Whether a mask for which so many nodes were looked at took long.
    pub(super) fn is_worth_it(&self, num_nodes: usize) -> bool {
        num_nodes >= self.store.min_nodes
    }

    pub(super) fn seen(&self, state: StateID) -> Option<Seen> {
        lock(&self.known).states.get(&state).cloned()
    }

    pub(super) fn see(&self, state: StateID, seen: Seen) {
        insert(&mut lock(&self.known).states, state, seen);
    }

    /// Keeps what is known of a state.
    pub(super) fn see_interior(&self, state: StateID, interior: Option<Interior>) {
        let seen = interior.map(|interior| {
            let num_bytes = interior.num_bytes();
            let room = self.store.room_for(num_bytes).or_else(|| {
                self.store.clear();
                self.store.room_for(num_bytes)
            });
            room.map(|room| Seen::Interior(Arc::new((interior, room))))
        });
        match seen {
            None => self.see(state, Seen::Useless),
            Some(Some(seen)) => self.see(state, seen),
            Some(None) => {}
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
    use crate::llguidance_backend::tests::library;

    fn place(state: u32) -> Place {
        let lexer = LexerPlace { state: StateID::new(state), is_within: false };
        Place { history: History::default(), lexer }
    }

    #[test]
    fn masks_are_kept_within_their_bytes_equal_ones_once() {
        let store = Arc::new(MaskStore::with_limits(library(), 40, 7));
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
        let store = Arc::new(MaskStore::with_limits(library(), 16, 0));
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
    fn what_is_kept_of_states_has_the_same_room() {
        let store = Arc::new(MaskStore::with_limits(library(), 100, 0));
        let room = store.room_for(60).unwrap();
        assert!(store.room_for(60).is_none());
        let places = KnownPlaces::new(&store);
        for state in 0..9 {
            places.keep(place(state), &[state; 5], 0);
        }
        assert_eq!(lock(&store.distinct).len(), 1, "of 20 bytes, beside 60");
        assert!(store.room_for(21).is_none());
        store.clear();
        assert!(store.room_for(40).is_some());
        drop(room);
        assert!(store.room_for(100).is_some());
    }

    #[test]
    fn histories_are_told_apart_and_bounded() {
        let places = KnownPlaces::new(&Arc::new(MaskStore::new(library())));
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
