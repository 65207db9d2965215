// Operations along axes: reductions, scans, orders.
#include "shim.h"

#define REDUCE(name)                                                  \
  int32_t mlxs_##name(                                                \
      mlxs_array** out,                                               \
      const mlxs_array* a,                                            \
      const int32_t* axes,                                            \
      size_t num_axes,                                                \
      bool keep_dims) {                                               \
    return shim::give(out, [&] {                                      \
      return mx::name(*a, shim::ints(axes, num_axes), keep_dims);     \
    });                                                               \
  }

#define ARG_REDUCE(name)                                              \
  int32_t mlxs_##name(                                                \
      mlxs_array** out, const mlxs_array* a, int32_t axis, bool keep) { \
    return shim::give(out, [&] { return mx::name(*a, axis, keep); }); \
  }

#define ALONG(name)                                                   \
  int32_t mlxs_##name(mlxs_array** out, const mlxs_array* a, int32_t axis) { \
    return shim::give(out, [&] { return mx::name(*a, axis); });       \
  }

#define KTH(name)                                                     \
  int32_t mlxs_##name(                                                \
      mlxs_array** out, const mlxs_array* a, int32_t k, int32_t axis) { \
    return shim::give(out, [&] { return mx::name(*a, k, axis); });    \
  }

extern "C" {

REDUCE(sum)
REDUCE(prod)
REDUCE(max)
REDUCE(min)
REDUCE(mean)
REDUCE(logsumexp)
REDUCE(all)
REDUCE(any)

ARG_REDUCE(argmax)
ARG_REDUCE(argmin)

ALONG(sort)
ALONG(argsort)

KTH(partition)
KTH(argpartition)
KTH(topk)

int32_t mlxs_cumsum(
    mlxs_array** out,
    const mlxs_array* a,
    int32_t axis,
    bool reverse,
    bool inclusive) {
  return shim::give(
      out, [&] { return mx::cumsum(*a, axis, reverse, inclusive); });
}

int32_t mlxs_softmax(
    mlxs_array** out,
    const mlxs_array* a,
    int32_t axis,
    bool precise) {
  return shim::give(out, [&] { return mx::softmax(*a, axis, precise); });
}

} // extern "C"
