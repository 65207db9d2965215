//! Window pages: where layers that see only the last tokens keep their K and V.
//!
//! A window page belongs to a page and holds the same tokens, for the layers with a window;
//! tree, rows and tables go on to speak of pages. A page may lose its window page and live on:
//! the layers without a window still need it.
//!
//! ```text
//! row            | tree's pages, locked        | private pages                  |
//! tokens         | out of the window | within  | within | this step | to come   |
//! window pages   | none, or the tree's         | held by the row    | none      |
//! ```
//!
//! A row holds the window pages that its next step looks at, and gets new ones step by step.
//! What it lets go is free if the page is private, and stays with the tree otherwise, until
//! somebody needs it: the least recently used first, but those that no prefix ends with before
//! all others. A prefix hit ends where the window before it is whole.
//!
//! Nothing fails half-way: a row that is opened is entitled to a window and what straddles it,
//! and one step's pieces are kept for whoever takes them, so there always is a window page that
//! is free or in nobody's window.
//!
//! Upstream: `sglang/srt/mem_cache/swa_radix_cache.py`, `SWATokenToKVPoolAllocator`.

use std::{collections::BTreeSet, ops::Range};

use types::PageId;

use super::Hold;
use crate::{PageAllocator, PageTables, RadixCache};

/// Sizes of the pool of window pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowConfig {
    /// Tokens that a layer with a window sees, itself included; the largest window of a model.
    pub window: usize,
    /// Window pages in the pool.
    pub num_pages: usize,
}

impl WindowConfig {
    /// Window pages that a row of up to `max_len` tokens is entitled to, besides its piece of
    /// a step.
    pub fn pages_per_row(window: usize, page_size: usize, max_len: usize) -> usize {
        // Before a page boundary, the page that is begun, and one more that a piece straddles.
        ((window - 1).div_ceil(page_size) + 2).min(max_len.div_ceil(page_size))
    }

    /// Window pages without which a request of `max_len` tokens cannot run alone, in steps of
    /// `max_step_tokens`.
    pub fn least_pages(
        window: usize,
        page_size: usize,
        (max_len, max_step_tokens): (usize, usize),
    ) -> usize {
        let step = max_step_tokens.div_ceil(page_size);
        Self::pages_per_row(window, page_size, max_len) + step
    }
}

/// Where a window page stands among those that may go: at the end of a prefix, and since when.
type Place = (bool, u64);

/// What is known of a page's window page.
#[derive(Debug, Clone, Copy, Default)]
struct WindowUse {
    /// Rows that hold it.
    num_holders: u32,
    /// Set if it is the tree's and nobody holds it.
    place: Option<Place>,
}

/// A row's part.
#[derive(Debug, Clone)]
struct RowWindow {
    /// Indices of its pages whose window pages it holds.
    held: Range<usize>,
    /// Window pages that are kept for it.
    entitled: usize,
}

/// The bookkeeping of window pages. Which page has which is in the [`PageTables`].
#[derive(Debug)]
pub(super) struct Windows {
    config: WindowConfig,
    page_size: usize,
    /// Window pages kept for the pieces of one step.
    step_pages: usize,
    allocator: PageAllocator,
    /// By page.
    uses: Vec<WindowUse>,
    /// Pages whose window pages may go, first to go first.
    evictable: BTreeSet<(Place, PageId)>,
    rows: Vec<Option<RowWindow>>,
    /// Of all open rows.
    num_entitled: usize,
    /// Counts window pages let go; stands in for a clock.
    now: u64,
}

impl Windows {
    /// For so many pages of `page_size` tokens and rows, and steps of up to `max_step_tokens`.
    pub(super) fn new(
        config: WindowConfig,
        (num_pages, page_size): (usize, usize),
        (num_rows, max_step_tokens): (usize, usize),
    ) -> Self {
        assert!(config.window > 0, "a token sees itself");
        Self {
            config,
            page_size,
            step_pages: max_step_tokens.div_ceil(page_size),
            allocator: PageAllocator::new(config.num_pages),
            uses: vec![WindowUse::default(); num_pages],
            evictable: BTreeSet::new(),
            rows: vec![None; num_rows],
            num_entitled: 0,
            now: 0,
        }
    }

    pub(super) fn num_pages(&self) -> usize {
        self.config.num_pages
    }

    pub(super) fn num_free(&self) -> usize {
        self.allocator.num_free()
    }

    pub(super) fn num_evictable(&self) -> usize {
        self.evictable.len()
    }

    /// Whether a row may begin after `depth` pages of which the last `run` have window pages.
    pub(super) fn is_whole(&self, depth: usize, run: usize) -> bool {
        run >= depth - self.first_page(depth)
    }

    /// The first page that the token after `depth` pages sees.
    fn first_page(&self, depth: usize) -> usize {
        (depth * self.page_size + 1).saturating_sub(self.config.window) / self.page_size
    }

    /// The first page whose window page a row keeps that goes on after `len` tokens: from the
    /// page boundary before them on, so that the row's prefix can be begun with there.
    fn first_kept(&self, len: usize) -> usize {
        self.first_page(len / self.page_size)
    }

    /// Opens a row over a cached prefix, which must have its window. It will not get longer
    /// than `max_len`. False if no window pages can be kept for it now.
    pub(super) fn open(&mut self, row: usize, max_len: usize, tables: &PageTables) -> bool {
        let entitled = WindowConfig::pages_per_row(self.config.window, self.page_size, max_len);
        let kept = self.num_entitled + entitled + self.step_pages;
        // As many as there are pages are enough for whatever these are used for.
        if kept > self.config.num_pages && self.config.num_pages < self.uses.len() {
            return false;
        }
        self.num_entitled += entitled;
        let pages = tables.pages(row);
        let held = self.first_page(pages.len())..pages.len();
        pages[held.clone()].iter().for_each(|&page| self.hold(page));
        self.rows[row] = Some(RowWindow { held, entitled });
        true
    }

    fn hold(&mut self, page: PageId) {
        let WindowUse { num_holders, place } = &mut self.uses[page.0 as usize];
        *num_holders += 1;
        if let Some(place) = place.take() {
            self.evictable.remove(&(place, page));
        }
    }

    /// Index of the first page whose window page the row holds.
    pub(super) fn first_held(&self, row: usize) -> usize {
        self.rows[row].as_ref().expect("an open row").held.start
    }

    /// Gives the row window pages for a step from `start` to `end`, and takes those that the
    /// step does not look at.
    pub(super) fn advance(
        &mut self,
        row: usize,
        (start, end): (usize, usize),
        (hold, tree): (&Hold, &RadixCache),
        tables: &mut PageTables,
    ) {
        self.release(row, self.first_kept(start), (hold, tree), tables);
        let held = self.rows[row].as_ref().expect("an open row").held.clone();
        let stop = end.div_ceil(self.page_size).max(held.end);
        for index in held.end..stop {
            let page = tables.pages(row)[index];
            let window_page = self.alloc(tables);
            let before = tables.window_page_mut(page).replace(window_page);
            assert_eq!(before, None, "page {} has a window page", page.0);
            self.hold(page);
        }
        self.rows[row] = Some(RowWindow { held: held.start..stop, ..self.row(row) });
    }

    fn row(&self, row: usize) -> RowWindow {
        self.rows[row].clone().expect("an open row")
    }

    /// A window page that is free or, taken from the tree, in nobody's window.
    fn alloc(&mut self, tables: &mut PageTables) -> PageId {
        if let Some(free) = self.allocator.alloc() {
            return free;
        }
        let (_, page) = self.evictable.pop_first().expect("rows get what they are entitled to");
        self.uses[page.0 as usize].place = None;
        tables.window_page_mut(page).take().expect("evictable pages have window pages")
    }

    /// Takes the row's window pages before page `first`.
    fn release(
        &mut self,
        row: usize,
        first: usize,
        (hold, tree): (&Hold, &RadixCache),
        tables: &mut PageTables,
    ) {
        let held = &mut self.rows[row].as_mut().expect("an open row").held;
        let released = held.start..first.clamp(held.start, held.end);
        held.start = released.end;
        if released.is_empty() {
            return;
        }
        let ends = tree.ends(hold.node, hold.num_tree_pages);
        let ends: Vec<usize> = ends.take_while(|&end| end > released.start).collect();
        // The deepest are the oldest: what is before them is of use without them.
        for index in released.rev() {
            let page = tables.pages(row)[index];
            let num_holders = &mut self.uses[page.0 as usize].num_holders;
            *num_holders -= 1;
            if *num_holders > 0 {
                continue;
            }
            if index >= hold.num_tree_pages {
                self.allocator.free(tables.window_page_mut(page).take().expect("it was held"));
                continue;
            }
            // A prompt that is sent again begins a page before its end at the latest.
            let is_at_end = |&end: &usize| self.first_page(end - 1) <= index && index < end;
            let is_at_end = ends.iter().any(is_at_end);
            self.now += 1;
            let place = (is_at_end, self.now);
            self.uses[page.0 as usize].place = Some(place);
            self.evictable.insert((place, page));
        }
    }

    /// The pages whose window pages the row holds.
    pub(super) fn held_pages(&self, row: usize, tables: &PageTables) -> Vec<PageId> {
        tables.pages(row)[self.row(row).held].to_vec()
    }

    /// The row's pages went to the tree, and some of those in `before` were replaced by the
    /// tree's. A page of the tree without a window page gets the replaced one's.
    pub(super) fn follow(&mut self, row: usize, before: &[PageId], tables: &mut PageTables) {
        for (index, &old) in self.row(row).held.zip(before) {
            let new = tables.pages(row)[index];
            if new == old {
                continue;
            }
            self.uses[old.0 as usize].num_holders -= 1;
            if tables.window_page(new).is_none() {
                *tables.window_page_mut(new) = tables.window_page_mut(old).take();
            }
            self.hold(new);
        }
    }

    /// After a step up to `len` tokens: takes what the next one does not look at.
    pub(super) fn trim(
        &mut self,
        row: usize,
        len: usize,
        (hold, tree): (&Hold, &RadixCache),
        tables: &mut PageTables,
    ) {
        self.release(row, self.first_kept(len), (hold, tree), tables);
    }

    /// Takes all that the row has.
    pub(super) fn close(
        &mut self,
        row: usize,
        (hold, tree): (&Hold, &RadixCache),
        tables: &mut PageTables,
    ) {
        self.release(row, usize::MAX, (hold, tree), tables);
        let closed = self.rows[row].take().expect("close of an open row");
        self.num_entitled -= closed.entitled;
    }

    /// A page goes to nobody: so does its window page.
    pub(super) fn free_with(&mut self, page: PageId, tables: &mut PageTables) {
        if let Some(place) = self.uses[page.0 as usize].place.take() {
            self.evictable.remove(&(place, page));
        }
        if let Some(window_page) = tables.window_page_mut(page).take() {
            self.allocator.free(window_page);
        }
    }

    #[cfg(any(test, feature = "fault-injection"))]
    pub(super) fn plant_free_window_page(&mut self, tables: &PageTables) -> bool {
        let mut rows = self.rows.iter().enumerate();
        let held = rows.find_map(|(row, state)| {
            let held = state.as_ref()?.held.clone();
            tables.pages(row)[held].iter().find_map(|&page| tables.window_page(page))
        });
        held.into_iter().for_each(|page| self.allocator.plant_double_free(page));
        held.is_some()
    }

    /// Proves that every window page is free or belongs to one page, which is in a hand that
    /// may have it; that rows hold whole windows, and no more than is kept for them. `owned`
    /// has for each page whether it is the tree's, `None` for a free one.
    pub(super) fn audit(&self, owned: &[Option<bool>], tables: &PageTables) -> Result<(), String> {
        let mut owners = vec![None; self.config.num_pages];
        let free = self.allocator.free_pages().iter().map(|&page| (page, "nobody".to_owned()));
        let attached = (0..owned.len() as u32)
            .filter_map(|page| Some((tables.window_page(PageId(page))?, format!("page {page}"))));
        for (window_page, owner) in free.chain(attached) {
            match owners.get_mut(window_page.0 as usize) {
                None => return Err(format!("{owner} has window page {}", window_page.0)),
                Some(Some(other)) => {
                    let page = window_page.0;
                    return Err(format!("window page {page} belongs to {other} and to {owner}"));
                }
                Some(vacant) => *vacant = Some(owner),
            }
        }
        if let Some(page) = owners.iter().position(Option::is_none) {
            return Err(format!("window page {page} is lost"));
        }
        self.audit_holders(owned, tables)?;
        self.audit_rows()
    }

    fn audit_holders(&self, owned: &[Option<bool>], tables: &PageTables) -> Result<(), String> {
        let mut holders = vec![0; owned.len()];
        for (row, state) in self.rows.iter().enumerate() {
            let held = state.as_ref().map_or(0..0, |state| state.held.clone());
            let Some(pages) = tables.pages(row).get(held.clone()) else {
                return Err(format!("row {row} holds {held:?} of its pages"));
            };
            pages.iter().for_each(|page| holders[page.0 as usize] += 1);
        }
        for (page, (&owned, &holders)) in owned.iter().zip(&holders).enumerate() {
            let has_one = tables.window_page(PageId(page as u32)).is_some();
            let WindowUse { num_holders, place } = self.uses[page];
            let should = match (has_one, owned) {
                (false, _) => holders == 0,
                (true, None) => false,
                (true, Some(is_trees)) => is_trees || holders > 0,
            };
            let is_evictable = has_one && holders == 0;
            let is_listed =
                place.is_some_and(|place| self.evictable.contains(&(place, PageId(page as u32))));
            if !should
                || num_holders != holders
                || place.is_some() != is_evictable
                || is_listed != is_evictable
            {
                return Err(format!(
                    "page {page}: window page: {has_one}, the tree's: {owned:?}, held by \
                     {holders}, {num_holders} counted, place {place:?}, listed: {is_listed}"
                ));
            }
        }
        let num_listed = self.uses.iter().filter(|page| page.place.is_some()).count();
        match num_listed == self.evictable.len() {
            true => Ok(()),
            false => Err(format!("{} window pages evictable", self.evictable.len())),
        }
    }

    fn audit_rows(&self) -> Result<(), String> {
        let entitled: usize = self.rows.iter().flatten().map(|row| row.entitled).sum();
        if entitled != self.num_entitled {
            return Err(format!("entitled to {entitled}, {} counted", self.num_entitled));
        }
        // Between steps no row holds its piece of the last one.
        let rows = self.rows.iter().enumerate().filter_map(|(row, s)| Some((row, s.as_ref()?)));
        for (row, RowWindow { held, entitled }) in rows {
            if held.len() > *entitled + self.step_pages {
                return Err(format!("row {row} holds {held:?}, entitled to {entitled}"));
            }
        }
        Ok(())
    }
}
