// What every file of the shim shares: opaque arrays, status codes, the guard.
//
// The shim is a C ABI over MLX's C++ API. No exception leaves it: each function
// returns 0, or 1 and leaves its message for smlx_last_error(). Messages are
// data and never pass through a printf format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>

#include <mlx/mlx.h>

namespace mx = mlx::core;

using smlx_array = mx::array;

namespace smlx {

void set_last_error(const char* message) noexcept;

template <typename F>
int guard(F&& body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    set_last_error(error.what());
  } catch (...) {
    set_last_error("unknown C++ exception");
  }
  return 1;
}

// Runs `make`, which yields an array, and hands the result to the caller.
template <typename F>
int guard_array(smlx_array** out, F&& make) noexcept {
  return guard([&] { *out = new mx::array(make()); });
}

inline mx::Shape shape(const int32_t* dims, size_t ndim) {
  return mx::Shape(dims, dims + ndim);
}

inline std::vector<int> ints(const int32_t* values, size_t count) {
  return std::vector<int>(values, values + count);
}

inline std::vector<mx::array> arrays(const smlx_array* const* items, size_t count) {
  std::vector<mx::array> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    out.push_back(*items[i]);
  }
  return out;
}

inline std::optional<mx::array> optional(const smlx_array* item) {
  return item ? std::optional<mx::array>(*item) : std::nullopt;
}

// Numbers of mlx-sys' Dtype.
mx::Dtype dtype(int32_t code);
int32_t dtype_code(mx::Dtype dtype);

} // namespace smlx
