//! Which cached prefix goes first when pages run out.
//!
//! Upstream: `sglang/srt/mem_cache/evict_policy.py`.

use std::str::FromStr;

use thiserror::Error;

/// The order of eviction. Only ends of prefixes that nobody uses are evicted, and among those
/// that a policy does not tell apart, the least recently used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EvictionPolicy {
    /// Least recently used.
    #[default]
    Lru,
    /// Least frequently used: used by the fewest requests.
    Lfu,
    /// Segmented LRU: what fewer requests than this have used goes before what more have.
    Slru {
        /// Upstream's default is 2.
        protected_threshold: u32,
    },
    /// Lowest priority, where a prefix has the highest of the requests that used it.
    Priority,
}

/// Names as upstream has them, sorted.
const POLICIES: &[(&str, EvictionPolicy)] = &[
    ("lfu", EvictionPolicy::Lfu),
    ("lru", EvictionPolicy::Lru),
    ("priority", EvictionPolicy::Priority),
    ("slru", EvictionPolicy::Slru { protected_threshold: 2 }),
];

/// No policy of that name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{name}` is not one of lfu, lru, priority, slru")]
pub struct UnknownEvictionPolicy {
    name: String,
}

impl FromStr for EvictionPolicy {
    type Err = UnknownEvictionPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownEvictionPolicy> {
        let found = POLICIES.iter().find(|policy| policy.0 == name);
        found.map(|policy| policy.1).ok_or_else(|| UnknownEvictionPolicy { name: name.to_owned() })
    }
}

/// What the tree remembers of a node's use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// When, in operations of the tree.
    pub(crate) last_access: u64,
    /// Requests that wrote it or found it.
    pub(crate) num_hits: u32,
    /// The highest of those requests.
    pub(crate) priority: i64,
}

impl Usage {
    pub(crate) const NEVER: Self = Self { last_access: 0, num_hits: 0, priority: i64::MIN };
}

/// A node's place in the order of eviction; the lowest goes first. Compared by class, then age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EvictionRank {
    class: i64,
    last_access: u64,
}

impl EvictionPolicy {
    pub(crate) fn rank(self, usage: &Usage) -> EvictionRank {
        let class = match self {
            Self::Lru => 0,
            Self::Lfu => i64::from(usage.num_hits),
            Self::Slru { protected_threshold } => i64::from(usage.num_hits >= protected_threshold),
            Self::Priority => usage.priority,
        };
        EvictionRank { class, last_access: usage.last_access }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_upstreams_names() {
        assert!(POLICIES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (name, policy) in POLICIES {
            assert_eq!(name.parse(), Ok(*policy));
        }
        let error = "tlru".parse::<EvictionPolicy>().unwrap_err();
        assert_eq!(error.to_string(), "`tlru` is not one of lfu, lru, priority, slru");
    }
}
