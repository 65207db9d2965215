// Fused layers, and random numbers from explicit keys.
#include "shim.h"

extern "C" {

int32_t mlxs_rms_norm(
    mlxs_array** out,
    const mlxs_array* x,
    const mlxs_array* weight,
    float eps) {
  return shim::give(
      out, [&] { return mx::fast::rms_norm(*x, shim::maybe(weight), eps); });
}

int32_t mlxs_layer_norm(
    mlxs_array** out,
    const mlxs_array* x,
    const mlxs_array* weight,
    const mlxs_array* bias,
    float eps) {
  return shim::give(out, [&] {
    return mx::fast::layer_norm(
        *x, shim::maybe(weight), shim::maybe(bias), eps);
  });
}

// `base` may be null; `offset_array` wins over `offset` unless it is null.
int32_t mlxs_rope(
    mlxs_array** out,
    const mlxs_array* x,
    int32_t dims,
    bool traditional,
    const float* base,
    float scale,
    int32_t offset,
    const mlxs_array* offset_array,
    const mlxs_array* freqs) {
  return shim::give(out, [&] {
    auto maybe_base = base ? std::optional<float>(*base) : std::nullopt;
    auto maybe_freqs = shim::maybe(freqs);
    if (offset_array) {
      return mx::fast::rope(
          *x, dims, traditional, maybe_base, scale, *offset_array, maybe_freqs);
    }
    return mx::fast::rope(
        *x, dims, traditional, maybe_base, scale, offset, maybe_freqs);
  });
}

int32_t mlxs_sdpa(
    mlxs_array** out,
    const mlxs_array* q,
    const mlxs_array* k,
    const mlxs_array* v,
    float scale,
    bool causal,
    const mlxs_array* mask,
    const mlxs_array* sinks) {
  return shim::give(out, [&] {
    return mx::fast::scaled_dot_product_attention(
        *q,
        *k,
        *v,
        scale,
        causal ? "causal" : "",
        shim::maybe(mask),
        shim::maybe(sinks));
  });
}

int32_t mlxs_random_key(mlxs_array** out, uint64_t seed) {
  return shim::give(out, [&] { return mx::random::key(seed); });
}

int32_t
mlxs_random_split(mlxs_array** out, const mlxs_array* key, int32_t count) {
  return shim::give(out, [&] { return mx::random::split(*key, count); });
}

int32_t mlxs_random_bits(
    mlxs_array** out,
    const int32_t* shape,
    size_t ndim,
    const mlxs_array* key) {
  return shim::give(out, [&] {
    return mx::random::bits(shim::shape(shape, ndim), 4, shim::maybe(key));
  });
}

int32_t mlxs_random_uniform(
    mlxs_array** out,
    float low,
    float high,
    const int32_t* shape,
    size_t ndim,
    int32_t dtype,
    const mlxs_array* key) {
  return shim::give(out, [&] {
    return mx::random::uniform(
        low, high, shim::shape(shape, ndim), shim::dtype(dtype), shim::maybe(key));
  });
}

int32_t mlxs_random_normal(
    mlxs_array** out,
    const int32_t* shape,
    size_t ndim,
    int32_t dtype,
    const mlxs_array* key) {
  return shim::give(out, [&] {
    return mx::random::normal(
        shim::shape(shape, ndim), shim::dtype(dtype), shim::maybe(key));
  });
}

int32_t mlxs_random_gumbel(
    mlxs_array** out,
    const int32_t* shape,
    size_t ndim,
    int32_t dtype,
    const mlxs_array* key) {
  return shim::give(out, [&] {
    return mx::random::gumbel(
        shim::shape(shape, ndim), shim::dtype(dtype), shim::maybe(key));
  });
}

int32_t mlxs_random_categorical(
    mlxs_array** out,
    const mlxs_array* logits,
    int32_t axis,
    const mlxs_array* key) {
  return shim::give(out, [&] {
    return mx::random::categorical(*logits, axis, shim::maybe(key));
  });
}

} // extern "C"
