//! `/freeze_gc`: there is no garbage collector, so its pauses are always as if it were frozen.

pub(crate) async fn freeze_gc() -> &'static str {
    "Garbage collection frozen.\n"
}
