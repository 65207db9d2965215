// Operations of one or two arrays, element by element.
#include "shim.h"

#define UNARY(name)                                               \
  int32_t mlxs_##name(mlxs_array** out, const mlxs_array* a) {    \
    return shim::give(out, [&] { return mx::name(*a); });         \
  }

#define BINARY(name)                                              \
  int32_t mlxs_##name(                                            \
      mlxs_array** out, const mlxs_array* a, const mlxs_array* b) { \
    return shim::give(out, [&] { return mx::name(*a, *b); });     \
  }

extern "C" {

UNARY(negative)
UNARY(abs)
UNARY(exp)
UNARY(expm1)
UNARY(log)
UNARY(log1p)
UNARY(sqrt)
UNARY(rsqrt)
UNARY(square)
UNARY(reciprocal)
UNARY(sigmoid)
UNARY(tanh)
UNARY(erf)
UNARY(sin)
UNARY(cos)
UNARY(floor)
UNARY(ceil)
UNARY(round)
UNARY(sign)
UNARY(isnan)
UNARY(isinf)
UNARY(isfinite)
UNARY(logical_not)
UNARY(bitwise_invert)
UNARY(stop_gradient)
UNARY(copy)
UNARY(contiguous)

BINARY(add)
BINARY(subtract)
BINARY(multiply)
BINARY(divide)
BINARY(floor_divide)
BINARY(remainder)
BINARY(power)
BINARY(maximum)
BINARY(minimum)
BINARY(logaddexp)
BINARY(equal)
BINARY(not_equal)
BINARY(less)
BINARY(less_equal)
BINARY(greater)
BINARY(greater_equal)
BINARY(logical_and)
BINARY(logical_or)
BINARY(bitwise_and)
BINARY(bitwise_or)
BINARY(bitwise_xor)
BINARY(left_shift)
BINARY(right_shift)
BINARY(matmul)

int32_t mlxs_where(
    mlxs_array** out,
    const mlxs_array* condition,
    const mlxs_array* a,
    const mlxs_array* b) {
  return shim::give(out, [&] { return mx::where(*condition, *a, *b); });
}

int32_t mlxs_addmm(
    mlxs_array** out,
    const mlxs_array* c,
    const mlxs_array* a,
    const mlxs_array* b,
    float alpha,
    float beta) {
  return shim::give(out, [&] { return mx::addmm(*c, *a, *b, alpha, beta); });
}

int32_t mlxs_astype(mlxs_array** out, const mlxs_array* a, int32_t dtype) {
  return shim::give(out, [&] { return mx::astype(*a, shim::dtype(dtype)); });
}

int32_t mlxs_view(mlxs_array** out, const mlxs_array* a, int32_t dtype) {
  return shim::give(out, [&] { return mx::view(*a, shim::dtype(dtype)); });
}

} // extern "C"
