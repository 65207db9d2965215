//! Options of SGLang that this server does not have.
//!
//! They are parsed, so that the error can name them, and then refused: an option
//! is never silently ignored. Those that ask for what happens anyway are taken
//! at that value ([`NEUTRAL`]).

use clap::{Arg, ArgAction, ArgMatches, Command};

/// Every flag of upstream, one a line, sorted.
pub(crate) const UPSTREAM_FLAGS: &str = include_str!("../../data/upstream_flags.txt");

/// Where the list of flags is documented.
pub(crate) const DOCUMENT: &str = "docs/compat/server-args.md";

/// Flags of ours that upstream does not have.
#[cfg(test)]
pub(crate) const OWN_FLAGS: &[&str] =
    &["drain-timeout", "graph-runner", "mlx-wired-limit-gb", "profile"];

/// Other spellings of upstream's flags that launch scripts use.
const ALIASES: &[(&str, &str)] = &[
    ("config", "config"),
    ("data-parallel-size", "dp-size"),
    ("dp", "dp-size"),
    ("enable-hicache", "enable-hierarchical-cache"),
    ("ep", "ep-size"),
    ("expert-parallel-size", "ep-size"),
    ("pipeline-parallel-size", "pp-size"),
    ("pp", "pp-size"),
    ("tensor-parallel-size", "tp-size"),
    ("tp", "tp-size"),
];

/// A flag that is taken at one value, because that is what happens anyway.
pub(crate) struct Neutral {
    pub(crate) flag: &'static str,
    /// Empty: a flag without a value.
    pub(crate) value: &'static str,
    pub(crate) why: &'static str,
}

const fn neutral(flag: &'static str, value: &'static str, why: &'static str) -> Neutral {
    Neutral { flag, value, why }
}

/// Sorted by flag.
pub(crate) const NEUTRAL: &[Neutral] = &[
    neutral("detokenizer-worker-num", "1", "each request detokenizes in its own task"),
    neutral("disable-custom-all-reduce", "", "there is one device"),
    neutral("disaggregation-mode", "null", "prefill and decode share the engine"),
    neutral("dp-size", "1", "one replica"),
    neutral("enable-response-store", "", "responses are always stored"),
    neutral("ep-size", "1", "one device"),
    neutral("mlx-enable-sampling", "", "sampling is always on"),
    neutral("model-impl", "auto", "there is one implementation of each model"),
    neutral("nnodes", "1", "one machine"),
    neutral("node-rank", "0", "one machine"),
    neutral("num-continuous-decode-steps", "1", "new requests are looked for every step"),
    neutral("pp-size", "1", "one device"),
    neutral("scheduler-recv-interval", "1", "new requests are looked for every step"),
    neutral("sleep-on-idle", "", "an idle engine always sleeps"),
    neutral("tokenizer-backend", "huggingface", "the tokenizer there is"),
    neutral("tokenizer-mode", "auto", "the tokenizer there is"),
    neutral("tokenizer-worker-num", "1", "tokenizing runs on the blocking pool"),
    neutral("tp-size", "1", "one device"),
    neutral("trace-modules", "request", "requests are what is traced"),
    neutral("trust-remote-code", "", "no code of a model repository is ever run"),
];

/// An upstream option was given that this server does not have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`--{flag}{given}` is an SGLang option that sglang-mlx does not support{accepted}; see {DOCUMENT}"
)]
pub(crate) struct Refused {
    flag: String,
    given: String,
    accepted: String,
}

/// Adds the missing upstream flags, hidden from help, to a command.
pub(crate) fn augment(command: Command) -> Command {
    let taken: Vec<String> = command
        .get_arguments()
        .flat_map(|arg| arg.get_long_and_visible_aliases().unwrap_or_default())
        .map(str::to_owned)
        .collect();
    let missing = all_names().filter(|name| !taken.iter().any(|own| own == name));
    command.args(missing.map(|name| {
        Arg::new(name)
            .long(name)
            .hide(true)
            .num_args(0..)
            .allow_negative_numbers(true)
            .action(ArgAction::Append)
    }))
}

/// Refuses what [`augment`] let through; `command` is the augmented one.
///
/// # Errors
/// The first flag that was given with a value other than its neutral one.
pub(crate) fn check(command: &Command, matches: &ArgMatches) -> Result<(), Refused> {
    for arg in command.get_arguments().filter(|arg| arg.is_hide_set()) {
        let name = arg.get_id().as_str();
        let Some(values) = matches.get_occurrences::<String>(name) else { continue };
        let given: Vec<&str> = values.flatten().map(String::as_str).collect();
        let flag = ALIASES.iter().find(|alias| alias.0 == name).map_or(name, |alias| alias.1);
        let neutral = NEUTRAL.iter().find(|neutral| neutral.flag == flag);
        if neutral.is_some_and(|neutral| given.join(" ") == neutral.value) {
            continue;
        }
        return Err(Refused {
            flag: name.to_owned(),
            given: given.iter().map(|value| format!(" {value}")).collect(),
            accepted: neutral
                .filter(|neutral| !neutral.value.is_empty())
                .map_or(String::new(), |neutral| {
                    format!(" (only `{}`: {})", neutral.value, neutral.why)
                }),
        });
    }
    Ok(())
}

fn all_names() -> impl Iterator<Item = &'static str> {
    UPSTREAM_FLAGS.lines().chain(ALIASES.iter().map(|alias| alias.0))
}
