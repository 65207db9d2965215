// The fused operations, quantization and random numbers.
#include "common.h"

#include <stdexcept>

using namespace smlx;

namespace {
std::optional<float> optional_float(bool has, float value) {
  return has ? std::optional<float>(value) : std::nullopt;
}
} // namespace

extern "C" {

int smlx_rms_norm(
    const smlx_array* x, const smlx_array* weight, float eps, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::fast::rms_norm(*x, optional(weight), eps); });
}

int smlx_layer_norm(
    const smlx_array* x, const smlx_array* weight, const smlx_array* bias, float eps,
    smlx_array** out) noexcept {
  return guard_array(
      out, [&] { return mx::fast::layer_norm(*x, optional(weight), optional(bias), eps); });
}

// `offsets` (int32, [batch]) wins over `offset` where it is not null.
int smlx_rope(
    const smlx_array* x, int32_t dims, bool traditional, bool has_base, float base, float scale,
    int32_t offset, const smlx_array* offsets, const smlx_array* freqs,
    smlx_array** out) noexcept {
  return guard_array(out, [&] {
    auto base_ = optional_float(has_base, base);
    return offsets
        ? mx::fast::rope(*x, dims, traditional, base_, scale, *offsets, optional(freqs))
        : mx::fast::rope(*x, dims, traditional, base_, scale, int(offset), optional(freqs));
  });
}

// `causal` and `mask` exclude each other.
int smlx_sdpa(
    const smlx_array* q, const smlx_array* k, const smlx_array* v, float scale, bool causal,
    const smlx_array* mask, const smlx_array* sinks, smlx_array** out) noexcept {
  return guard_array(out, [&] {
    const char* mode = causal ? "causal" : (mask ? "array" : "");
    return mx::fast::scaled_dot_product_attention(
        *q, *k, *v, scale, mode, optional(mask), optional(sinks));
  });
}

// out[0..3] = weight, scales, biases; biases null where the mode has none.
int smlx_quantize(
    const smlx_array* w, int32_t group_size, int32_t bits, const char* mode,
    smlx_array** out) noexcept {
  return guard([&] {
    auto parts = mx::quantize(*w, group_size, bits, mode);
    if (parts.size() < 2 || parts.size() > 3) {
      throw std::runtime_error("quantize returned an unexpected number of arrays");
    }
    out[2] = nullptr;
    for (size_t i = 0; i < parts.size(); ++i) {
      out[i] = new mx::array(parts[i]);
    }
  });
}

int smlx_dequantize(
    const smlx_array* w, const smlx_array* scales, const smlx_array* biases, int32_t group_size,
    int32_t bits, const char* mode, int32_t type, smlx_array** out) noexcept {
  return guard_array(out, [&] {
    return mx::dequantize(
        *w, *scales, optional(biases), group_size, bits, mode, std::nullopt, dtype(type));
  });
}

int smlx_quantized_matmul(
    const smlx_array* x, const smlx_array* w, const smlx_array* scales, const smlx_array* biases,
    bool transpose, int32_t group_size, int32_t bits, const char* mode,
    smlx_array** out) noexcept {
  return guard_array(out, [&] {
    return mx::quantized_matmul(
        *x, *w, *scales, optional(biases), transpose, group_size, bits, mode);
  });
}

int smlx_gather_qmm(
    const smlx_array* x, const smlx_array* w, const smlx_array* scales, const smlx_array* biases,
    const smlx_array* lhs, const smlx_array* rhs, bool transpose, int32_t group_size,
    int32_t bits, const char* mode, bool sorted, smlx_array** out) noexcept {
  return guard_array(out, [&] {
    return mx::gather_qmm(
        *x, *w, *scales, optional(biases), optional(lhs), optional(rhs), transpose, group_size,
        bits, mode, std::nullopt, sorted);
  });
}

int smlx_random_key(uint64_t seed, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::random::key(seed); });
}

int smlx_random_split(const smlx_array* key, int32_t count, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::random::split(*key, count); });
}

int smlx_random_uniform(
    const smlx_array* low, const smlx_array* high, const int32_t* dims, size_t ndim,
    int32_t type, const smlx_array* key, smlx_array** out) noexcept {
  return guard_array(out, [&] {
    return mx::random::uniform(*low, *high, shape(dims, ndim), dtype(type), optional(key));
  });
}

int smlx_random_normal(
    const int32_t* dims, size_t ndim, int32_t type, float loc, float scale,
    const smlx_array* key, smlx_array** out) noexcept {
  return guard_array(out, [&] {
    return mx::random::normal(shape(dims, ndim), dtype(type), loc, scale, optional(key));
  });
}

int smlx_random_gumbel(
    const int32_t* dims, size_t ndim, int32_t type, const smlx_array* key,
    smlx_array** out) noexcept {
  return guard_array(
      out, [&] { return mx::random::gumbel(shape(dims, ndim), dtype(type), optional(key)); });
}

int smlx_random_categorical(
    const smlx_array* logits, int32_t axis, const smlx_array* key, smlx_array** out) noexcept {
  return guard_array(
      out, [&] { return mx::random::categorical(*logits, axis, optional(key)); });
}

int smlx_random_bits(
    const int32_t* dims, size_t ndim, int32_t width, const smlx_array* key,
    smlx_array** out) noexcept {
  return guard_array(
      out, [&] { return mx::random::bits(shape(dims, ndim), width, optional(key)); });
}

} // extern "C"
