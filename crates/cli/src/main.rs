//! The `sglang-mlx` command.

fn main() {}
