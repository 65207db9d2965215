// Packed matrices.
#include "shim.h"

extern "C" {

int32_t mlxs_quantize(
    mlxs_vec** out,
    const mlxs_array* w,
    int32_t group_size,
    int32_t bits,
    const char* mode,
    size_t mode_len) {
  return shim::give_vec(out, [&] {
    return mx::quantize(*w, group_size, bits, shim::text(mode, mode_len));
  });
}

// A negative `dtype` leaves the choice to MLX.
int32_t mlxs_dequantize(
    mlxs_array** out,
    const mlxs_array* w,
    const mlxs_array* scales,
    const mlxs_array* biases,
    int32_t group_size,
    int32_t bits,
    const char* mode,
    size_t mode_len,
    int32_t dtype) {
  return shim::give(out, [&] {
    auto maybe_dtype =
        dtype < 0 ? std::nullopt : std::optional<mx::Dtype>(shim::dtype(dtype));
    return mx::dequantize(
        *w,
        *scales,
        shim::maybe(biases),
        group_size,
        bits,
        shim::text(mode, mode_len),
        std::nullopt,
        maybe_dtype);
  });
}

int32_t mlxs_quantized_matmul(
    mlxs_array** out,
    const mlxs_array* x,
    const mlxs_array* w,
    const mlxs_array* scales,
    const mlxs_array* biases,
    bool transpose,
    int32_t group_size,
    int32_t bits,
    const char* mode,
    size_t mode_len) {
  return shim::give(out, [&] {
    return mx::quantized_matmul(
        *x,
        *w,
        *scales,
        shim::maybe(biases),
        transpose,
        group_size,
        bits,
        shim::text(mode, mode_len));
  });
}

int32_t mlxs_gather_mm(
    mlxs_array** out,
    const mlxs_array* a,
    const mlxs_array* b,
    const mlxs_array* lhs_indices,
    const mlxs_array* rhs_indices,
    bool sorted_indices) {
  return shim::give(out, [&] {
    return mx::gather_mm(
        *a, *b, shim::maybe(lhs_indices), shim::maybe(rhs_indices), sorted_indices);
  });
}

int32_t mlxs_gather_qmm(
    mlxs_array** out,
    const mlxs_array* x,
    const mlxs_array* w,
    const mlxs_array* scales,
    const mlxs_array* biases,
    const mlxs_array* lhs_indices,
    const mlxs_array* rhs_indices,
    bool transpose,
    int32_t group_size,
    int32_t bits,
    const char* mode,
    size_t mode_len,
    bool sorted_indices) {
  return shim::give(out, [&] {
    return mx::gather_qmm(
        *x,
        *w,
        *scales,
        shim::maybe(biases),
        shim::maybe(lhs_indices),
        shim::maybe(rhs_indices),
        transpose,
        group_size,
        bits,
        shim::text(mode, mode_len),
        std::nullopt,
        sorted_indices);
  });
}

} // extern "C"
