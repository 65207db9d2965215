//! Identifiers. Each is a type of its own, so a page is never used as a slot.

use std::{fmt, sync::Arc};

/// An entry of the vocabulary. An alias and not a newtype: ids cross the
/// tokenizer, JSON and tensors in bulk, and nothing else here is a bare `u32`.
pub type TokenId = u32;

/// The client's name for a request (`rid`), unique among live requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rid(Arc<str>);

impl Rid {
    /// Wraps a client's or a generated name.
    pub fn new(rid: impl Into<Arc<str>>) -> Self {
        Self(rid.into())
    }

    /// The name as it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A page of the K/V pool: `page_size` consecutive slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId(pub u32);

impl PageId {
    /// The slot of the token at `offset` inside this page.
    pub fn slot(self, offset: usize, page_size: usize) -> SlotId {
        debug_assert!(offset < page_size);
        SlotId(self.0 * page_size as u32 + offset as u32)
    }
}

/// A slot of the state pool: what the recurrent layers of a model remember of one
/// prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub u32);

/// One token's place in the K/V pool (an element of `out_cache_loc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);
