// Arrays, lists of arrays, the text of the last error.
#include "shim.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace {

thread_local std::string last_error;

constexpr mx::Dtype DTYPES[] = {
    mx::bool_,
    mx::uint8,
    mx::uint16,
    mx::uint32,
    mx::uint64,
    mx::int8,
    mx::int16,
    mx::int32,
    mx::int64,
    mx::float16,
    mx::bfloat16,
    mx::float32,
    mx::float64,
    mx::complex64,
};

} // namespace

namespace shim {

void set_error(const char* text, size_t len) noexcept {
  try {
    last_error.assign(text, len);
  } catch (...) {
    last_error.clear();
  }
}

void set_error(const char* text) noexcept {
  set_error(text, std::strlen(text));
}

std::vector<mx::array> arrays(const mlxs_array* const* data, size_t len) {
  std::vector<mx::array> out;
  out.reserve(len);
  for (size_t i = 0; i < len; ++i) {
    out.push_back(*data[i]);
  }
  return out;
}

mx::Dtype dtype(int32_t code) {
  if (code < 0 || static_cast<size_t>(code) >= std::size(DTYPES)) {
    throw std::invalid_argument("unknown dtype code " + std::to_string(code));
  }
  return DTYPES[code];
}

void sort_by_name(mlxs_map& map) {
  std::sort(
      map.entries.begin(), map.entries.end(), [](const auto& a, const auto& b) {
        return a.name < b.name;
      });
}

} // namespace shim

extern "C" {

const char* mlxs_last_error(size_t* len) {
  *len = last_error.size();
  return last_error.data();
}

void mlxs_set_error(const char* text, size_t len) {
  shim::set_error(text, len);
}

int32_t mlxs_array_from_bytes(
    mlxs_array** out,
    const void* data,
    size_t nbytes,
    const int32_t* shape,
    size_t ndim,
    int32_t dtype) {
  return shim::give(out, [&] {
    auto buffer = shim::allocate(nbytes);
    if (nbytes > 0) {
      std::memcpy(buffer.buffer().raw_ptr(), data, nbytes);
    }
    auto array = mx::array(
        std::move(buffer), shim::shape(shape, ndim), shim::dtype(dtype));
    if (array.nbytes() != nbytes) {
      throw std::invalid_argument(
          "an array of this shape and dtype has " +
          std::to_string(array.nbytes()) + " bytes, but there are " +
          std::to_string(nbytes));
    }
    return array;
  });
}

int32_t mlxs_array_clone(mlxs_array** out, const mlxs_array* a) {
  return shim::give(out, [&] { return *a; });
}

void mlxs_array_free(mlxs_array* a) {
  // Destruction frees buffers and graphs; nothing in it is meant to throw.
  shim::guard([&] { delete a; });
}

size_t mlxs_array_ndim(const mlxs_array* a) {
  return a->ndim();
}

const int32_t* mlxs_array_shape(const mlxs_array* a) {
  return a->shape().data();
}

size_t mlxs_array_size(const mlxs_array* a) {
  return a->size();
}

size_t mlxs_array_id(const mlxs_array* a) {
  return a->id();
}

bool mlxs_array_is_computed(const mlxs_array* a) {
  return a->status() != mx::array::Status::unscheduled;
}

int32_t mlxs_array_dtype(const mlxs_array* a) {
  for (size_t i = 0; i < std::size(DTYPES); ++i) {
    if (DTYPES[i] == a->dtype()) {
      return static_cast<int32_t>(i);
    }
  }
  return -1;
}

int32_t mlxs_array_read(const mlxs_array* a, void* data, size_t nbytes) {
  return shim::guard([&] {
    if (a->nbytes() != nbytes) {
      throw std::invalid_argument(
          "the array has " + std::to_string(a->nbytes()) + " bytes, not " +
          std::to_string(nbytes));
    }
    auto source = *a;
    source.eval();
    if (!source.flags().row_contiguous) {
      source = mx::contiguous(source);
      source.eval();
    }
    if (nbytes > 0) {
      std::memcpy(data, source.data<char>(), nbytes);
    }
  });
}

int32_t mlxs_eval(const mlxs_array* const* arrays, size_t len) {
  return shim::guard([&] { mx::eval(shim::arrays(arrays, len)); });
}

int32_t mlxs_async_eval(const mlxs_array* const* arrays, size_t len) {
  return shim::guard([&] { mx::async_eval(shim::arrays(arrays, len)); });
}

size_t mlxs_vec_len(const mlxs_vec* vec) {
  return vec->arrays.size();
}

int32_t mlxs_vec_get(mlxs_array** out, const mlxs_vec* vec, size_t index) {
  return shim::give(out, [&] { return vec->arrays.at(index); });
}

int32_t mlxs_vec_push(mlxs_vec* vec, const mlxs_array* a) {
  return shim::guard([&] { vec->arrays.push_back(*a); });
}

void mlxs_vec_free(mlxs_vec* vec) {
  shim::guard([&] { delete vec; });
}

} // extern "C"
