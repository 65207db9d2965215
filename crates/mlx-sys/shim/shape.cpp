// Making, reshaping, joining and indexing arrays.
#include "shim.h"

extern "C" {

int32_t mlxs_full(
    mlxs_array** out,
    const int32_t* shape,
    size_t ndim,
    const mlxs_array* value,
    int32_t dtype) {
  return shim::give(out, [&] {
    return mx::full(shim::shape(shape, ndim), *value, shim::dtype(dtype));
  });
}

int32_t mlxs_arange(
    mlxs_array** out,
    double start,
    double stop,
    double step,
    int32_t dtype) {
  return shim::give(
      out, [&] { return mx::arange(start, stop, step, shim::dtype(dtype)); });
}

int32_t mlxs_tril(mlxs_array** out, const mlxs_array* a, int32_t k) {
  return shim::give(out, [&] { return mx::tril(*a, k); });
}

int32_t mlxs_triu(mlxs_array** out, const mlxs_array* a, int32_t k) {
  return shim::give(out, [&] { return mx::triu(*a, k); });
}

int32_t mlxs_reshape(
    mlxs_array** out,
    const mlxs_array* a,
    const int32_t* shape,
    size_t ndim) {
  return shim::give(
      out, [&] { return mx::reshape(*a, shim::shape(shape, ndim)); });
}

int32_t mlxs_broadcast_to(
    mlxs_array** out,
    const mlxs_array* a,
    const int32_t* shape,
    size_t ndim) {
  return shim::give(
      out, [&] { return mx::broadcast_to(*a, shim::shape(shape, ndim)); });
}

int32_t mlxs_transpose(
    mlxs_array** out,
    const mlxs_array* a,
    const int32_t* axes,
    size_t num_axes) {
  return shim::give(
      out, [&] { return mx::transpose(*a, shim::ints(axes, num_axes)); });
}

int32_t mlxs_swapaxes(
    mlxs_array** out,
    const mlxs_array* a,
    int32_t axis1,
    int32_t axis2) {
  return shim::give(out, [&] { return mx::swapaxes(*a, axis1, axis2); });
}

int32_t mlxs_expand_dims(
    mlxs_array** out,
    const mlxs_array* a,
    const int32_t* axes,
    size_t num_axes) {
  return shim::give(
      out, [&] { return mx::expand_dims(*a, shim::ints(axes, num_axes)); });
}

int32_t mlxs_squeeze(
    mlxs_array** out,
    const mlxs_array* a,
    const int32_t* axes,
    size_t num_axes) {
  return shim::give(
      out, [&] { return mx::squeeze(*a, shim::ints(axes, num_axes)); });
}

int32_t mlxs_flatten(
    mlxs_array** out,
    const mlxs_array* a,
    int32_t start_axis,
    int32_t end_axis) {
  return shim::give(
      out, [&] { return mx::flatten(*a, start_axis, end_axis); });
}

// `start`, `stop` and `strides` have one number per axis.
int32_t mlxs_slice(
    mlxs_array** out,
    const mlxs_array* a,
    const int32_t* start,
    const int32_t* stop,
    const int32_t* strides,
    size_t ndim) {
  return shim::give(out, [&] {
    return mx::slice(
        *a,
        shim::shape(start, ndim),
        shim::shape(stop, ndim),
        shim::shape(strides, ndim));
  });
}

int32_t mlxs_slice_update(
    mlxs_array** out,
    const mlxs_array* a,
    const mlxs_array* update,
    const int32_t* start,
    const int32_t* stop,
    const int32_t* strides,
    size_t ndim) {
  return shim::give(out, [&] {
    return mx::slice_update(
        *a,
        *update,
        shim::shape(start, ndim),
        shim::shape(stop, ndim),
        shim::shape(strides, ndim));
  });
}

int32_t mlxs_take(
    mlxs_array** out,
    const mlxs_array* a,
    const mlxs_array* indices,
    int32_t axis) {
  return shim::give(out, [&] { return mx::take(*a, *indices, axis); });
}

int32_t mlxs_take_along_axis(
    mlxs_array** out,
    const mlxs_array* a,
    const mlxs_array* indices,
    int32_t axis) {
  return shim::give(
      out, [&] { return mx::take_along_axis(*a, *indices, axis); });
}

int32_t mlxs_put_along_axis(
    mlxs_array** out,
    const mlxs_array* a,
    const mlxs_array* indices,
    const mlxs_array* values,
    int32_t axis) {
  return shim::give(
      out, [&] { return mx::put_along_axis(*a, *indices, *values, axis); });
}

// a[indices] = updates, with updates `[num_indices, 1, ...a.shape[1..]]`.
int32_t mlxs_scatter_rows(
    mlxs_array** out,
    const mlxs_array* a,
    const mlxs_array* indices,
    const mlxs_array* updates) {
  return shim::give(out, [&] { return mx::scatter(*a, *indices, *updates, 0); });
}

int32_t mlxs_concatenate(
    mlxs_array** out,
    const mlxs_array* const* arrays,
    size_t len,
    int32_t axis) {
  return shim::give(
      out, [&] { return mx::concatenate(shim::arrays(arrays, len), axis); });
}

int32_t mlxs_stack(
    mlxs_array** out,
    const mlxs_array* const* arrays,
    size_t len,
    int32_t axis) {
  return shim::give(
      out, [&] { return mx::stack(shim::arrays(arrays, len), axis); });
}

int32_t mlxs_split(
    mlxs_vec** out,
    const mlxs_array* a,
    int32_t sections,
    int32_t axis) {
  return shim::give_vec(out, [&] { return mx::split(*a, sections, axis); });
}

int32_t mlxs_split_at(
    mlxs_vec** out,
    const mlxs_array* a,
    const int32_t* indices,
    size_t len,
    int32_t axis) {
  return shim::give_vec(
      out, [&] { return mx::split(*a, shim::shape(indices, len), axis); });
}

int32_t mlxs_pad(
    mlxs_array** out,
    const mlxs_array* a,
    const int32_t* low,
    const int32_t* high,
    size_t ndim,
    const mlxs_array* value) {
  return shim::give(out, [&] {
    std::vector<std::pair<int, int>> widths;
    for (size_t i = 0; i < ndim; ++i) {
      widths.emplace_back(low[i], high[i]);
    }
    return mx::pad(*a, widths, *value);
  });
}

int32_t mlxs_tile(
    mlxs_array** out,
    const mlxs_array* a,
    const int32_t* reps,
    size_t len) {
  return shim::give(out, [&] { return mx::tile(*a, shim::ints(reps, len)); });
}

int32_t mlxs_repeat(
    mlxs_array** out,
    const mlxs_array* a,
    int32_t repeats,
    int32_t axis) {
  return shim::give(out, [&] { return mx::repeat(*a, repeats, axis); });
}

int32_t mlxs_roll(
    mlxs_array** out,
    const mlxs_array* a,
    int32_t shift,
    int32_t axis) {
  return shim::give(out, [&] { return mx::roll(*a, shift, axis); });
}

} // extern "C"
