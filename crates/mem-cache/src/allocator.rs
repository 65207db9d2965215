//! Free pages of the K/V pool.
//!
//! Last freed, first given: the ids handed out depend on the calls alone, so a
//! run replays, and a page just released is likely still warm.
//!
//! Upstream: `sglang/srt/mem_cache/allocator.py`.

use types::PageId;

/// Hands out the pages `0..num_pages`.
#[derive(Debug)]
pub struct PageAllocator {
    free: Vec<PageId>,
    is_free: Vec<bool>,
}

impl PageAllocator {
    /// All pages free.
    pub fn new(num_pages: usize) -> Self {
        let free = (0..num_pages as u32).rev().map(PageId).collect();
        Self { free, is_free: vec![true; num_pages] }
    }

    /// Size of the pool, in pages.
    pub fn num_pages(&self) -> usize {
        self.is_free.len()
    }

    /// Pages that [`Self::alloc`] can give before it fails.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// One page, or `None` if all are taken.
    pub fn alloc(&mut self) -> Option<PageId> {
        let page = self.free.pop()?;
        self.is_free[page.0 as usize] = false;
        Some(page)
    }

    /// Takes a page back.
    ///
    /// # Panics
    /// If the page is free already.
    pub fn free(&mut self, page: PageId) {
        let is_free = &mut self.is_free[page.0 as usize];
        assert!(!*is_free, "page {} freed twice", page.0);
        *is_free = true;
        self.free.push(page);
    }

    /// The free pages, next to be given last.
    pub fn free_pages(&self) -> &[PageId] {
        &self.free
    }

    /// Puts a page on the free list without asking who holds it.
    #[cfg(any(test, feature = "fault-injection"))]
    pub(crate) fn plant_double_free(&mut self, page: PageId) {
        self.is_free[page.0 as usize] = true;
        self.free.push(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_each_page_once_and_the_last_freed_first() {
        let mut allocator = PageAllocator::new(3);
        let pages: Vec<_> = std::iter::from_fn(|| allocator.alloc()).collect();
        assert_eq!(pages, [PageId(0), PageId(1), PageId(2)]);
        allocator.free(PageId(1));
        allocator.free(PageId(0));
        assert_eq!(allocator.num_free(), 2);
        assert_eq!(allocator.alloc(), Some(PageId(0)));
        assert_eq!(allocator.alloc(), Some(PageId(1)));
        assert_eq!(allocator.alloc(), None);
    }

    #[test]
    #[should_panic(expected = "page 1 freed twice")]
    fn a_double_free_stops_the_program() {
        let mut allocator = PageAllocator::new(2);
        allocator.alloc();
        allocator.free(PageId(1));
    }
}
