//! The command line as a whole: the flags against upstream's list, refusals,
//! and the page that documents them.

use std::{collections::BTreeSet, ffi::OsString, fmt::Write, fs, path::Path};

use super::*;
use crate::args::refused::{NEUTRAL, OWN_FLAGS, UPSTREAM_FLAGS};

/// What the program is called in these tests.
fn parse_words(words: &str) -> anyhow::Result<Cli> {
    parse(std::iter::once("sglang-mlx").chain(words.split_whitespace()).map(OsString::from))
}

fn error_of(words: &str) -> String {
    parse_words(words).expect_err("must be refused").to_string()
}

fn launch_server() -> clap::Command {
    Cli::command().find_subcommand("launch-server").unwrap().clone()
}

fn own_flags() -> BTreeSet<String> {
    launch_server().get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

#[test]
fn derived_arguments_are_consistent() {
    command().debug_assert();
}

#[test]
fn ours_and_the_refused_are_upstreams() {
    let upstream: BTreeSet<String> = UPSTREAM_FLAGS.lines().map(str::to_owned).collect();
    assert_eq!(upstream.len(), 543, "sorted and without duplicates");
    assert!(UPSTREAM_FLAGS.lines().is_sorted());

    let mut ours = own_flags();
    for own in OWN_FLAGS {
        assert!(ours.remove(*own) && !upstream.contains(*own), "{own} is no flag of our own");
    }
    assert!(ours.is_subset(&upstream), "not upstream's: {:?}", ours.difference(&upstream));

    let command = command();
    let hidden: BTreeSet<String> = command
        .find_subcommand("launch-server")
        .unwrap()
        .get_arguments()
        .filter(|arg| arg.is_hide_set())
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .filter(|flag| upstream.contains(flag))
        .collect();
    assert!(hidden.is_disjoint(&ours));
    assert_eq!(hidden.union(&ours).cloned().collect::<BTreeSet<_>>(), upstream);
}

#[test]
fn neutral_flags_are_refused_ones() {
    assert!(NEUTRAL.windows(2).all(|pair| pair[0].flag < pair[1].flag));
    let ours = own_flags();
    for neutral in NEUTRAL {
        assert!(UPSTREAM_FLAGS.lines().any(|flag| flag == neutral.flag), "{}", neutral.flag);
        assert!(!ours.contains(neutral.flag), "{}", neutral.flag);
    }
}

#[test]
fn a_missing_option_is_refused_by_name() {
    for (words, text) in [
        (
            "serve --tp-size 4",
            "`--tp-size 4` is an SGLang option that sglang-mlx does not support (only `1`: one \
             device); see \
             docs/compat/server-args.md",
        ),
        (
            "launch-server --model-path m --enable-lora --port 1",
            "`--enable-lora` is an SGLang option that sglang-mlx does not support; see \
             docs/compat/server-args.md",
        ),
        ("serve --lora-paths a b c", "`--lora-paths a b c` is an SGLang option"),
        ("serve --tp=2", "`--tp 2` is an SGLang option"),
        ("generate --prompt x --speculative-algorithm EAGLE", "`--speculative-algorithm EAGLE`"),
        ("bench-one-batch --enable-torch-compile", "`--enable-torch-compile` is"),
    ] {
        assert!(error_of(words).starts_with(text), "{}", error_of(words));
    }
}

#[test]
fn a_missing_option_at_its_neutral_value_is_taken() {
    let words = "launch_server --tp 1 --tensor-parallel-size 1 --dp-size=1 --trust-remote-code \
                 --disable-cuda-graph --port 4";
    let Commands::LaunchServer(args) = parse_words(words).unwrap().command else {
        panic!("launch_server is another name of launch-server");
    };
    assert_eq!(args.serving.port, 4);
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    let error = error_of("serve --no-such-flag");
    assert!(error.contains("unexpected argument '--no-such-flag'"), "{error}");
    let error = error_of("serve --port 70000");
    assert!(error.contains("'--port <PORT>'"), "{error}");
}

/// What a service is started with, and how long its manager waits for its end.
fn service(file: &str) -> String {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist");
    fs::read_to_string(dist.join(file)).unwrap()
}

fn drain_timeout(words: &str) -> f64 {
    let Commands::LaunchServer(args) = parse_words(words).unwrap().command else {
        panic!("a service is a server: {words}");
    };
    args.engine.resolve().unwrap();
    args.serving.drain_timeout.unwrap()
}

/// Beside the drain itself there are the last answers, the last step and the last spans.
#[test]
fn services_start_and_may_drain() {
    let (unit, environment) = (service("sglang-mlx.service"), service("sglang-mlx.env"));
    let after = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    let command = after(&unit, "ExecStart=/usr/local/bin/sglang-mlx ");
    let words = command.replace("$SGLANG_ARGS", &after(&environment, "SGLANG_ARGS="));
    let patience: f64 = after(&unit, "TimeoutStopSec=").parse().unwrap();
    assert!(patience >= drain_timeout(&words) + 10.0, "{words}: {patience}");

    let plist = service("org.sglang.mlx.plist");
    let between = |text: &str, from: &str, to: &str| {
        let (_, rest) = text.split_once(from).unwrap();
        rest.split_once(to).unwrap().0.to_owned()
    };
    let arguments = between(&plist, "<key>ProgramArguments</key>", "</array>");
    let words = arguments.split("<string>").skip(2).map(|s| s.split_once("</string>").unwrap().0);
    let words = words.collect::<Vec<_>>().join(" ");
    let patience = between(&plist, "<key>ExitTimeOut</key>", "</integer>");
    let patience: f64 = patience.split_once("<integer>").unwrap().1.parse().unwrap();
    assert!(patience >= drain_timeout(&words) + 10.0, "{words}: {patience}");
}

/// `UPDATE_DOCS=1 cargo test -p cli` writes the page anew.
#[test]
fn the_page_of_flags_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compat/server-args.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/compat/server-args.md is stale: UPDATE_DOCS=1 cargo test -p cli");
}

fn page() -> String {
    let mut page = String::from(
        "# Server arguments\n\n\
         `sglang-mlx launch-server` (alias `serve`) knows every flag of SGLang's server. Those it \
         has behave as\nupstream's do; the others are refused by name, never ignored. This page is \
         written by a test\n(`UPDATE_DOCS=1 cargo test -p cli`).\n\n\
         ## Supported\n\n| flag | default | what it does |\n|---|---|---|\n",
    );
    let command = launch_server();
    let mut arguments: Vec<_> =
        command.get_arguments().filter(|arg| arg.get_long().is_some()).collect();
    arguments.sort_by_key(|arg| arg.get_long());
    for arg in &arguments {
        let default = arg.get_default_values().first().and_then(|value| value.to_str());
        let default = match (default, arg.get_action().takes_values()) {
            (Some(default), true) => format!("`{default}`"),
            (None, true) => "-".to_owned(),
            (_, false) => "off".to_owned(),
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(page, "| `--{}` | {default} | {help} |", arg.get_long().unwrap());
    }
    let differ = "\nDefaults that differ from upstream's: `--page-size` is 16 (upstream: by \
        backend, mostly 1), because the radix\ntree and the page tables then hold a sixteenth of \
        the entries and at most 15 tokens of a shared prefix are\ncomputed again. \
        `--chunked-prefill-size` is 512 on the CPU, where larger chunks gain nothing and make \
        others\nwait; on GPUs it follows memory as upstream (2048 below 20 GiB, 4096 below 60, 8192 \
        below 160, else 16384) and\nis halved while one step would need more than a quarter of the \
        memory. `--device`, `--attention-backend` and\n`--graph-runner` name what MLX has. \
        `--reasoning-parser` and `--tool-call-parser` are `auto` (upstream: no parser), which\n\
        follows upstream's rules for that value.\n";
    page.push_str(differ);
    page.push_str(
        "\n## Taken at one value\n\nThese ask for what happens anyway; any other value is \
         refused.\n\n| flag | value | why |\n|---|---|---|\n",
    );
    for neutral in NEUTRAL {
        let value = if neutral.value.is_empty() { "(set)" } else { neutral.value };
        let _ = writeln!(page, "| `--{}` | {value} | {} |", neutral.flag, neutral.why);
    }
    page.push_str("\n## Refused\n\n");
    let ours = own_flags();
    for flag in UPSTREAM_FLAGS.lines() {
        if !ours.contains(flag) && !NEUTRAL.iter().any(|neutral| neutral.flag == flag) {
            let _ = writeln!(page, "- `--{flag}`");
        }
    }
    page
}
