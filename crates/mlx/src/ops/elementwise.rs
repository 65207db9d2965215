//! Operations on elements, and the matrix product.

use mlx_sys::{Binary, Unary};

use crate::{array::Array, dtype::Dtype, error::Result};

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {
        impl Array {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// What MLX says.
            pub fn $name(&self) -> Result<Self> {
                self.unary(stringify!($name), Unary::$op)
            }
        )*}
    };
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {
        impl Array {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// If the shapes do not broadcast.
            pub fn $name(&self, other: &Self) -> Result<Self> {
                self.binary(stringify!($name), Binary::$op, other)
            }
        )*}
    };
}

unary! {
    /// -x
    negative = Negative;
    /// |x|
    abs = Abs;
    /// eˣ
    exp = Exp;
    /// ln x
    log = Log;
    /// ln(1 + x)
    log1p = Log1p;
    /// √x
    sqrt = Sqrt;
    /// 1 / √x
    rsqrt = Rsqrt;
    /// x²
    square = Square;
    /// 1 / x
    reciprocal = Reciprocal;
    /// 1 / (1 + e⁻ˣ)
    sigmoid = Sigmoid;
    /// tanh x
    tanh = Tanh;
    /// The error function.
    erf = Erf;
    /// sin x
    sin = Sin;
    /// cos x
    cos = Cos;
    /// The largest integer not above x.
    floor = Floor;
    /// The nearest integer; halves to the even one.
    round = Round;
    /// -1, 0 or 1.
    sign = Sign;
    /// True where x is zero.
    logical_not = LogicalNot;
    /// True where x is not a number.
    isnan = Isnan;
    /// True where x is neither infinite nor NaN.
    isfinite = Isfinite;
    /// x, as a constant of differentiation.
    stop_gradient = StopGradient;
    /// x in a buffer of its own.
    copy = Copy;
    /// x in row-major order.
    contiguous = Contiguous;
}

binary! {
    /// a + b
    add = Add;
    /// a - b
    subtract = Subtract;
    /// a · b
    multiply = Multiply;
    /// a / b
    divide = Divide;
    /// ⌊a / b⌋
    floor_divide = FloorDivide;
    /// a mod b, with the sign of b.
    remainder = Remainder;
    /// aᵇ
    power = Power;
    /// The larger.
    maximum = Maximum;
    /// The smaller.
    minimum = Minimum;
    /// ln(eᵃ + eᵇ)
    logaddexp = Logaddexp;
    /// a = b
    equal = Equal;
    /// a ≠ b
    not_equal = NotEqual;
    /// a < b
    less = Less;
    /// a ≤ b
    less_equal = LessEqual;
    /// a > b
    greater = Greater;
    /// a ≥ b
    greater_equal = GreaterEqual;
    /// a and b
    logical_and = LogicalAnd;
    /// a or b
    logical_or = LogicalOr;
    /// a & b
    bitwise_and = BitwiseAnd;
    /// a | b
    bitwise_or = BitwiseOr;
    /// a ^ b
    bitwise_xor = BitwiseXor;
    /// a << b
    left_shift = LeftShift;
    /// a >> b
    right_shift = RightShift;
    /// The matrix product over the last two dimensions.
    matmul = Matmul;
}

impl Array {
    fn unary(&self, name: &'static str, op: Unary) -> Result<Self> {
        // SAFETY: a live array.
        Self::build(name, |out| unsafe { mlx_sys::smlx_unary(op as i32, self.as_ptr(), out) })
    }

    fn binary(&self, name: &'static str, op: Binary, other: &Self) -> Result<Self> {
        // SAFETY: live arrays.
        Self::build(name, |out| unsafe {
            mlx_sys::smlx_binary(op as i32, self.as_ptr(), other.as_ptr(), out)
        })
    }

    /// x + value, in x's type.
    ///
    /// # Errors
    /// What MLX says.
    pub fn add_scalar(&self, value: f32) -> Result<Self> {
        self.add(&Self::scalar(value)?.astype(self.dtype())?)
    }

    /// x · value, in x's type.
    ///
    /// # Errors
    /// What MLX says.
    pub fn mul_scalar(&self, value: f32) -> Result<Self> {
        self.multiply(&Self::scalar(value)?.astype(self.dtype())?)
    }

    /// `a` where this is true, `b` elsewhere.
    ///
    /// # Errors
    /// If the shapes do not broadcast.
    pub fn where_(&self, a: &Self, b: &Self) -> Result<Self> {
        // SAFETY: live arrays.
        Self::build("where", |out| unsafe {
            mlx_sys::smlx_where(self.as_ptr(), a.as_ptr(), b.as_ptr(), out)
        })
    }

    /// self + a · b (matrix product).
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn addmm(&self, a: &Self, b: &Self) -> Result<Self> {
        // SAFETY: live arrays.
        Self::build("addmm", |out| unsafe {
            mlx_sys::smlx_addmm(self.as_ptr(), a.as_ptr(), b.as_ptr(), out)
        })
    }

    /// The values in another type.
    ///
    /// # Errors
    /// What MLX says.
    pub fn astype(&self, dtype: Dtype) -> Result<Self> {
        // SAFETY: a live array.
        Self::build("astype", |out| unsafe {
            mlx_sys::smlx_astype(self.as_ptr(), dtype.code(), out)
        })
    }

    /// The bytes as another type; the last dimension changes with its size.
    ///
    /// # Errors
    /// If the last dimension does not divide.
    pub fn view(&self, dtype: Dtype) -> Result<Self> {
        // SAFETY: a live array.
        Self::build("view", |out| unsafe { mlx_sys::smlx_view(self.as_ptr(), dtype.code(), out) })
    }
}
