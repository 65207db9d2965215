//! Checks the kernels on this machine's GPU against plain references and times
//! them: `cargo run --release -p kernels --example gpu_check [-- <part of a name>]`.
//!
//! Every section reports its own failure, and the others still run. Without a
//! GPU: `--texts <folder>` writes what a driver would compile, one file a kernel
//! and variant, for a look or a compiler.
#![expect(clippy::print_stdout, reason = "a program that reports to its caller")]

#[path = "../../tests/cases/mod.rs"]
mod cases;
mod products;
mod timing;

use std::{cell::RefCell, collections::BTreeMap, error::Error, path::Path, rc::Rc, time::Instant};

use cases::{
    Case, Data, Device, Results, Value, attention, moe, products as product_cases, recurrent, rows,
    write,
};
use kernels::{Call, Kernels};
use mlx::{Array, Dtype, gpu_kernel::GpuDialect};

struct Gpu(Rc<Kernels>);

fn array(value: &Value) -> mlx::Result<Array> {
    match &value.data {
        Data::Floats(floats) => Array::from_slice(floats, &value.shape)?.astype(value.dtype),
        Data::Ints(ints) => Array::from_slice(ints, &value.shape),
        Data::Uints(uints) => Array::from_slice(uints, &value.shape),
        Data::Rows(_, bytes) => Array::from_slice(bytes, &value.shape),
    }
}

fn floats(array: &Array) -> mlx::Result<Vec<f32>> {
    array.astype(Dtype::Float32)?.to_vec()
}

impl Gpu {
    fn try_run(&self, call: &Call, inputs: &[&Value]) -> Result<Results, Box<dyn Error>> {
        let names = call.kernel.inputs();
        let inputs = inputs.iter().map(|value| array(value)).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<&Array> = inputs.iter().collect();
        mlx::eval(&inputs)?;
        let outputs = self.0.run(call, &inputs)?;
        mlx::eval(&outputs.iter().collect::<Vec<_>>())?;
        let written = call.kernel.written();
        let written = names.iter().zip(&inputs).filter(|(name, _)| written.contains(name));
        Ok(Results {
            outputs: outputs.iter().map(floats).collect::<Result<_, _>>()?,
            written: written.map(|(_, array)| floats(array)).collect::<Result<_, _>>()?,
        })
    }
}

impl Device for Gpu {
    fn run(&self, call: &Call, inputs: &[&Value]) -> Result<Results, String> {
        self.try_run(call, inputs).map_err(|error| error.to_string())
    }
}

/// Writes texts instead of running them; every result is wrong.
struct Texts(RefCell<BTreeMap<String, String>>);

impl Device for Texts {
    fn run(&self, call: &Call, inputs: &[&Value]) -> Result<Results, String> {
        for (dialect, ending) in [(GpuDialect::Cuda, "cu"), (GpuDialect::Metal, "metal")] {
            let text = call.text(dialect).map_err(|error| error.to_string())?;
            let mut whole = text.header + "// arguments";
            for (name, value) in call.kernel.inputs().iter().zip(inputs) {
                let few = value.shape.iter().product::<usize>() < 8;
                whole += &format!(" in:{name}:{:?}:{few}", value.dtype);
            }
            for (name, (_, dtype)) in call.kernel.outputs().iter().zip(&call.outputs) {
                whole += &format!(" out:{name}:{dtype:?}");
            }
            whole += &format!("\n// body of {}\n{}", text.name, text.source);
            self.0.borrow_mut().insert(format!("{}.{ending}", text.name), whole);
        }
        let lens = call.outputs.iter().map(|(shape, _)| shape.iter().product());
        Ok(Results { outputs: lens.map(|len| vec![f32::NAN; len]).collect(), written: vec![] })
    }
}

/// Name, case, how many, how many shapes.
const CASES: &[(&str, Case, u64, u64)] = &[
    ("decode", attention::decode, 500, 30),
    ("decode over long contexts", attention::decode_long, 60, 12),
    ("extend", attention::extend, 500, 30),
    ("extend over long prefixes", attention::extend_long, 60, 12),
    ("convolution over time", recurrent::conv, 100, 12),
    ("linear attention", recurrent::scan, 200, 20),
    ("K/V write", write::plain, 100, 8),
    ("rope and K/V write", write::rope, 100, 12),
    ("decode, packed K/V", attention::decode_packed, 200, 20),
    ("extend, packed K/V", attention::extend_packed, 200, 20),
    ("K/V write, packed", write::packed, 100, 10),
    ("rope and K/V write, packed", write::rope_packed, 100, 12),
    ("norm of a sum", rows::norm, 60, 10),
    ("product with quantized weights", product_cases::qmv, 60, 16),
    ("product on the matrix unit", product_cases::qmm, 200, 24),
    ("product by experts", product_cases::gather_qmm, 100, 12),
    ("bias", rows::bias, 60, 10),
    ("gated sum", rows::gated_sum, 60, 10),
    ("gated activation", rows::silu, 60, 10),
    ("norm of rows", rows::plain_norm, 60, 10),
    ("experts of tokens", moe::topk, 60, 10),
    ("sum of experts", moe::sum, 60, 10),
    ("packed embedding", rows::embed, 60, 10),
];

fn check(gpu: &Gpu, &(name, case, count, shapes): &(&str, Case, u64, u64)) {
    let start = Instant::now();
    let (mut worst, mut failed) = (0.0_f64, 0);
    for seed in 0..count {
        let shape = seed % shapes;
        match case(gpu, shape, seed) {
            Ok(error) => worst = worst.max(error),
            Err(error) => {
                failed += 1;
                if failed <= 3 {
                    println!("  {name}, case {seed} of shape {shape}: {error}");
                }
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}: {failed} of {count} failed, worst error {worst:.1e}, {seconds:.0} s");
}

fn write_texts(folder: &Path) -> Result<(), Box<dyn Error>> {
    let texts = Texts(RefCell::default());
    for (_, case, _, shapes) in CASES {
        for shape in 0..*shapes {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                case(&texts, shape, shape)
            }));
            drop(result);
        }
    }
    std::fs::create_dir_all(folder)?;
    for (name, text) in texts.0.borrow().iter() {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, folder] = &arguments[..]
        && flag == "--texts"
    {
        return write_texts(Path::new(folder));
    }
    let wanted = |name: &str| arguments.iter().all(|part| name.contains(part.as_str()));
    let gpu = Gpu(Kernels::here().ok_or("no GPU here")?);
    println!("{:?}", gpu.0.dialect());
    if wanted("probe") {
        println!("probe: {:?}", kernels::probe(&gpu.0));
    }
    for case in CASES.iter().filter(|(name, ..)| wanted(name)) {
        check(&gpu, case);
    }
    for (name, section) in timing::SECTIONS.iter().filter(|(name, _)| wanted(name)) {
        println!("{name}");
        if let Err(error) = section(&gpu.0) {
            println!("  failed: {error}");
        }
    }
    Ok(())
}
