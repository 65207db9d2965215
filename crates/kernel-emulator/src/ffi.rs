//! The C ABI of `cpp/registry.h`.

use std::ffi::{CStr, c_char};

use crate::Tensor;

#[repr(C)]
pub(crate) struct Buffer {
    name: *const c_char,
    data: *mut u8,
    count: i64,
    code: i32,
    shape: [i32; 8],
}

#[repr(C)]
pub(crate) struct Type {
    pub(crate) name: *const c_char,
    pub(crate) code: i32,
}

#[repr(C)]
pub(crate) struct Constant {
    name: *const c_char,
    is_float: i32,
    integer: i32,
    real: f32,
}

#[repr(C)]
pub(crate) struct Launch {
    pub(crate) kernel: *const c_char,
    pub(crate) buffers: *const Buffer,
    pub(crate) num_buffers: i64,
    pub(crate) types: *const Type,
    pub(crate) num_types: i64,
    pub(crate) constants: *const Constant,
    pub(crate) num_constants: i64,
    pub(crate) groups: [i32; 3],
    pub(crate) threads: i32,
    pub(crate) metal_tiles: i32,
}

unsafe extern "C" {
    pub(crate) fn emulator_run(launch: *const Launch, error: *mut c_char, error_size: i64) -> i32;
}

impl Buffer {
    pub(crate) fn new(name: &CStr, tensor: &mut Tensor) -> Self {
        let mut shape = [0; 8];
        for (to, from) in shape.iter_mut().zip(tensor.shape()) {
            *to = i32::try_from(*from).expect("a size of 31 bits");
        }
        Self {
            name: name.as_ptr(),
            count: tensor.len() as i64,
            code: tensor.element().code(),
            data: tensor.bytes_mut().as_mut_ptr(),
            shape,
        }
    }
}

impl Constant {
    pub(crate) fn new(name: &CStr, value: crate::Constant) -> Self {
        let (is_float, integer, real) = match value {
            crate::Constant::Int(integer) => (0, integer, 0.0),
            crate::Constant::Float(real) => (1, 0, real),
        };
        Self { name: name.as_ptr(), is_float, integer, real }
    }
}
