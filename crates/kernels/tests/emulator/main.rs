//! The bodies of the GPU kernels, run by the emulator, against plain references.

#[path = "../cases/mod.rs"]
mod cases;
mod planted;

use cases::{Case, Data, Device, Results, Value, attention, moe, products, recurrent, rows, write};
use kernel_emulator::{ElementType, Launch, Tensor, TileLayout};
use kernels::{Call, Constant, KvDtype, kv_write};
use mlx::Dtype;

struct Emulator(TileLayout);

fn element(dtype: KvDtype) -> ElementType {
    match dtype {
        KvDtype::Plain(Dtype::Float32) => ElementType::F32,
        KvDtype::Plain(Dtype::Float16) => ElementType::F16,
        KvDtype::Plain(Dtype::Bfloat16) => ElementType::Bf16,
        KvDtype::Plain(Dtype::Int32) => ElementType::I32,
        KvDtype::Plain(Dtype::Uint32) => ElementType::U32,
        KvDtype::Plain(other) => panic!("the emulator has no {other:?}"),
        KvDtype::Fp8E4m3 => ElementType::Fp8Row,
        KvDtype::Int8 => ElementType::Int8Row,
        KvDtype::Int4 => ElementType::Int4Row,
    }
}

fn tensor(value: &Value) -> Tensor {
    match &value.data {
        Data::Floats(floats) => Tensor::floats(element(value.dtype.into()), &value.shape, floats),
        Data::Ints(ints) => Tensor::ints(&value.shape, ints),
        Data::Uints(uints) => Tensor::uints(&value.shape, uints),
        Data::Rows(dtype, bytes) => Tensor::packed(element(*dtype), &value.shape, bytes),
    }
}

impl Device for Emulator {
    fn run(&self, call: &Call, inputs: &[&Value]) -> Result<Results, String> {
        let types: Vec<_> =
            call.types.iter().map(|(name, dtype)| (*name, element(*dtype))).collect();
        let constants: Vec<_> = call
            .constants
            .iter()
            .map(|(name, value)| match value {
                Constant::Int(value) => (*name, kernel_emulator::Constant::Int(*value)),
                Constant::Float(value) => (*name, kernel_emulator::Constant::Float(*value)),
            })
            .collect();
        let names = call.kernel.inputs();
        assert_eq!(names.len(), inputs.len());
        let mut inputs: Vec<Tensor> = inputs.iter().map(|value| tensor(value)).collect();
        let mut outputs: Vec<Tensor> = call
            .outputs
            .iter()
            .map(|(shape, dtype)| Tensor::unwritten(element((*dtype).into()), shape))
            .collect();
        let mut buffers: Vec<(&str, &mut Tensor)> = names
            .iter()
            .copied()
            .zip(&mut inputs)
            .chain(call.kernel.outputs().into_iter().zip(&mut outputs))
            .collect();
        let launch = Launch {
            kernel: call.kernel.name,
            types: &types,
            constants: &constants,
            groups: call.groups,
            threads: call.threads,
            tiles: self.0,
        };
        kernel_emulator::run(&launch, &mut buffers).map_err(|error| error.to_string())?;
        let written = call.kernel.written();
        Ok(Results {
            outputs: outputs.iter().map(Tensor::to_f32).collect(),
            written: names
                .iter()
                .zip(&inputs)
                .filter(|(name, _)| written.contains(name))
                .map(|(_, tensor)| tensor.to_f32())
                .collect(),
        })
    }
}

fn check(case: Case, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        // Shapes repeat after a few seeds: each meets both layouts.
        let layout = if seed / 6 % 2 == 0 { TileLayout::Cuda } else { TileLayout::Metal };
        if let Err(error) = case(&Emulator(layout), seed, seed) {
            panic!("case {seed}, {layout:?}: {error}");
        }
    }
}

#[test]
fn convolution_over_time() {
    check(recurrent::conv, 0..300);
}

#[test]
fn linear_attention() {
    check(recurrent::scan, 0..300);
}

#[test]
fn norm_of_rows() {
    check(rows::plain_norm, 0..40);
}

#[test]
fn packed_embedding() {
    check(rows::embed, 0..60);
}

#[test]
fn experts_of_tokens() {
    check(moe::topk, 0..80);
}

#[test]
fn sum_of_experts() {
    check(moe::sum, 0..60);
}

#[test]
fn decode() {
    check(attention::decode, 0..500);
}

#[test]
fn decode_over_long_contexts() {
    check(attention::decode_long, 500..520);
}

#[test]
fn extend() {
    check(attention::extend, 0..500);
}

#[test]
fn extend_over_long_prefixes() {
    check(attention::extend_long, 500..520);
}

#[test]
fn writes_of_k_and_v() {
    check(write::plain, 0..300);
}

#[test]
fn rotary_embedding_with_writes() {
    check(write::rope, 0..300);
}

#[test]
fn decode_over_packed_pools() {
    check(attention::decode_packed, 0..200);
}

#[test]
fn extend_over_packed_pools() {
    check(attention::extend_packed, 0..200);
}

#[test]
fn writes_into_packed_pools() {
    check(write::packed, 0..150);
}

#[test]
fn rotary_embedding_with_packed_writes() {
    check(write::rope_packed, 0..150);
}

#[test]
fn norm_of_a_sum() {
    check(rows::norm, 0..200);
}

#[test]
fn product_with_quantized_weights() {
    check(products::qmv, 0..200);
}

#[test]
fn product_on_the_matrix_unit() {
    check(products::qmm, 0..200);
}

#[test]
fn product_by_experts() {
    check(products::gather_qmm, 0..100);
}

#[test]
fn rows_with_a_bias() {
    check(rows::bias, 0..60);
}

#[test]
fn rows_with_gated_others() {
    check(rows::gated_sum, 0..60);
}

#[test]
fn gated_activation() {
    check(rows::silu, 0..200);
}

#[test]
fn a_slot_that_occurs_twice_is_a_race() {
    let call = kv_write::call(2, [1, 64], Dtype::Float32, Dtype::Float32.into()).unwrap();
    let rows = cases::floats(Dtype::Float32, &[2, 1, 64], &[0.0; 128]);
    let slots = cases::ints(&[2], &[1, 1]);
    let inputs = [&rows, &rows, &rows, &rows, &slots, &cases::chain()];
    let caught = Emulator(TileLayout::Cuda).run(&call, &inputs).err().unwrap();
    assert!(caught.contains("race: write of k_pool[64]"), "{caught}");
}
