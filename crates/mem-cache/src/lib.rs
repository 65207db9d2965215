//! mem-cache
