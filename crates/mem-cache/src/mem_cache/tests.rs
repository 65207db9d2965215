//! A row from its opening to its end, and what audit says of planted bugs.

use types::{PageId, SlotId, TokenId};

use super::{EvictionPolicy, Fault, MemCache, MemCacheConfig, Piece, StateConfig, WindowConfig};

fn cache(num_pages: usize, page_size: usize) -> MemCache {
    MemCache::new(MemCacheConfig {
        num_pages,
        page_size,
        num_rows: 4,
        disable_radix_cache: false,
        eviction_policy: EvictionPolicy::Lru,
        states: None,
        max_step_tokens: 64,
        windows: None,
    })
}

/// Opens a row and gives it pages for all its tokens.
fn open(cache: &mut MemCache, tokens: &[TokenId]) -> (usize, usize) {
    let (row, cached) = cache.open(tokens, tokens.len(), 0).expect("a free row");
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
    let (row, cached) = cache.open(&[1, 2, 9], 10, 0).expect("a free row");
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
        eviction_policy: EvictionPolicy::Lru,
        states: None,
        max_step_tokens: 64,
        windows: None,
    });
    let (row, _) = open(&mut cache, &[1, 2, 3]);
    cache.commit(row, &[1, 2, 3]);
    assert_eq!(cache.open(&[1], 1, 0), None, "one row only");
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

/// Four rows, pages of 2, a snapshot every 8 tokens.
fn hybrid(num_states: usize) -> MemCache {
    let states = Some(StateConfig { num_states, snapshot_interval: 8 });
    let num_rows = 4;
    MemCache::new(MemCacheConfig {
        num_pages: 64,
        page_size: 2,
        num_rows,
        disable_radix_cache: false,
        eviction_policy: EvictionPolicy::Lru,
        max_step_tokens: 64,
        states,
        windows: None,
    })
}

/// Opens a row, computes the rest of its prompt in one step and launches it. Returns the
/// row, the tokens that were cached and where snapshots were taken.
fn prefill(cache: &mut MemCache, tokens: &[TokenId]) -> (usize, usize, Vec<usize>) {
    let (row, cached) = open(cache, tokens);
    let (start, total) = (cached, tokens.len());
    let piece = Piece { start, len: total - start, total, is_decode: false };
    let mut taken = Vec::new();
    let flow = cache.advance(row, piece, &mut taken).expect("a model with states");
    assert_eq!(flow.from.is_some(), cached > 0);
    assert_eq!(cache.audit(), Ok(()));
    cache.commit(row, tokens);
    assert_eq!(cache.audit(), Ok(()));
    (row, cached, taken.iter().map(|snapshot| snapshot.seq_len).collect())
}

#[test]
fn a_prefix_is_usable_up_to_its_last_snapshot() {
    let mut cache = hybrid(16);
    let prompt: Vec<TokenId> = (0..21).collect();
    let (row, cached, taken) = prefill(&mut cache, &prompt);
    assert_eq!((cached, taken), (0, vec![8, 16, 20]));
    cache.close(row, &prompt);
    assert_eq!(cache.peek_prefix(&prompt), 20, "the same prompt again");
    assert_eq!(cache.peek_prefix(&prompt[..20]), 16);

    // Pages are shared up to 14, states up to 8: the second one pays, the third does not.
    let other = |tail: TokenId| [&prompt[..14], &[tail; 5]].concat();
    let (row, cached, taken) = prefill(&mut cache, &other(90));
    assert_eq!((cached, taken), (8, vec![14, 16, 18]));
    cache.close(row, &other(90));
    let (row, cached, taken) = prefill(&mut cache, &other(91));
    assert_eq!((cached, taken), (14, vec![16, 18]));
    cache.close(row, &other(91));
    assert_eq!(cache.audit(), Ok(()));
}

#[test]
fn the_next_turn_begins_at_the_last_page_of_the_completion() {
    let mut cache = hybrid(16);
    let mut tokens: Vec<TokenId> = (0..5).collect();
    let (row, ..) = prefill(&mut cache, &tokens);
    let mut slots = Vec::new();
    for _ in 0..6 {
        assert!(cache.reserve(row, tokens.len() + 1));
        let piece = Piece { start: tokens.len(), len: 1, total: 5, is_decode: true };
        let mut taken = Vec::new();
        let flow = cache.advance(row, piece, &mut taken).unwrap();
        assert_eq!(flow.from, Some(flow.to));
        slots.extend(taken.iter().map(|snapshot| snapshot.state));
        tokens.push(7);
        assert_eq!(cache.audit(), Ok(()));
    }
    assert_eq!(slots.len(), 3);
    assert!(slots.iter().all(|&slot| slot == slots[0]), "one is kept at a time: {slots:?}");
    cache.close(row, &tokens);
    tokens.extend([8; 9]);
    assert_eq!(cache.peek_prefix(&tokens), 10);
    assert_eq!(cache.audit(), Ok(()));
}

#[test]
fn rows_come_before_snapshots() {
    // A state for each row, and one more.
    let mut cache = hybrid(5);
    let prompts: Vec<Vec<TokenId>> = (0..4).map(|row| vec![row * 10 + 1; 20]).collect();
    for prompt in &prompts {
        let (_, _, taken) = prefill(&mut cache, prompt);
        assert!(taken.is_empty(), "{taken:?}");
    }
    for row in 0..4 {
        cache.close(row, &[]);
    }
    assert_eq!(cache.audit(), Ok(()));
    // One more than that: a snapshot at a time, the oldest gives way.
    let mut cache = hybrid(6);
    let rows: Vec<_> = prompts.iter().map(|prompt| prefill(&mut cache, prompt).0).collect();
    rows.iter().for_each(|&row| cache.close(row, &[]));
    assert_eq!(cache.audit(), Ok(()));
    assert_eq!(cache.flush(), 40);
    assert_eq!(cache.audit(), Ok(()));
}

#[test]
fn a_snapshot_that_is_about_to_be_read_stays() {
    let mut cache = hybrid(6);
    let prompt: Vec<TokenId> = (0..9).collect();
    let (row, _, taken) = prefill(&mut cache, &prompt);
    assert_eq!(taken, [8]);
    cache.close(row, &prompt);
    let (reader, cached) = open(&mut cache, &prompt);
    assert_eq!(cached, 8);
    // Three more rows and their snapshots want every state that there is.
    for other in 0..3 {
        let tokens: Vec<TokenId> = (50 + other * 20..70 + other * 20).collect();
        let (row, _) = open(&mut cache, &tokens);
        let piece = Piece { start: 0, len: 20, total: 20, is_decode: false };
        let mut taken = Vec::new();
        cache.advance(row, piece, &mut taken).unwrap();
        assert_eq!(cache.audit(), Ok(()));
    }
    let piece = Piece { start: 8, len: 1, total: 9, is_decode: false };
    let flow = cache.advance(reader, piece, &mut Vec::new()).unwrap();
    let read = flow.from.expect("the snapshot");
    assert_ne!(read, flow.to);
    assert_eq!(cache.audit(), Ok(()));
}

#[test]
fn without_the_tree_no_snapshot_is_taken() {
    let mut cache = MemCache::new(MemCacheConfig {
        num_pages: 8,
        page_size: 2,
        num_rows: 1,
        disable_radix_cache: true,
        eviction_policy: EvictionPolicy::Lru,
        states: Some(StateConfig { num_states: 4, snapshot_interval: 2 }),
        max_step_tokens: 64,
        windows: None,
    });
    let (_, cached, taken) = prefill(&mut cache, &[1; 9]);
    assert_eq!((cached, taken), (0, vec![]));
}

/// Pages of 2, windows of 5 tokens, steps of up to 16: a row is entitled to 4 window pages,
/// a step takes 8 more.
fn windowed(num_window_pages: usize) -> MemCache {
    MemCache::new(MemCacheConfig {
        num_pages: 64,
        page_size: 2,
        num_rows: 4,
        disable_radix_cache: false,
        eviction_policy: EvictionPolicy::Lru,
        max_step_tokens: 16,
        states: None,
        windows: Some(WindowConfig { window: 5, num_pages: num_window_pages }),
    })
}

/// Opens a row and runs its prompt in steps of up to 16 tokens. Returns the row and the tokens
/// that were cached.
fn prefill_windows(cache: &mut MemCache, tokens: &[TokenId]) -> (usize, usize) {
    let (row, cached) = open(cache, tokens);
    for start in (cached..tokens.len()).step_by(16) {
        let end = tokens.len().min(start + 16);
        run(cache, row, &tokens[..end], start, false);
        cache.commit(row, &tokens[..end]);
        assert_eq!(cache.audit(), Ok(()));
    }
    (row, cached)
}

fn run(cache: &mut MemCache, row: usize, tokens: &[TokenId], start: usize, is_decode: bool) {
    let end = tokens.len();
    assert!(cache.reserve(row, end));
    let piece = Piece { start, len: end - start, total: end, is_decode };
    assert_eq!(cache.advance(row, piece, &mut Vec::new()), None);
    assert_eq!(cache.audit(), Ok(()));
    let first = cache.first_window_page(row).unwrap();
    assert!(first * 2 <= (start + 1).saturating_sub(5), "its first token sees 5");
    assert_eq!(cache.tables().window_slots(row, first * 2..end).count(), end - first * 2);
}

#[test]
fn a_row_keeps_its_window_and_gives_the_rest_to_the_tree() {
    let mut cache = windowed(40);
    let prompt: Vec<TokenId> = (0..41).collect();
    let (row, _) = prefill_windows(&mut cache, &prompt);
    // Of 21 pages the next token, at 41, sees those from token 37 on, and pages 18 to 20.
    assert_eq!(cache.first_window_page(row), Some(18));
    assert_eq!(cache.num_free_window_pages(), 40 - 21);
    assert_eq!(cache.num_evictable_window_pages(), 18);
    // Those of a completion are private, and free once out of the window.
    let mut tokens = prompt.clone();
    for token in 0..20 {
        tokens.push(token);
        run(&mut cache, row, &tokens, tokens.len() - 1, true);
    }
    assert_eq!(cache.first_window_page(row), Some(28));
    assert_eq!(cache.num_evictable_window_pages(), 20);
    assert_eq!(cache.num_free_window_pages(), 40 - 20 - 3);
    cache.close(row, &tokens);
    assert_eq!(cache.audit(), Ok(()));
    assert_eq!(cache.flush(), 30);
    assert_eq!(cache.num_free_window_pages(), 40);
}

#[test]
fn a_hit_ends_where_the_window_is_whole() {
    let mut cache = windowed(40);
    let prompt: Vec<TokenId> = (0..20).collect();
    let (row, _) = prefill_windows(&mut cache, &prompt);
    let mut tokens = prompt.clone();
    for token in 0..13 {
        tokens.push(token);
        run(&mut cache, row, &tokens, tokens.len() - 1, true);
    }
    cache.close(row, &tokens);
    // The completion lost the window pages 10 to 13 (of tokens 20 to 27) on its way.
    let then = |len: usize| [&tokens[..len], &[99; 3]].concat();
    for (len, usable) in [(32, 32), (30, 20), (26, 20), (20, 20), (13, 12)] {
        assert_eq!(cache.peek_prefix(&then(len)), usable, "{len}");
    }
    // Whoever computes them again heals the tree.
    let (row, cached) = prefill_windows(&mut cache, &then(30));
    assert_eq!(cached, 20);
    cache.close(row, &then(30));
    assert_eq!(cache.peek_prefix(&then(26)), 26);
    assert_eq!(cache.audit(), Ok(()));
}

#[test]
fn ends_of_prefixes_outlive_what_lies_between() {
    // Room for a window and a step, and for two more windows of 4 pages.
    let mut cache = windowed(12 + 8);
    let prompts: Vec<Vec<TokenId>> =
        (0..3).map(|salt| (salt * 50..salt * 50 + 40).collect()).collect();
    for prompt in &prompts {
        let (row, cached) = prefill_windows(&mut cache, prompt);
        assert_eq!(cached, 0);
        cache.close(row, prompt);
    }
    assert_eq!(cache.num_free_window_pages(), 0);
    for prompt in &prompts {
        assert_eq!(cache.peek_prefix(prompt), 38, "all but the last page, for its logits");
        assert_eq!(cache.peek_prefix(&[prompt, &prompt[..1]].concat()), 40);
    }
    assert_eq!(cache.peek_prefix(&prompts[0][..20]), 0);
}

#[test]
fn only_opening_can_fail_for_want_of_window_pages() {
    // Two rows and a step.
    let mut cache = windowed(2 * 4 + 8);
    let prompts: Vec<Vec<TokenId>> = (0..3).map(|salt| vec![salt; 33]).collect();
    let first = prefill_windows(&mut cache, &prompts[0]).0;
    let second = prefill_windows(&mut cache, &prompts[1]).0;
    assert_eq!(cache.open(&prompts[2], 40, 0), None);
    // A request of 3 tokens would be entitled to 2 pages; it, too, has to wait.
    assert_eq!(cache.open(&prompts[2][..2], 3, 0), None);
    cache.close(first, &prompts[0]);
    assert!(cache.open(&prompts[2], 40, 0).is_some());
    let mut tokens = prompts[1].clone();
    for token in 0..9 {
        tokens.push(token);
        run(&mut cache, second, &tokens, tokens.len() - 1, true);
    }
}

#[test]
fn a_replaced_page_leaves_its_window_page_to_the_trees() {
    let mut cache = windowed(40);
    let prompt: Vec<TokenId> = (0..9).collect();
    // Both compute the same prompt: the second one's pages are duplicates.
    let (first, second) = (open(&mut cache, &prompt).0, open(&mut cache, &prompt).0);
    for row in [first, second] {
        run(&mut cache, row, &prompt, 0, false);
    }
    cache.commit(first, &prompt);
    cache.commit(second, &prompt);
    assert_eq!(cache.audit(), Ok(()));
    assert_eq!(cache.num_free_window_pages(), 40 - 4 - 2);
    let window = |row| cache.tables().window_pages(row, 2..4).collect::<Vec<_>>();
    assert_eq!(window(first), window(second));
}

#[test]
fn audit_sees_a_freed_window_page() {
    let mut cache = windowed(16);
    prefill_windows(&mut cache, &[1, 2, 3]);
    assert!(cache.plant(Fault::FreedWindowPage));
    let error = cache.audit().unwrap_err();
    assert!(error.starts_with("window page 0 belongs to "), "{error}");
}
