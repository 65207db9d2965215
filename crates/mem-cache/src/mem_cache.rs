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

#[cfg(any(test, feature = "fault-injection"))]
pub use fault::Fault;
use states::States;
pub use states::{Piece, Snapshot, StateConfig, StateFlow};
use types::{PageId, TokenId};

use crate::{NodeId, PageAllocator, PageTables, RadixCache};

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
    /// For a model with recurrent layers.
    pub states: Option<StateConfig>,
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
            tables: PageTables::new(config.num_rows, config.page_size),
            tree: RadixCache::new(config.page_size),
            holds: vec![None; config.num_rows],
            states: config.states.map(|states| {
                let sizes = (config.num_rows, config.page_size);
                States::new(states, sizes, !config.disable_radix_cache)
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

    /// Pages evicted from the tree since the start.
    pub fn num_evicted_pages(&self) -> u64 {
        self.num_evicted
    }

    /// Pages that `num_tokens` tokens take.
    pub fn pages_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.page_size())
    }

    /// Tokens of the prefix that [`Self::open`] would find cached.
    pub fn peek_prefix(&self, tokens: &[TokenId]) -> usize {
        match self.states {
            Some(_) => self.tree.peek_snapshot(cacheable(tokens)).usable,
            None => self.tree.peek_prefix(cacheable(tokens)),
        }
    }

    /// Takes a row for a request with these tokens. It starts with the pages of
    /// the longest cached prefix, short of the last token: that one must be
    /// computed for its logits. With recurrent layers the prefix ends at a
    /// snapshot. Returns the row and the tokens in those pages, or `None` if all
    /// rows are taken, or all states are.
    pub fn open(&mut self, tokens: &[TokenId]) -> Option<(usize, usize)> {
        let mut tokens = cacheable(tokens);
        let mut cached = 0;
        if self.states.is_some() {
            let found = self.tree.peek_snapshot(tokens);
            (tokens, cached) = (&tokens[..found.usable], found.cached);
        }
        let row = self.tables.open()?;
        let pages = self.tables.row_mut(row);
        let node = self.tree.match_prefix(tokens, pages);
        let num_tree_pages = pages.len();
        if let Some(states) = &mut self.states {
            let begins_at = (num_tree_pages > 0).then_some(node);
            if !states.open(row, begins_at, cached, &mut self.tree) {
                self.tables.close(row);
                return None;
            }
        }
        self.tree.inc_lock_ref(node);
        self.holds[row] = Some(Hold { node, num_tree_pages });
        Some((row, num_tree_pages * self.page_size()))
    }

    /// Plans how the row's state passes through its next step, and the copies that
    /// the step shall leave, which are appended to `taken`. `None` for a model
    /// without recurrent layers.
    pub fn advance(
        &mut self,
        row: usize,
        piece: Piece,
        taken: &mut Vec<Snapshot>,
    ) -> Option<StateFlow> {
        let states = self.states.as_mut()?;
        let flow = states.advance(row, piece, &mut self.tree, taken);
        Some(flow)
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
        if let Some(states) = &mut self.states {
            states.commit(row, tokens, &mut self.tree);
        }
        self.free_collected();
    }

    fn commit_pages(&mut self, row: usize, tokens: &[TokenId]) {
        let hold = self.holds[row].expect("commit of an open row");
        let num_pages = tokens.len() / self.page_size();
        if self.disable_radix_cache || num_pages <= hold.num_tree_pages {
            return;
        }
        let tokens = &tokens[..num_pages * self.page_size()];
        let pages = &mut self.tables.row_mut(row)[..num_pages];
        let node = self.tree.insert(tokens, pages, &mut self.freed);
        self.tree.inc_lock_ref(node);
        self.tree.dec_lock_ref(hold.node);
        self.holds[row] = Some(Hold { node, num_tree_pages: num_pages });
    }

    /// [`Self::commit`]s, then ends the row: its pages in the tree become
    /// evictable (if no other row uses them), the others free.
    pub fn close(&mut self, row: usize, tokens: &[TokenId]) {
        self.commit(row, tokens);
        let hold = self.holds[row].take().expect("close of an open row");
        if let Some(states) = &mut self.states {
            states.close(row, &mut self.tree);
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
