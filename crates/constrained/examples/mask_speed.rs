//! What a grammar costs a token.
//!
//!     cargo run --release -p constrained --example mask_speed -- TOKENIZER_FOLDER [BACKEND] [ROWS]
//!
//! For each grammar, waves of ROWS requests (32) follow texts of their own in step, as rows
//! of a batch do: masks on two threads, then the tokens. Prints how long the grammar took to
//! compile and to copy for a request; for the first wave and the last, microseconds of the
//! processor a token of a row (so on two threads a step takes half as many times the rows);
//! and percentiles of a single mask, all waves.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of developers")]

use std::{
    env, fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use constrained::{GrammarCompiler, GrammarKind, GrammarSpec, JsonOptions, Vocabulary, find};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tokenizer::Tokenizer;
use types::{TokenGrammar, TokenId};

const NUM_WAVES: u64 = 4;
const THREADS: usize = 2;
const WORDS: &[&str] = &[
    "river",
    "Ångström",
    "seven",
    "a quiet harbour",
    "delta-9",
    "market",
    "of",
    "the",
    "glass",
    "northern",
    "señal",
    "protocol",
    "and",
    "meadow",
    "東京",
    "lamp",
    "under",
    "winter",
    "copper",
];

struct Case {
    name: &'static str,
    spec: GrammarSpec,
    text: fn(&mut Random) -> String,
}

struct Random(u64);

impl Random {
    fn below(&mut self, count: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }

    fn words(&mut self, most: u64) -> String {
        let count = 1 + self.below(most);
        let words: Vec<_> =
            (0..count).map(|_| WORDS[self.below(WORDS.len() as u64) as usize]).collect();
        words.join(" ")
    }
}

fn cases() -> Vec<Case> {
    let person = json!({
        "type": "object", "required": ["name", "age", "tags", "address"], "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "maxLength": 80}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 8},
            "address": {"type": "object", "required": ["street", "zip"], "additionalProperties": false,
                "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}}},
    });
    let tree = json!({
        "$ref": "#/$defs/node", "$defs": {"node": {
            "type": "object", "required": ["kind", "children"], "additionalProperties": false,
            "properties": {"kind": {"enum": ["leaf", "branch", "root"]}, "note": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}},
    });
    let case = |name, kind, text: String, sample| Case {
        name,
        spec: GrammarSpec::new(kind, text),
        text: sample,
    };
    vec![
        case("json: flat and nested fields", GrammarKind::JsonSchema, person.to_string(), |random| {
            json!({"name": random.words(6), "age": random.below(99), "tags": [random.words(2), random.words(2)],
                   "address": {"street": random.words(8), "zip": format!("{:05}", random.below(99_999))}}).to_string()
        }),
        case("json: recursive", GrammarKind::JsonSchema, tree.to_string(), |random| {
            let leaf = |random: &mut Random| json!({"kind": "leaf", "note": random.words(9), "children": []});
            let leaves: Vec<_> = (0..3).map(|_| leaf(random)).collect();
            json!({"kind": "root", "children": leaves}).to_string()
        }),
        case("json: any object", GrammarKind::JsonSchema, r#"{"type":"object"}"#.to_owned(), |random| {
            json!({random.words(2): [random.words(7), random.below(9), true], random.words(3): null}).to_string()
        }),
        case("json: 100 fields, 2000 states", GrammarKind::JsonSchema, large().0, |_| large().1),
        case("regex: sentences", GrammarKind::Regex, r"([A-Z][a-z]+( [a-z]+){2,12}[.!?] ?){1,5}".to_owned(), |random| {
            (0..3).map(|_| {
                let words: Vec<_> = (0..5).map(|_| ["river", "of", "glass", "and", "winter"][random.below(5) as usize]).collect();
                format!("The {}. ", words.join(" "))
            }).collect()
        }),
        case("regex: any line", GrammarKind::Regex, r"[^\n]{1,400}".to_owned(), |random| random.words(30)),
        case("ebnf: arithmetic", GrammarKind::Ebnf,
            "root ::= sum\nsum ::= term ((\" + \" | \" - \") term)*\nterm ::= [0-9]+ | \"(\" sum \")\"".to_owned(),
            |random| (0..8).map(|n| format!("{}({} - {})", if n == 0 { "" } else { " + " }, random.below(999), random.below(99_999))).collect()),
        case("ebnf: list of quoted strings", GrammarKind::Ebnf,
            "root ::= \"- \" item (\"\\n- \" item)*\nitem ::= \"'\" [^'\\n]* \"'\" | root2\nroot2 ::= \"[\" item \"]\"".to_owned(),
            |random| (0..4).map(|n| format!("{}- '{}'", if n == 0 { "" } else { "\n" }, random.words(6))).collect()),
        case("tags: text with calls", GrammarKind::StructuralTag,
            json!({"triggers": ["<call>"], "structures": [{"begin": "<call>", "end": "</call>", "schema": {"type": "object"}}]}).to_string(),
            |random| format!("{} <call>{}</call> {}", random.words(15), json!({"q": random.words(4)}), random.words(9))),
        case("ebnf: nested lists", GrammarKind::Ebnf,
            "root ::= \"- \" item (\"\\n- \" item)*\nitem ::= \"'\" [^'\\n]* \"'\" | \"[\" item (\", \" item)* \"]\" | [0-9]+".to_owned(),
            |random| (0..6).map(|n| format!("{}- {}", if n == 0 { "" } else { "\n" }, nested(random))).collect()),
        case("tags: different calls", GrammarKind::StructuralTag,
            json!({"triggers": ["<call>"], "structures": [{"begin": "<call>", "end": "</call>", "schema": {"type": "object"}}]}).to_string(),
            |random| (0..3).map(|_| {
                let parts: Map<String, Value> = (0..1 + random.below(4)).map(|_| (random.words(2), random.below(99).into())).collect();
                format!("{} <call>{}</call> ", random.words(8), Value::Object(parts))
            }).collect()),
    ]
}

/// Strings and numbers in lists, no two of them alike.
fn nested(random: &mut Random) -> String {
    match random.below(3) {
        0 => random.below(9999).to_string(),
        1 => format!("'{}'", random.words(4)),
        _ => {
            let items: Vec<_> = (0..1 + random.below(2)).map(|_| nested(random)).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

/// A schema whose automaton has some 2000 states, and an instance's text.
fn large() -> (String, String) {
    let name = |n: usize| format!("field_{n}");
    let kinds = json!({"enum": ["alpha", "beta", 12, null]});
    let properties: Map<String, Value> = (0..100).map(|n| (name(n), kinds.clone())).collect();
    let required: Vec<String> = properties.keys().cloned().collect();
    let schema = json!({"type": "object", "properties": properties, "required": required,
        "additionalProperties": false});
    let instance: Map<String, Value> = (0..100).map(|n| (name(n), json!("beta"))).collect();
    (schema.to_string(), Value::Object(instance).to_string())
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let tokenizer =
        Tokenizer::from_dir(Path::new(args.first().expect("a tokenizer's folder"))).unwrap();
    let backend = args.get(1).map_or(constrained::DEFAULT_BACKEND, String::as_str);
    let rows: usize = args.get(2).map_or(32, |rows| rows.parse().unwrap());
    rayon::ThreadPoolBuilder::new().num_threads(THREADS).build_global().unwrap();
    let vocab_size = tokenizer.vocab_size();
    let vocabulary = Vocabulary::new(&tokenizer, vocab_size, &[vocab_size as TokenId - 1]).unwrap();
    let started = Instant::now();
    let new = find(backend).unwrap().new.unwrap();
    let compiler =
        GrammarCompiler::new(new(&Arc::new(vocabulary), JsonOptions::default()).unwrap());
    println!(
        "{vocab_size} tokens, {backend}, {rows} rows, {THREADS} threads; read in {:?}",
        started.elapsed()
    );
    println!(
        "{:30} {:>9} {:>8} | {:>7} {:>7} | {:>6} {:>6} {:>6} {:>7}",
        "", "compile", "copy", "first", "last", "p50", "p90", "p99", "max"
    );
    for case in cases() {
        let started = Instant::now();
        match compiler.compile(&case.spec) {
            Ok(_) => measure(&compiler, &tokenizer, &case, rows, started.elapsed()),
            Err(error) => println!("{:30} {error}", case.name),
        }
    }
}

fn measure(
    compiler: &GrammarCompiler,
    tokenizer: &Tokenizer,
    case: &Case,
    rows: usize,
    compiling: Duration,
) {
    let (mut masks, mut waves, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for wave in 0..NUM_WAVES {
        let mut batch: Vec<(Box<dyn TokenGrammar>, Vec<TokenId>)> = (0..rows as u64)
            .map(|row| {
                let text = (case.text)(&mut Random(wave * 1000 + row + 1));
                let started = Instant::now();
                let grammar = compiler.cached(&case.spec).unwrap().unwrap();
                copies.push(started.elapsed());
                (grammar, tokenizer.encode(&text, false).unwrap())
            })
            .collect();
        waves.push(follow(&mut batch, &mut masks));
    }
    masks.sort();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let percentile = |share: f64| micros(masks[((masks.len() - 1) as f64 * share) as usize]);
    let copy = copies.iter().sum::<Duration>() / copies.len() as u32;
    println!(
        "{:30} {:>7.2}ms {:>6.1}us | {:>7.1} {:>7.1} | {:>6.1} {:>6.1} {:>6.1} {:>7.1}",
        case.name,
        micros(compiling) / 1e3,
        micros(copy),
        micros(waves[0]),
        micros(*waves.last().unwrap()),
        percentile(0.5),
        percentile(0.9),
        percentile(0.99),
        percentile(1.0),
    );
}

/// Of all threads of the process, as Linux counts it.
fn processor_time() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let nanos = |task: fs::DirEntry| -> u64 {
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default()
    };
    Duration::from_nanos(tasks.map(|task| nanos(task.unwrap())).sum())
}

/// The processor's time for a token of a row.
fn follow(
    batch: &mut [(Box<dyn TokenGrammar>, Vec<TokenId>)],
    masks: &mut Vec<Duration>,
) -> Duration {
    let steps = batch.iter().map(|(_, tokens)| tokens.len()).max().unwrap();
    let (mut num_tokens, mut time) = (0, Duration::ZERO);
    for step in 0..steps {
        let mut rows: Vec<_> = batch.iter_mut().filter(|(_, tokens)| step < tokens.len()).collect();
        let started = processor_time();
        let times: Vec<Duration> = rows
            .par_iter_mut()
            .map(|(grammar, _)| {
                let started = Instant::now();
                std::hint::black_box(grammar.next_tokens().unwrap());
                started.elapsed()
            })
            .collect();
        for (grammar, tokens) in &mut rows {
            grammar.accept(tokens[step]).unwrap();
        }
        time += processor_time() - started;
        num_tokens += rows.len() as u32;
        masks.extend(times);
    }
    time / num_tokens
}
