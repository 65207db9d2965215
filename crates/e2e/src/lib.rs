//! Tests of the real binary over HTTP; see `tests/`.
