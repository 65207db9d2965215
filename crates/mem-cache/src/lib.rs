//! Who owns which page of the K/V pool: a page allocator, the page tables of
//! the running requests and the radix tree of cached prefixes.
//!
//! No tensor here: pages and slots are numbers, and the pool they index lives
//! with the attention code. [`MemCache`] joins the three parts and is what the
//! scheduler talks to; a page is always in exactly one of three hands: free,
//! in the tree, or private to one row of the tables. [`MemCache::audit`] proves it.
//! Models with recurrent layers have states beside pages, treated alike; layers with a
//! sliding window have window pages, which belong to pages.
//!
//! Upstream: `sglang/srt/mem_cache/`.

mod allocator;
mod eviction;
mod mem_cache;
mod page_tables;
mod radix_cache;

pub use allocator::PageAllocator;
pub use eviction::{EvictionPolicy, UnknownEvictionPolicy};
#[cfg(any(test, feature = "fault-injection"))]
pub use mem_cache::Fault;
pub use mem_cache::{
    MemCache, MemCacheConfig, Piece, Snapshot, StateConfig, StateFlow, WindowConfig,
};
pub use page_tables::PageTables;
pub use radix_cache::{NodeId, RadixCache, User};
