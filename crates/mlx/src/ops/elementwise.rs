//! Element by element, and matrix products.
//!
//! Two arrays of different dtypes are promoted: bf16 with an f32 scalar gives
//! f32. `add_scalar` and `mul_scalar` keep the dtype.

use mlx_sys::{mlxs_addmm, mlxs_astype, mlxs_view, mlxs_where};

use super::{binary, unary};
use crate::{Array, Dtype, Result, handle::give};

unary! {
    /// `-x`.
    negative => mlxs_negative;
    /// `|x|`.
    abs => mlxs_abs;
    /// `e^x`.
    exp => mlxs_exp;
    /// `e^x - 1`, exact near 0.
    expm1 => mlxs_expm1;
    /// The natural logarithm.
    log => mlxs_log;
    /// `log(1 + x)`, exact near 0.
    log1p => mlxs_log1p;
    /// The square root.
    sqrt => mlxs_sqrt;
    /// `1 / sqrt(x)`.
    rsqrt => mlxs_rsqrt;
    /// `x * x`.
    square => mlxs_square;
    /// `1 / x`.
    reciprocal => mlxs_reciprocal;
    /// `1 / (1 + e^-x)`.
    sigmoid => mlxs_sigmoid;
    /// The hyperbolic tangent.
    tanh => mlxs_tanh;
    /// The error function.
    erf => mlxs_erf;
    /// The sine.
    sin => mlxs_sin;
    /// The cosine.
    cos => mlxs_cos;
    /// The largest whole number not above x.
    floor => mlxs_floor;
    /// The smallest whole number not below x.
    ceil => mlxs_ceil;
    /// The nearest whole number, halves to even.
    round => mlxs_round;
    /// -1, 0 or 1.
    sign => mlxs_sign;
    /// True where x is not a number.
    isnan => mlxs_isnan;
    /// True where x is infinite.
    isinf => mlxs_isinf;
    /// True where x is a finite number.
    isfinite => mlxs_isfinite;
    /// True where x is zero.
    logical_not => mlxs_logical_not;
    /// All bits flipped.
    bitwise_invert => mlxs_bitwise_invert;
    /// The same values; no gradient passes.
    stop_gradient => mlxs_stop_gradient;
    /// The same values as a node of its own.
    copy => mlxs_copy;
    /// The same values in row-major order; the same buffer if they are already.
    contiguous => mlxs_contiguous;
}

binary! {
    /// `self + other`.
    add => mlxs_add;
    /// `self - other`.
    subtract => mlxs_subtract;
    /// `self * other`.
    multiply => mlxs_multiply;
    /// `self / other`, in floats.
    divide => mlxs_divide;
    /// `floor(self / other)`, in the operands' type.
    floor_divide => mlxs_floor_divide;
    /// The remainder with the sign of `other`.
    remainder => mlxs_remainder;
    /// `self` to the power of `other`.
    power => mlxs_power;
    /// The larger; not a number if either is not.
    maximum => mlxs_maximum;
    /// The smaller; not a number if either is not.
    minimum => mlxs_minimum;
    /// `log(e^self + e^other)`.
    logaddexp => mlxs_logaddexp;
    /// `self == other`, bool.
    equal => mlxs_equal;
    /// `self != other`, bool.
    not_equal => mlxs_not_equal;
    /// `self < other`, bool.
    less => mlxs_less;
    /// `self <= other`, bool.
    less_equal => mlxs_less_equal;
    /// `self > other`, bool.
    greater => mlxs_greater;
    /// `self >= other`, bool.
    greater_equal => mlxs_greater_equal;
    /// Both are non-zero, bool.
    logical_and => mlxs_logical_and;
    /// Either is non-zero, bool.
    logical_or => mlxs_logical_or;
    /// Bits set in both.
    bitwise_and => mlxs_bitwise_and;
    /// Bits set in either.
    bitwise_or => mlxs_bitwise_or;
    /// Bits set in exactly one.
    bitwise_xor => mlxs_bitwise_xor;
    /// `self << other`.
    left_shift => mlxs_left_shift;
    /// `self >> other`.
    right_shift => mlxs_right_shift;
    /// The matrix product of the last two axes; other axes broadcast.
    matmul => mlxs_matmul;
}

impl Array {
    /// `a` where `self` is true, else `b`; all three broadcast.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn where_(&self, a: &Self, b: &Self) -> Result<Self> {
        // SAFETY: all arrays are alive and `out` is writable.
        give("where_", |out| unsafe { mlxs_where(out, self.as_raw(), a.as_raw(), b.as_raw()) })
    }

    /// `beta * self + alpha * (a @ b)`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn addmm(&self, a: &Self, b: &Self, alpha: f32, beta: f32) -> Result<Self> {
        // SAFETY: all arrays are alive and `out` is writable.
        give("addmm", |out| unsafe {
            mlxs_addmm(out, self.as_raw(), a.as_raw(), b.as_raw(), alpha, beta)
        })
    }

    /// The values converted to `dtype`; the same node if they have it already.
    ///
    /// # Errors
    /// The device has no such dtype.
    pub fn astype(&self, dtype: Dtype) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("astype", |out| unsafe { mlxs_astype(out, self.as_raw(), dtype.code()) })
    }

    /// The same bytes read as `dtype`; the last axis grows or shrinks.
    ///
    /// # Errors
    /// The last axis is no whole number of such elements.
    pub fn view(&self, dtype: Dtype) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("view", |out| unsafe { mlxs_view(out, self.as_raw(), dtype.code()) })
    }

    /// `self + value` in the dtype of `self`, to which `value` is rounded.
    ///
    /// # Errors
    /// As for [`Array::add`].
    pub fn add_scalar(&self, value: f32) -> Result<Self> {
        self.add(&Self::scalar(value)?.astype(self.dtype())?)
    }

    /// `self * value` in the dtype of `self`, to which `value` is rounded.
    ///
    /// # Errors
    /// As for [`Array::multiply`].
    pub fn mul_scalar(&self, value: f32) -> Result<Self> {
        self.multiply(&Self::scalar(value)?.astype(self.dtype())?)
    }
}
