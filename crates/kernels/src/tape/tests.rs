//! Recording, and what a tape makes of it. Replay needs a GPU.

use super::*;
use crate::{Kernel, add_rms_norm, silu_and_mul};

fn array(shape: &[usize]) -> Array {
    let array = Array::zeros(shape, Dtype::Float32).unwrap();
    array.eval().unwrap();
    array
}

struct Toy {
    weight: Array,
    /// Stands for a constant that is not one.
    drifts: bool,
}

impl Toy {
    /// Two norms and an activation over `x`, recorded.
    fn record(&self, foreign: bool) -> Result<Tape, TapeError> {
        mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
        let (x, delta) = (array(&[2, 64]), array(&[2, 64]));
        let input = |array| TapeInput { array, orders_only: false };
        let mut recorder = Recorder::new(&[input(&x), input(&delta)]);
        let norm = add_rms_norm::call(2, 64, Dtype::Float32, 1e-5).unwrap();
        let weight = if self.drifts { array(&[64]) } else { self.weight.clone() };
        let normed = recorder.record(&norm, &[&x, &delta, &weight]).unwrap().remove(1);
        let from = if foreign { normed.add(&normed).unwrap() } else { normed };
        let silu = silu_and_mul::call(2, 32, Dtype::Float32).unwrap();
        let out = recorder.record(&silu, &[&from]).unwrap().remove(0);
        recorder.finish(&[&out])
    }
}

#[test]
fn equal_steps_give_equal_tapes() {
    let toy = Toy { weight: array(&[64]), drifts: false };
    let tape = toy.record(false).unwrap();
    assert_eq!(tape.len(), 2);
    assert_eq!(tape, toy.record(false).unwrap());
    let drifting = Toy { drifts: true, ..toy };
    assert_ne!(drifting.record(false).unwrap(), drifting.record(false).unwrap());
}

#[test]
fn an_operation_of_mlx_is_named() {
    let toy = Toy { weight: array(&[64]), drifts: false };
    assert_eq!(
        toy.record(true).unwrap_err(),
        TapeError::Foreign { kernel: "silu_and_mul", input: "gate_up" }
    );
}

#[test]
fn a_result_has_to_be_recorded() {
    let recorder = Recorder::new(&[]);
    assert_eq!(recorder.finish(&[&array(&[1])]).unwrap_err(), TapeError::ForeignResult);
}

#[test]
fn inputs_of_launches_lie_where_outputs_were_put() {
    let tape = Toy { weight: array(&[64]), drifts: false }.record(false).unwrap();
    let plan = tape.plan();
    let arena = |launch: &Launch| -> Vec<Option<usize>> {
        let at = |arg: &LaunchArg| match arg {
            LaunchArg::Arena(offset) => Some(*offset),
            _ => None,
        };
        launch.args.iter().map(at).collect()
    };
    let norm = arena(&tape.launch(&tape.launches[0], &plan).unwrap());
    let silu = arena(&tape.launch(&tape.launches[1], &plan).unwrap());
    assert_eq!(norm, [Some(0), Some(512), None, Some(1024), Some(1536)]);
    // The sum has no reader, so the activation may take its place.
    assert_eq!(silu, [Some(1536), Some(1024)]);
}

static SHAPED: Kernel = Kernel {
    name: "shaped",
    body: "//@ type T\n//@ input T x\n//@ input int table\n//@ output T y\ny[0] = x[table_shape[1]];\n",
};

#[test]
fn a_unit_declares_what_the_body_uses() {
    let call = Call {
        kernel: &SHAPED,
        types: vec![("T", Dtype::Bfloat16.into())],
        constants: vec![],
        groups: [1, 1, 1],
        threads: 64,
        outputs: vec![(vec![1], Dtype::Bfloat16)],
    };
    let unit = unit::cuda(&call, &[(&[4], Dtype::Bfloat16), (&[2, 9], Dtype::Int32)]).unwrap();
    assert_eq!(unit.takes_shape, [false, true]);
    let signature = format!(
        "__launch_bounds__(64) {}(const __nv_bfloat16* x, const int* table, \
         const Shape_ table_shape, __nv_bfloat16* y)",
        unit.name
    );
    assert!(unit.source.contains(&signature), "{}", unit.source);
    assert_eq!(unit::shape_bytes(&[2, 9])[..8], [2, 0, 0, 0, 9, 0, 0, 0]);
}
