// Elementwise operations, reductions and everything that moves elements.
#include "common.h"

#include <stdexcept>

using namespace smlx;

namespace {

using Unary = mx::array (*)(const mx::array&);
using Binary = mx::array (*)(const mx::array&, const mx::array&);
using Reduce = mx::array (*)(const mx::array&, const std::vector<int>&, bool);

#define UNARY(name) [](const mx::array& a) { return mx::name(a); }
#define BINARY(name) [](const mx::array& a, const mx::array& b) { return mx::name(a, b); }
#define REDUCE(name)                                                     \
  [](const mx::array& a, const std::vector<int>& axes, bool keepdims) { \
    return mx::name(a, axes, keepdims);                                  \
  }

// The order is that of the enums in mlx-sys.
const Unary unary_table[] = {
    UNARY(negative), UNARY(abs), UNARY(exp), UNARY(log), UNARY(log1p),
    UNARY(sqrt), UNARY(rsqrt), UNARY(square), UNARY(reciprocal),
    UNARY(sigmoid), UNARY(tanh), UNARY(erf), UNARY(sin), UNARY(cos),
    UNARY(floor), UNARY(logical_not), UNARY(isnan), UNARY(isfinite),
    UNARY(stop_gradient), UNARY(copy), UNARY(sign),
    [](const mx::array& a) { return mx::round(a, 0); },
    [](const mx::array& a) { return mx::contiguous(a); },
};

const Binary binary_table[] = {
    BINARY(add), BINARY(subtract), BINARY(multiply), BINARY(divide),
    BINARY(remainder), BINARY(power), BINARY(maximum), BINARY(minimum),
    BINARY(equal), BINARY(not_equal), BINARY(less), BINARY(less_equal),
    BINARY(greater), BINARY(greater_equal), BINARY(logical_and),
    BINARY(logical_or), BINARY(bitwise_and), BINARY(bitwise_or),
    BINARY(bitwise_xor), BINARY(left_shift), BINARY(right_shift),
    BINARY(floor_divide), BINARY(logaddexp), BINARY(matmul),
};

const Reduce reduce_table[] = {
    REDUCE(sum), REDUCE(max), REDUCE(min), REDUCE(mean), REDUCE(any),
    REDUCE(all), REDUCE(logsumexp), REDUCE(prod),
};

template <typename T, size_t N>
T pick(const T (&table)[N], int32_t op) {
  if (op < 0 || size_t(op) >= N) {
    throw std::invalid_argument("unknown operation code");
  }
  return table[op];
}

} // namespace

extern "C" {

int smlx_unary(int32_t op, const smlx_array* a, smlx_array** out) noexcept {
  return guard_array(out, [&] { return pick(unary_table, op)(*a); });
}

int smlx_binary(
    int32_t op, const smlx_array* a, const smlx_array* b, smlx_array** out) noexcept {
  return guard_array(out, [&] { return pick(binary_table, op)(*a, *b); });
}

int smlx_reduce(
    int32_t op, const smlx_array* a, const int32_t* axes, size_t num_axes,
    bool keepdims, smlx_array** out) noexcept {
  return guard_array(
      out, [&] { return pick(reduce_table, op)(*a, ints(axes, num_axes), keepdims); });
}

int smlx_arg_reduce(
    bool max, const smlx_array* a, int32_t axis, bool keepdims, smlx_array** out) noexcept {
  return guard_array(out, [&] {
    return max ? mx::argmax(*a, axis, keepdims) : mx::argmin(*a, axis, keepdims);
  });
}

int smlx_cumsum(
    const smlx_array* a, int32_t axis, bool reverse, bool inclusive, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::cumsum(*a, axis, reverse, inclusive); });
}

int smlx_softmax(const smlx_array* a, int32_t axis, bool precise, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::softmax(*a, axis, precise); });
}

// what: 0 sort, 1 argsort, 2 partition, 3 argpartition, 4 topk
int smlx_order(
    int32_t what, const smlx_array* a, int32_t k, int32_t axis, smlx_array** out) noexcept {
  return guard_array(out, [&] {
    switch (what) {
      case 0:
        return mx::sort(*a, axis);
      case 1:
        return mx::argsort(*a, axis);
      case 2:
        return mx::partition(*a, k, axis);
      case 3:
        return mx::argpartition(*a, k, axis);
      case 4:
        return mx::topk(*a, k, axis);
      default:
        throw std::invalid_argument("unknown ordering code");
    }
  });
}

int smlx_where(
    const smlx_array* condition, const smlx_array* a, const smlx_array* b,
    smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::where(*condition, *a, *b); });
}

int smlx_addmm(
    const smlx_array* c, const smlx_array* a, const smlx_array* b, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::addmm(*c, *a, *b); });
}

int smlx_full(
    const int32_t* dims, size_t ndim, const smlx_array* value, int32_t type,
    smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::full(shape(dims, ndim), *value, dtype(type)); });
}

int smlx_arange(
    double start, double stop, double step, int32_t type, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::arange(start, stop, step, dtype(type)); });
}

int smlx_tri(int32_t n, int32_t m, int32_t k, int32_t type, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::tri(n, m, k, dtype(type)); });
}

int smlx_reshape(
    const smlx_array* a, const int32_t* dims, size_t ndim, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::reshape(*a, shape(dims, ndim)); });
}

int smlx_broadcast_to(
    const smlx_array* a, const int32_t* dims, size_t ndim, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::broadcast_to(*a, shape(dims, ndim)); });
}

int smlx_transpose(
    const smlx_array* a, const int32_t* axes, size_t num_axes, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::transpose(*a, ints(axes, num_axes)); });
}

int smlx_expand_dims(const smlx_array* a, int32_t axis, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::expand_dims(*a, axis); });
}

int smlx_squeeze(const smlx_array* a, int32_t axis, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::squeeze(*a, axis); });
}

int smlx_slice(
    const smlx_array* a, const int32_t* start, const int32_t* stop, const int32_t* strides,
    size_t ndim, smlx_array** out) noexcept {
  return guard_array(out, [&] {
    return mx::slice(*a, shape(start, ndim), shape(stop, ndim), shape(strides, ndim));
  });
}

int smlx_slice_update(
    const smlx_array* a, const smlx_array* update, const int32_t* start, const int32_t* stop,
    size_t ndim, smlx_array** out) noexcept {
  return guard_array(
      out, [&] { return mx::slice_update(*a, *update, shape(start, ndim), shape(stop, ndim)); });
}

int smlx_take(
    const smlx_array* a, const smlx_array* indices, int32_t axis, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::take(*a, *indices, axis); });
}

int smlx_take_along_axis(
    const smlx_array* a, const smlx_array* indices, int32_t axis, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::take_along_axis(*a, *indices, axis); });
}

// a[indices] = updates on axis 0; indices [n], updates [n, ...].
int smlx_put_rows(
    const smlx_array* a, const smlx_array* indices, const smlx_array* updates,
    smlx_array** out) noexcept {
  return guard_array(
      out, [&] { return mx::scatter(*a, *indices, mx::expand_dims(*updates, 1), 0); });
}

int smlx_concatenate(
    const smlx_array* const* items, size_t count, int32_t axis, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::concatenate(arrays(items, count), axis); });
}

int smlx_stack(
    const smlx_array* const* items, size_t count, int32_t axis, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::stack(arrays(items, count), axis); });
}

int smlx_pad(
    const smlx_array* a, const int32_t* low, const int32_t* high, size_t ndim,
    const smlx_array* value, smlx_array** out) noexcept {
  return guard_array(out, [&] {
    std::vector<int> axes(ndim);
    for (size_t i = 0; i < ndim; ++i) {
      axes[i] = int(i);
    }
    return mx::pad(*a, axes, shape(low, ndim), shape(high, ndim), *value);
  });
}

int smlx_tile(const smlx_array* a, const int32_t* reps, size_t n, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::tile(*a, ints(reps, n)); });
}

int smlx_repeat(
    const smlx_array* a, int32_t repeats, int32_t axis, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::repeat(*a, repeats, axis); });
}

int smlx_roll(const smlx_array* a, int32_t shift, int32_t axis, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::roll(*a, shift, axis); });
}

int smlx_astype(const smlx_array* a, int32_t type, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::astype(*a, dtype(type)); });
}

int smlx_view(const smlx_array* a, int32_t type, smlx_array** out) noexcept {
  return guard_array(out, [&] { return mx::view(*a, dtype(type)); });
}

} // extern "C"
