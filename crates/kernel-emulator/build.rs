//! Compiles the emulator and, for it, the text of every kernel.
//!
//! The bodies are those of `kernels/src/*/body.inc`, the very text that GPUs
//! get, and a few planted mistakes of our own. Their first lines (`//@ ...`) say
//! what a kernel takes; from them the C++ around each body is written here.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// Element types in C++, by their codes; 3 and 4 are of [`FIXED_TYPES`].
const TYPES: [&str; 8] = ["float", "half", "bfloat", "", "", "fp8_row", "int8_row", "int4_row"];
/// Codes of packed rows of K and V.
const PACKED: [usize; 3] = [5, 6, 7];
const FIXED_TYPES: [(&str, i32, &str); 3] =
    [("float", 0, "float"), ("int", 3, "int"), ("uint", 4, "uint32_t")];

#[derive(Default)]
struct Signature {
    types: Vec<String>,
    /// Only types of 16 bits, for the matrix unit.
    are_short: bool,
    parameters: Vec<Parameter>,
    ints: Vec<String>,
    floats: Vec<String>,
}

struct Parameter {
    name: String,
    element: String,
    is_output: bool,
    is_writable: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let kernels = here.join("../kernels/src");
    println!("cargo::rerun-if-changed={}", kernels.display());
    for folder in ["build.rs", "cpp", "planted"] {
        println!("cargo::rerun-if-changed={}", here.join(folder).display());
    }
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).include(here.join("cpp")).include(&kernels);
    build.flag_if_supported("-Wno-unknown-pragmas");
    for source in ["fiber.cpp", "group.cpp", "registry.cpp"] {
        build.file(here.join("cpp").join(source));
    }
    let mut names = Vec::new();
    for (name, body) in bodies(&kernels, &here.join("planted"))? {
        let text = wrapper(&name, &body, &Signature::parse(&fs::read_to_string(&body)?)?);
        let path = out.join(format!("{name}.cpp"));
        write_if_changed(&path, &text)?;
        build.file(path);
        names.push(name);
    }
    let table = out.join("table.cpp");
    write_if_changed(&table, &registry(&names))?;
    build.file(table);
    build.compile("kernel_emulator");
    Ok(())
}

fn write_if_changed(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text)
}

/// Name and body of every kernel, sorted.
fn bodies(kernels: &Path, planted: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir(kernels)? {
        let folder = entry?.path();
        let body = folder.join("body.inc");
        if body.exists() {
            found.push((stem(&folder), body));
        }
    }
    for entry in fs::read_dir(planted)? {
        let body = entry?.path();
        found.push((format!("planted_{}", stem(&body)), body));
    }
    found.sort();
    Ok(found)
}

impl Signature {
    fn parse(text: &str) -> Result<Self, String> {
        let mut signature = Self::default();
        for line in text.lines().filter_map(|line| line.strip_prefix("//@ ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["type", name] => signature.types.push(name.to_owned()),
                ["type16", name] => {
                    signature.types.push(name.to_owned());
                    signature.are_short = true;
                }
                ["const", "int", name] => signature.ints.push(name.to_owned()),
                ["const", "float", name] => signature.floats.push(name.to_owned()),
                [role @ ("input" | "inout" | "output"), element, name] => {
                    signature.parameters.push(Parameter {
                        name: name.to_owned(),
                        element: element.to_owned(),
                        is_output: role == "output",
                        is_writable: role == "inout",
                    });
                }
                _ => return Err(format!("not a line of a signature: {line}")),
            }
        }
        Ok(signature)
    }
}

fn fixed_type(element: &str) -> Option<(i32, &'static str)> {
    FIXED_TYPES.iter().find(|(name, ..)| *name == element).map(|(_, code, cpp)| (*code, *cpp))
}

/// The C++ function around a body, and its entry of the registry.
fn wrapper(name: &str, body: &Path, signature: &Signature) -> String {
    let mut text = String::from("#include \"registry.h\"\nnamespace emulator {\nnamespace {\n");
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let typenames: Vec<_> = signature.types.iter().map(|name| format!("typename {name}")).collect();
    if !typenames.is_empty() {
        line(format!("template <{}>", typenames.join(", ")));
    }
    line("void body(const Launch& launch) {".to_owned());
    for (index, parameter) in signature.parameters.iter().enumerate() {
        let element = fixed_type(&parameter.element).map_or(&*parameter.element, |(_, cpp)| cpp);
        let (name, is_const) = (&parameter.name, if parameter.is_output { "" } else { "const " });
        line(format!("const Device<{is_const}{element}> {name}{{&launch.buffers[{index}], 0}};"));
        line(format!("const int* const {name}_shape = launch.buffers[{index}].shape;"));
        line(format!("(void){name}; (void){name}_shape;"));
    }
    for (kind, names) in [("int", &signature.ints), ("float", &signature.floats)] {
        for (index, name) in names.iter().enumerate() {
            line(format!("const {kind} {name} = launch.{kind}s[{index}]; (void){name};"));
        }
    }
    line(format!("POSITIONS\n#line 1 \"{name}/body.inc\"\n#include \"{}\"\n}}", body.display()));
    line(select(signature));
    line("}  // namespace".to_owned());
    line(entry(name, signature));
    line("}  // namespace emulator".to_owned());
    text
}

/// Which element types a kernel is compiled for: all the same; a first (`T`) of
/// f32 with a pool of f16; a third (`OUT`) of f32; pools that are packed, each below one
/// type of 16 bits at most.
fn cases(signature: &Signature) -> Vec<Vec<usize>> {
    let types = signature.types.len();
    let has_pool = signature.types.iter().any(|name| name == "KV");
    let packed = |firsts: &[usize]| -> Vec<Vec<usize>> {
        let of_first = |&first: &usize| PACKED.map(|code| vec![first, code]);
        if has_pool { firsts.iter().flat_map(of_first).collect() } else { Vec::new() }
    };
    if signature.are_short {
        let same = [1, 2].map(|code| vec![code; types]);
        return same.into_iter().chain(packed(&[2])).collect();
    }
    let mut cases: Vec<Vec<usize>> = (0..3).map(|code| vec![code; types]).collect();
    match types {
        2 => {
            cases.push(vec![0, 1]);
            cases.extend(packed(&[0]));
            cases.extend(has_pool.then(|| vec![2, 6]));
        }
        3 => {
            cases.extend([vec![0, 1, 0], vec![1, 1, 0], vec![2, 2, 0]]);
            cases.extend(PACKED.map(|code| vec![0, code, 0]));
            cases.extend([vec![2, 6, 2], vec![2, 6, 0]]);
        }
        _ => {}
    }
    cases
}

/// Chooses the instance for given element types.
fn select(signature: &Signature) -> String {
    let mut text = String::from("Body select(const int* codes) {\n(void)codes;\n");
    if signature.types.is_empty() {
        return text + "return body;\n}";
    }
    for case in cases(signature) {
        let condition: Vec<_> =
            case.iter().enumerate().map(|(i, code)| format!("codes[{i}] == {code}")).collect();
        let types: Vec<_> = case.iter().map(|code| TYPES[*code]).collect();
        let _ =
            writeln!(text, "if ({}) return body<{}>;", condition.join(" && "), types.join(", "));
    }
    text + "return nullptr;\n}"
}

fn entry(name: &str, signature: &Signature) -> String {
    let quoted = |names: &[String]| {
        names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
    };
    let parameters: Vec<_> = signature
        .parameters
        .iter()
        .map(|parameter| {
            let type_index = signature.types.iter().position(|name| *name == parameter.element);
            let code = type_index.map_or_else(
                || !fixed_type(&parameter.element).map_or(0, |(code, _)| code),
                |index| i32::try_from(index).unwrap_or(0),
            );
            let Parameter { name, is_output, is_writable, .. } = parameter;
            format!("{{\"{name}\", {code}, {is_output}, {is_writable}}}")
        })
        .collect();
    format!(
        "extern const Kernel kernel_{name};\nconst Kernel kernel_{name} = {{\"{name}\", {{{}}}, {{{}}}, \
         {{{}}}, {{{}}}, select}};",
        quoted(&signature.types),
        parameters.join(", "),
        quoted(&signature.ints),
        quoted(&signature.floats)
    )
}

fn registry(names: &[String]) -> String {
    let mut text = String::from("#include \"registry.h\"\nnamespace emulator {\n");
    for name in names {
        let _ = writeln!(text, "extern const Kernel kernel_{name};");
    }
    let all: Vec<_> = names.iter().map(|name| format!("&kernel_{name}")).collect();
    let _ = writeln!(
        text,
        "const std::vector<const Kernel*>& kernels() {{\nstatic const std::vector<const Kernel*> \
         all = {{{}}};\nreturn all;\n}}\n}}",
        all.join(", ")
    );
    text
}
