//! Pages, rows and tree as one: what a request does with its memory.
//!
//! A row is opened over a cached prefix, grown page by page, offered to the
//! tree as its K/V gets written, and closed:
//!
//! ```text
//! row     | tree's pages, locked | private pages                  |
//! tokens  | cached prefix        | written           | to come    |
//! commit  | tree's pages, locked, now to here | private           |
//! ```
//!
//! Nothing here waits for the device. A page may change hands while a batch
//! that writes to it is still queued, because batches run in launch order: the
//! old owner's write lands before any of the new owner's.
//!
//! Upstream: `sglang/srt/mem_cache/common.py`, `chunk_cache.py`.

mod audit;
#[cfg(any(test, feature = "fault-injection"))]
mod fault;
mod states;
#[cfg(test)]
mod tests;
mod windows;

#[cfg(any(test, feature = "fault-injection"))]
pub use fault::Fault;
use states::States;
pub use states::{Piece, Snapshot, StateConfig, StateFlow};
use types::{PageId, TokenId};
pub use windows::WindowConfig;
use windows::Windows;

use crate::{EvictionPolicy, NodeId, PageAllocator, PageTables, RadixCache, User};

/// Sizes of a [`MemCache`], fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemCacheConfig {
    /// Pages in the K/V pool.
    pub num_pages: usize,
    /// Tokens in a page; a power of two.
    pub page_size: usize,
    /// Requests that may hold pages at a time.
    pub num_rows: usize,
    /// Cache nothing: a closed row's pages are free at once.
    pub disable_radix_cache: bool,
    /// Which cached prefix goes first when pages run out.
    pub eviction_policy: EvictionPolicy,
    /// Tokens in one step at most.
    pub max_step_tokens: usize,
    /// For a model with recurrent layers.
    pub states: Option<StateConfig>,
    /// For a model with layers that see a window, if they have a pool of their own.
    pub windows: Option<WindowConfig>,
}

/// The K/V pool's bookkeeping.
#[derive(Debug)]
pub struct MemCache {
    allocator: PageAllocator,
    tables: PageTables,
    tree: RadixCache,
    /// One per row; `None` if the row is free.
    holds: Vec<Option<Hold>>,
    /// `None` for a model without recurrent layers.
    states: Option<States>,
    /// `None` for a model whose layers all keep every token.
    windows: Option<Windows>,
    disable_radix_cache: bool,
    num_evicted: u64,
    /// Reused: pages on their way to the allocator.
    freed: Vec<PageId>,
}

/// A row's hold on the tree.
#[derive(Debug, Clone, Copy)]
struct Hold {
    /// Locked by this row.
    node: NodeId,
    /// The row's first pages, which are the tree's and end at `node`.
    num_tree_pages: usize,
    /// For whom the tree counts the row.
    user: User,
}

/// How much of a prompt is cached, in tokens.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// Of the longest prefix that a row can begin with.
    usable: usize,
    /// Of the longest prefix whose pages are there.
    cached: usize,
}

impl MemCache {
    /// Everything free, nothing cached.
    ///
    /// # Panics
    /// If `page_size` is not a power of two.
    pub fn new(config: MemCacheConfig) -> Self {
        assert!(config.page_size.is_power_of_two(), "page size {}", config.page_size);
        Self {
            allocator: PageAllocator::new(config.num_pages),
            tables: PageTables::new(
                config.num_rows,
                config.page_size,
                config.windows.map_or(0, |_| config.num_pages),
            ),
            tree: RadixCache::new(config.page_size, config.eviction_policy),
            holds: vec![None; config.num_rows],
            states: config.states.map(|states| {
                let sizes = (config.num_rows, config.page_size);
                States::new(states, sizes, !config.disable_radix_cache)
            }),
            windows: config.windows.map(|windows| {
                let pages = (config.num_pages, config.page_size);
                Windows::new(windows, pages, (config.num_rows, config.max_step_tokens))
            }),
            disable_radix_cache: config.disable_radix_cache,
            num_evicted: 0,
            freed: Vec::new(),
        }
    }

    /// The page tables, as the executor reads them.
    pub fn tables(&self) -> &PageTables {
        &self.tables
    }

    /// Tokens in a page.
    pub fn page_size(&self) -> usize {
        self.tables.page_size()
    }

    /// Pages in the pool.
    pub fn num_pages(&self) -> usize {
        self.allocator.num_pages()
    }

    /// Pages in nobody's hands.
    pub fn num_free_pages(&self) -> usize {
        self.allocator.num_free()
    }

    /// Pages in the tree that no row uses.
    pub fn evictable_size(&self) -> usize {
        self.tree.evictable_size()
    }

    /// Pages in the tree that rows use.
    pub fn protected_size(&self) -> usize {
        self.tree.protected_size()
    }

    /// Pages that rows could still get: free and evictable ones.
    pub fn num_available_pages(&self) -> usize {
        self.allocator.num_free() + self.tree.evictable_size()
    }

    /// Pages that rows could get besides if these were closed: what they share with one
    /// another counts once, what they share with other rows not at all.
    pub fn num_pages_freed_by(&self, rows: impl Iterator<Item = usize>) -> usize {
        let mut nodes = Vec::new();
        let mut num_private = 0;
        for row in rows {
            let hold = self.holds[row].as_ref().expect("an open row");
            num_private += self.tables.pages(row).len() - hold.num_tree_pages;
            nodes.push(hold.node);
        }
        num_private + self.tree.num_pages_locked_by(&nodes)
    }

    /// Pages evicted from the tree since the start.
    pub fn num_evicted_pages(&self) -> u64 {
        self.num_evicted
    }

    /// Pages that `num_tokens` tokens take.
    pub fn pages_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.page_size())
    }

    /// Window pages in their pool; 0 without one.
    pub fn num_window_pages(&self) -> usize {
        self.windows.as_ref().map_or(0, Windows::num_pages)
    }

    /// Window pages that belong to no page.
    pub fn num_free_window_pages(&self) -> usize {
        self.windows.as_ref().map_or(0, Windows::num_free)
    }

    /// Window pages of the tree that are in no row's window.
    pub fn num_evictable_window_pages(&self) -> usize {
        self.windows.as_ref().map_or(0, Windows::num_evictable)
    }

    /// Tokens of the prefix that [`Self::open`] would find cached.
    pub fn peek_prefix(&self, tokens: &[TokenId]) -> usize {
        self.find(cacheable(tokens)).usable
    }

    /// The nodes that the cached prefix runs through, the root's child first, and its tokens.
    /// The last node may be matched in part.
    pub fn peek_path(&self, tokens: &[TokenId]) -> (Vec<NodeId>, usize) {
        self.tree.peek_path(cacheable(tokens))
    }

    /// A row may begin where the window before it is whole and, with recurrent layers, where
    /// there is a snapshot.
    fn find(&self, tokens: &[TokenId]) -> Found {
        let (mut usable, mut depth, mut run) = (0, 0, 0);
        self.tree.visit_prefix(tokens, |pages, snapshot| {
            let Some(windows) = &self.windows else {
                depth += pages.len();
                if self.states.is_none() || snapshot.is_some() {
                    usable = depth;
                }
                return;
            };
            for &page in pages {
                depth += 1;
                run = if self.tables.window_page(page).is_some() { run + 1 } else { 0 };
                if self.states.is_none() && windows.is_whole(depth, run) {
                    usable = depth;
                }
            }
            if snapshot.is_some() && windows.is_whole(depth, run) {
                usable = depth;
            }
        });
        Found { usable: usable * self.page_size(), cached: depth * self.page_size() }
    }

    /// Takes a row for a request with these tokens, which will not get longer than `max_len`,
    /// and whose cached prefixes shall be kept by this `priority`.
    /// It starts with the pages of the longest cached prefix, short of the last token: that
    /// one must be computed for its logits. With recurrent layers the prefix ends at a
    /// snapshot, with window pages where its window is whole. Returns the row and the tokens
    /// in those pages, or `None` if all rows are taken, or all states are, or no window pages
    /// can be kept for it.
    pub fn open(
        &mut self,
        tokens: &[TokenId],
        max_len: usize,
        priority: i64,
    ) -> Option<(usize, usize)> {
        let Found { usable, cached } = self.find(cacheable(tokens));
        let row = self.tables.open()?;
        let pages = self.tables.row_mut(row);
        let node = self.tree.match_prefix(&tokens[..usable], pages);
        let num_tree_pages = pages.len();
        let hold = Hold { node, num_tree_pages, user: User { priority, num_counted: 0 } };
        if let Some(windows) = &mut self.windows
            && !windows.open(row, max_len, &self.tables)
        {
            self.tables.close(row);
            return None;
        }
        if let Some(states) = &mut self.states {
            let begins_at = (num_tree_pages > 0).then_some(node);
            if !states.open(row, begins_at, cached, &mut self.tree) {
                if let Some(windows) = &mut self.windows {
                    windows.close(row, (&hold, &self.tree), &mut self.tables);
                }
                self.tables.close(row);
                return None;
            }
        }
        self.tree.inc_lock_ref(node);
        self.holds[row] = Some(hold);
        Some((row, num_tree_pages * self.page_size()))
    }

    /// Plans the row's next step: gives it window pages for its tokens, and says how its
    /// state passes through the step and which copies the step shall leave, which are
    /// appended to `taken`. `None` for a model without recurrent layers.
    pub fn advance(
        &mut self,
        row: usize,
        piece: Piece,
        taken: &mut Vec<Snapshot>,
    ) -> Option<StateFlow> {
        if let Some(windows) = &mut self.windows {
            let hold = self.holds[row].as_ref().expect("a step of an open row");
            let ends = (piece.start, piece.start + piece.len);
            windows.advance(row, ends, (hold, &self.tree), &mut self.tables);
        }
        let states = self.states.as_mut()?;
        let flow = states.advance(row, piece, &mut self.tree, taken);
        Some(flow)
    }

    /// Index of the first page whose window page the row's next step may look at; `None`
    /// without window pages.
    pub fn first_window_page(&self, row: usize) -> Option<usize> {
        self.windows.as_ref().map(|windows| windows.first_held(row))
    }

    /// Gives the row pages up to `num_tokens` tokens, evicting where it must.
    /// False if there are too few, and then nothing has changed for the row.
    #[must_use]
    pub fn reserve(&mut self, row: usize, num_tokens: usize) -> bool {
        let missing = self.pages_for(num_tokens).saturating_sub(self.tables.pages(row).len());
        if !self.ensure_free_pages(missing) {
            return false;
        }
        let fresh = (0..missing).map_while(|_| self.allocator.alloc());
        self.tables.row_mut(row).extend(fresh);
        true
    }

    /// Evicts until `num_pages` are free. False if that many cannot be had.
    #[must_use]
    pub fn ensure_free_pages(&mut self, num_pages: usize) -> bool {
        let missing = num_pages.saturating_sub(self.allocator.num_free());
        if missing > self.tree.evictable_size() {
            return false;
        }
        if missing > 0 {
            self.num_evicted += self.tree.evict(missing, &mut self.freed) as u64;
            self.free_collected();
        }
        true
    }

    /// Shares the row's full pages: `tokens` are those whose K/V is written, or
    /// will be by batches launched already. The row keeps using the pages.
    pub fn commit(&mut self, row: usize, tokens: &[TokenId]) {
        self.commit_pages(row, tokens);
        if let Some((windows, hold)) = self.windows.as_mut().zip(self.holds[row].as_ref()) {
            windows.trim(row, tokens.len(), (hold, &self.tree), &mut self.tables);
        }
        if let Some(states) = &mut self.states {
            states.commit(row, tokens, &mut self.tree);
        }
        self.free_collected();
    }

    fn commit_pages(&mut self, row: usize, tokens: &[TokenId]) {
        let hold = self.holds[row].expect("commit of an open row");
        let num_pages = tokens.len() / self.page_size();
        // A row that only found what was cached before is one more user of it.
        let is_known = num_pages <= hold.num_tree_pages && hold.user.num_counted > 0;
        if self.disable_radix_cache || is_known || num_pages < hold.num_tree_pages.max(1) {
            return;
        }
        let tokens = &tokens[..num_pages * self.page_size()];
        let held = self.windows.as_ref().map(|windows| windows.held_pages(row, &self.tables));
        let pages = &mut self.tables.row_mut(row)[..num_pages];
        let node = self.tree.insert(tokens, pages, hold.user, &mut self.freed);
        if let Some((windows, held)) = self.windows.as_mut().zip(held) {
            windows.follow(row, &held, &mut self.tables);
        }
        self.tree.inc_lock_ref(node);
        self.tree.dec_lock_ref(hold.node);
        let user = User { num_counted: num_pages, ..hold.user };
        self.holds[row] = Some(Hold { node, num_tree_pages: num_pages, user });
    }

    /// [`Self::commit`]s, then ends the row: its pages in the tree become
    /// evictable (if no other row uses them), the others free.
    pub fn close(&mut self, row: usize, tokens: &[TokenId]) {
        self.commit(row, tokens);
        let hold = self.holds[row].take().expect("close of an open row");
        if let Some(states) = &mut self.states {
            states.close(row, &mut self.tree);
        }
        if let Some(windows) = &mut self.windows {
            windows.close(row, (&hold, &self.tree), &mut self.tables);
        }
        self.tree.dec_lock_ref(hold.node);
        self.freed.extend(self.tables.row_mut(row).drain(hold.num_tree_pages..).rev());
        self.tables.close(row);
        self.free_collected();
    }

    /// Empties the tree. Returns the number of pages that it held.
    ///
    /// # Panics
    /// If a row uses cached pages.
    pub fn flush(&mut self) -> usize {
        self.tree.flush(&mut self.freed);
        let num_pages = self.freed.len();
        self.free_collected();
        num_pages
    }

    fn free_collected(&mut self) {
        for page in self.freed.drain(..) {
            self.allocator.free(page);
            if let Some(windows) = &mut self.windows {
                windows.free_with(page, &mut self.tables);
            }
        }
        if let Some(states) = &mut self.states {
            states.collect_freed(&mut self.tree);
        }
    }
}

/// All but the last token.
fn cacheable(tokens: &[TokenId]) -> &[TokenId] {
    &tokens[..tokens.len().saturating_sub(1)]
}
