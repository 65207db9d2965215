//! Kernels of our own on the CPU device.
#![expect(unsafe_code, reason = "the contract of kernels in place is kept here")]

use std::sync::Arc;

use mlx::{
    Array, Dtype,
    cpu_kernel::{CpuKernel, Operands, cpu_kernel, cpu_kernel_in_place},
    device::{self, DeviceKind},
};

/// `inputs[0] * factor`, and the shape that arrived.
struct Scale(f32);

impl CpuKernel for Scale {
    fn run(&self, mut operands: Operands<'_>) {
        let input = operands.inputs[0].as_slice::<f32>();
        let shape = operands.inputs[0].shape().to_vec();
        for (out, x) in operands.outputs[0].as_mut_slice::<f32>().iter_mut().zip(input) {
            *out = x * self.0;
        }
        operands.outputs[1].as_mut_slice::<i32>().copy_from_slice(&shape);
    }
}

/// Adds 1 to element 0 of what is in place, and says what it became.
struct Count;

impl CpuKernel for Count {
    fn run(&self, mut operands: Operands<'_>) {
        let counter = &mut operands.in_place[0].as_mut_slice::<i32>()[0];
        *counter += 1;
        operands.outputs[0].as_mut_slice::<i32>()[0] = *counter;
    }
}

struct Panics;

impl CpuKernel for Panics {
    fn run(&self, _: Operands<'_>) {
        panic!("of {}%s%n", 7);
    }
}

#[test]
fn outputs_have_values_shapes_and_types() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let x = Array::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
    let call = |x: &Array| {
        let outputs: &[(&[usize], Dtype)] = &[(&[3, 2], Dtype::Float32), (&[2], Dtype::Int32)];
        cpu_kernel(Arc::new(Scale(10.0)), &[x], outputs).unwrap()
    };
    let out = call(&x.add(&x).unwrap());
    assert_eq!(out[0].shape(), [3, 2]);
    assert_eq!(out[0].to_vec::<f32>().unwrap(), [20.0, 40.0, 60.0, 80.0, 100.0, 120.0]);
    assert_eq!(out[1].to_vec::<i32>().unwrap(), [2, 3]);
    // Elements that lie apart, or are one, arrive in order.
    let out = call(&x.transpose(&[1, 0]).unwrap());
    assert_eq!(out[0].to_vec::<f32>().unwrap(), [10.0, 40.0, 20.0, 50.0, 30.0, 60.0]);
    assert_eq!(out[1].to_vec::<i32>().unwrap(), [3, 2]);
    let column = Array::from_slice(&[1.0_f32, 2.0], &[2, 1]).unwrap();
    let wide = column.broadcast_to(&[2, 3]).unwrap();
    assert_eq!(call(&wide)[0].to_vec::<f32>().unwrap(), [10.0, 10.0, 10.0, 20.0, 20.0, 20.0]);
    // And results go on into MLX's own operations.
    assert_eq!(call(&x)[0].sum(&[0, 1], false).unwrap().item::<f32>().unwrap(), 210.0);
}

#[test]
fn in_place_is_seen_by_the_next() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let counter = Array::from_slice(&[41_i32, 7], &[2]).unwrap();
    let count = || {
        let outputs: &[(&[usize], Dtype)] = &[(&[1], Dtype::Int32)];
        // SAFETY: `counter` is evaluated and read only after all has run.
        unsafe { cpu_kernel_in_place(Arc::new(Count), &[], &[&counter], outputs) }
            .unwrap()
            .remove(0)
    };
    assert_eq!(count().item::<i32>().unwrap(), 42);
    assert_eq!(count().item::<i32>().unwrap(), 43);
    assert_eq!(counter.to_vec::<i32>().unwrap(), [43, 7]);
}

#[test]
fn a_panic_is_an_error_of_the_evaluation() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let outputs: &[(&[usize], Dtype)] = &[(&[1], Dtype::Int32)];
    let out = cpu_kernel(Arc::new(Panics), &[], outputs).unwrap().remove(0);
    let error = out.item::<i32>().unwrap_err().to_string();
    assert!(error.contains("a CPU kernel panicked: of 7%s%n"), "{error}");
    // The stream is still good.
    assert_eq!(
        Array::scalar(2_i32)
            .unwrap()
            .add(&Array::scalar(3_i32).unwrap())
            .unwrap()
            .item::<i32>()
            .unwrap(),
        5
    );
}
