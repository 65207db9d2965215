//! A row from its opening to its end, and what audit says of planted bugs.

use types::{PageId, SlotId, TokenId};

use super::{Fault, MemCache, MemCacheConfig};

fn cache(num_pages: usize, page_size: usize) -> MemCache {
    MemCache::new(MemCacheConfig { num_pages, page_size, num_rows: 4, disable_radix_cache: false })
}

/// Opens a row and gives it pages for all its tokens.
fn open(cache: &mut MemCache, tokens: &[TokenId]) -> (usize, usize) {
    let (row, cached) = cache.open(tokens).expect("a free row");
    assert!(cache.reserve(row, tokens.len()));
    assert_eq!(cache.audit(), Ok(()));
    (row, cached)
}

#[test]
fn a_second_prompt_gets_the_first_ones_pages() {
    let mut cache = cache(8, 4);
    let prompt: Vec<TokenId> = (0..8).collect();
    let (first, cached) = open(&mut cache, &prompt);
    assert_eq!(cached, 0);
    cache.commit(first, &prompt);
    assert_eq!((cache.evictable_size(), cache.protected_size()), (0, 2));

    // All of the prompt is cached, yet its last token must be computed.
    let (second, cached) = open(&mut cache, &prompt);
    assert_eq!(cached, 4);
    assert_eq!(cache.tables().pages(first)[0], cache.tables().pages(second)[0]);
    assert_ne!(cache.tables().pages(first)[1], cache.tables().pages(second)[1]);

    // The duplicate of the last page goes back; both rows now read the first's.
    cache.commit(second, &prompt);
    assert_eq!(cache.tables().pages(first), cache.tables().pages(second));
    assert_eq!(cache.num_free_pages(), 6);

    cache.close(first, &prompt);
    assert_eq!(cache.protected_size(), 2);
    cache.close(second, &prompt);
    assert_eq!((cache.evictable_size(), cache.protected_size()), (2, 0));
    assert_eq!(cache.audit(), Ok(()));
    assert_eq!(cache.flush(), 2);
    assert_eq!(cache.num_free_pages(), 8);
}

#[test]
fn slots_follow_the_pages() {
    let mut cache = cache(4, 4);
    let (row, _) = open(&mut cache, &[7; 6]);
    assert_eq!(cache.tables().pages(row), [PageId(0), PageId(1)]);
    let slots: Vec<_> = cache.tables().slots(row, 2..6).collect();
    assert_eq!(slots, [SlotId(2), SlotId(3), SlotId(4), SlotId(5)]);
}

#[test]
fn reserve_evicts_what_nobody_uses_and_refuses_the_rest() {
    let mut cache = cache(4, 2);
    let (old, _) = open(&mut cache, &[1, 2, 3, 4]);
    cache.close(old, &[1, 2, 3, 4]);
    let (row, cached) = cache.open(&[1, 2, 9]).expect("a free row");
    assert_eq!(cached, 2);
    assert!(!cache.reserve(row, 10), "five pages of four");
    assert_eq!(cache.tables().pages(row).len(), 1);
    assert_eq!(cache.num_evicted_pages(), 0);
    assert!(cache.reserve(row, 8));
    assert_eq!(cache.num_evicted_pages(), 1);
    assert_eq!(cache.peek_prefix(&[1, 2, 3, 4, 5]), 2);
    assert_eq!(cache.audit(), Ok(()));
}

#[test]
fn without_the_tree_a_closed_row_leaves_nothing() {
    let mut cache = MemCache::new(MemCacheConfig {
        num_pages: 4,
        page_size: 1,
        num_rows: 1,
        disable_radix_cache: true,
    });
    let (row, _) = open(&mut cache, &[1, 2, 3]);
    cache.commit(row, &[1, 2, 3]);
    assert_eq!(cache.open(&[1]), None, "one row only");
    cache.close(row, &[1, 2, 3]);
    assert_eq!((cache.num_free_pages(), cache.evictable_size()), (4, 0));
    assert_eq!(open(&mut cache, &[1, 2, 3]).1, 0);
}

#[test]
fn audit_sees_a_double_free() {
    let mut cache = cache(8, 2);
    open(&mut cache, &[1, 2, 3]);
    assert!(cache.plant(Fault::DoubleFree));
    assert_eq!(cache.audit().unwrap_err(), "page 0 is held by Free and by Row(0)");
}

#[test]
fn audit_sees_an_early_eviction() {
    let mut cache = cache(8, 2);
    let (row, _) = open(&mut cache, &[1, 2, 3]);
    cache.commit(row, &[1, 2, 3]);
    assert!(cache.plant(Fault::EarlyEviction));
    assert!(cache.audit().unwrap_err().contains("locked but gone"));
}
