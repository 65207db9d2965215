//! One file per command.

pub(crate) mod bench_one_batch;
pub(crate) mod bench_serving;
pub(crate) mod check_env;
pub(crate) mod convert;
pub(crate) mod generate;
pub(crate) mod launch_server;
