//! Where the tokens of each running request live, page by page.
//!
//! Upstream: `ReqToTokenPool` in `sglang/srt/mem_cache/memory_pool.py`, which
//! stores a slot per token; a page per `page_size` tokens is all it takes.

use std::ops::Range;

use types::{PageId, SlotId};

/// A fixed number of rows, one for each request that holds pages.
#[derive(Debug)]
pub struct PageTables {
    page_size: usize,
    rows: Vec<Vec<PageId>>,
    free_rows: Vec<usize>,
    /// By page: the window page that holds its tokens for layers with a window.
    window_page_of: Vec<Option<PageId>>,
}

impl PageTables {
    /// `num_pages` is 0 for a model without window pages.
    pub(crate) fn new(num_rows: usize, page_size: usize, num_pages: usize) -> Self {
        Self {
            page_size,
            rows: vec![Vec::new(); num_rows],
            free_rows: (0..num_rows).rev().collect(),
            window_page_of: vec![None; num_pages],
        }
    }

    /// Tokens in a page.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Rows in all.
    pub fn num_rows(&self) -> usize {
        self.rows.len()
    }

    /// Rows that no request has.
    pub fn num_free_rows(&self) -> usize {
        self.free_rows.len()
    }

    /// The pages of a row, in the order of its tokens.
    pub fn pages(&self, row: usize) -> &[PageId] {
        &self.rows[row]
    }

    /// The slot of the token at `position`.
    ///
    /// # Panics
    /// If the row has no page there.
    pub fn slot(&self, row: usize, position: usize) -> SlotId {
        let page = self.rows[row][position / self.page_size];
        page.slot(position % self.page_size, self.page_size)
    }

    /// The slots of the tokens at `positions`, in order.
    ///
    /// # Panics
    /// The iterator does, where the row has no page.
    pub fn slots(&self, row: usize, positions: Range<usize>) -> impl Iterator<Item = SlotId> + '_ {
        positions.map(move |position| self.slot(row, position))
    }

    /// The window pages of a row's pages in `range`.
    ///
    /// # Panics
    /// The iterator does, where there is none: below what the row's layers with a window
    /// see, and beyond its last step.
    pub fn window_pages(
        &self,
        row: usize,
        range: Range<usize>,
    ) -> impl Iterator<Item = PageId> + '_ {
        self.rows[row][range].iter().map(|&page| {
            self.window_page(page).expect("a row has window pages where its layers look")
        })
    }

    /// As [`Self::slots`], in the window pages.
    ///
    /// # Panics
    /// As [`Self::window_pages`].
    pub fn window_slots(
        &self,
        row: usize,
        positions: Range<usize>,
    ) -> impl Iterator<Item = SlotId> + '_ {
        positions.map(move |position| {
            let index = position / self.page_size;
            let page = self.window_pages(row, index..index + 1).next();
            page.expect("of one page").slot(position % self.page_size, self.page_size)
        })
    }

    /// The window page of a page.
    pub(crate) fn window_page(&self, page: PageId) -> Option<PageId> {
        self.window_page_of[page.0 as usize]
    }

    pub(crate) fn window_page_mut(&mut self, page: PageId) -> &mut Option<PageId> {
        &mut self.window_page_of[page.0 as usize]
    }

    pub(crate) fn open(&mut self) -> Option<usize> {
        let row = self.free_rows.pop()?;
        debug_assert!(self.rows[row].is_empty());
        Some(row)
    }

    /// The row's pages must be in other hands by now.
    pub(crate) fn close(&mut self, row: usize) {
        self.rows[row].clear();
        debug_assert!(!self.free_rows.contains(&row));
        self.free_rows.push(row);
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut Vec<PageId> {
        &mut self.rows[row]
    }
}
