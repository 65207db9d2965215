//! The built program as a shell sees it.
//!
//! An integration test of this package also makes cargo build the program, with
//! the very features of the test run: the tests of `e2e` start that file, and
//! need no build of their own.

use std::process::Command;

#[test]
fn version_is_the_packages() {
    let output = Command::new(env!("CARGO_BIN_EXE_sglang-mlx")).arg("--version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.trim(), concat!("sglang-mlx ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_mistyped_flag_is_a_usage_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sglang-mlx"));
    let output = command.args(["serve", "--no-such-flag"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--no-such-flag"), "{output:?}");
}
