// A C ABI over the parts of MLX's C++ API that the `mlx` crate uses.
//
// Every function returns 0, or 1 with the message kept for `mlxs_last_error`.
// No C++ exception crosses this boundary: `guard` is around every body. An
// array handed out is owned by the caller until `mlxs_array_free`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <mlx/mlx.h>

static_assert(
    MLX_VERSION_MAJOR == 0 && MLX_VERSION_MINOR == 32 && MLX_VERSION_PATCH == 4,
    "the headers are not those of the pinned MLX version");

namespace mx = mlx::core;

using mlxs_array = mx::array;

// Arrays in order.
struct mlxs_vec {
  std::vector<mx::array> arrays;
};

// One entry of a `mlxs_map`: an array, strings, or nothing but its name.
struct mlxs_entry {
  std::string name;
  std::optional<mx::array> array;
  std::vector<std::string> strings;
  bool is_list = false;
};

// What a file or a device says, in order of names.
struct mlxs_map {
  std::vector<mlxs_entry> entries;
};

namespace shim {

void set_error(const char* text, size_t len) noexcept;
void set_error(const char* text) noexcept;

template <class F>
int32_t guard(F&& body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    set_error(error.what());
  } catch (...) {
    set_error("a C++ exception of unknown type");
  }
  return 1;
}

// Runs `body` and hands its array to the caller.
template <class F>
int32_t give(mlxs_array** out, F&& body) noexcept {
  return guard([&] { *out = new mx::array(body()); });
}

// Runs `body` and hands its arrays to the caller.
template <class F>
int32_t give_vec(mlxs_vec** out, F&& body) noexcept {
  return guard([&] { *out = new mlxs_vec{body()}; });
}

inline mx::Shape shape(const int32_t* data, size_t len) {
  return mx::Shape(data, data + len);
}

inline std::vector<int> ints(const int32_t* data, size_t len) {
  return std::vector<int>(data, data + len);
}

inline std::optional<mx::array> maybe(const mlxs_array* array) {
  return array ? std::optional<mx::array>(*array) : std::nullopt;
}

inline std::string text(const char* data, size_t len) {
  return std::string(data, len);
}

std::vector<mx::array> arrays(const mlxs_array* const* data, size_t len);

// Throws for a number that is no dtype.
mx::Dtype dtype(int32_t code);

void sort_by_name(mlxs_map& map);

// Throws where there is no memory.
mx::allocator::Data allocate(size_t size);

} // namespace shim
