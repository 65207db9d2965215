// Arrays: making them, asking them, reading them, and what shim functions share.
#include "common.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>

static_assert(
    MLX_VERSION_MAJOR == 0 && MLX_VERSION_MINOR == 32 && MLX_VERSION_PATCH == 4,
    "these are not the headers of the pinned MLX 0.32.4: run `make setup`");

namespace {
thread_local std::string last_error;
} // namespace

namespace smlx {

void set_last_error(const char* message) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear(); // No memory for the message: the status still tells.
  }
}

namespace {
const mx::Dtype dtypes[] = {
    mx::bool_, mx::uint8, mx::uint16, mx::uint32, mx::uint64,
    mx::int8, mx::int16, mx::int32, mx::int64,
    mx::float16, mx::bfloat16, mx::float32, mx::float64, mx::complex64};
} // namespace

mx::Dtype dtype(int32_t code) {
  if (code < 0 || size_t(code) >= std::size(dtypes)) {
    throw std::invalid_argument("unknown dtype code");
  }
  return dtypes[code];
}

int32_t dtype_code(mx::Dtype dtype) {
  for (size_t code = 0; code < std::size(dtypes); ++code) {
    if (dtypes[code] == dtype) {
      return int32_t(code);
    }
  }
  throw std::invalid_argument("a dtype that the shim does not know");
}

} // namespace smlx

using namespace smlx;

extern "C" {

const char* smlx_last_error() noexcept {
  return last_error.c_str();
}

void smlx_set_error(const char* message, size_t length) noexcept {
  try {
    last_error.assign(message, length);
  } catch (...) {
    last_error.clear();
  }
}

int smlx_array_from_bytes(
    const void* data, size_t num_bytes, const int32_t* dims, size_t ndim,
    int32_t dtype_number, smlx_array** out) noexcept {
  return guard_array(out, [&] {
    auto dims_ = shape(dims, ndim);
    auto type = dtype(dtype_number);
    size_t size = type.size();
    for (auto dim : dims_) {
      if (dim < 0) {
        throw std::invalid_argument("a negative dimension");
      }
      if (dim != 0 && size > std::numeric_limits<size_t>::max() / size_t(dim)) {
        throw std::invalid_argument("the shape's size overflows");
      }
      size *= size_t(dim);
    }
    if (size != num_bytes) {
      throw std::invalid_argument(
          "the shape needs " + std::to_string(size) + " bytes, the data has " +
          std::to_string(num_bytes));
    }
    auto buffer = mx::allocator::malloc(size);
    if (size > 0) {
      std::memcpy(buffer.buffer().raw_ptr(), data, size);
    }
    return mx::array(std::move(buffer), std::move(dims_), type);
  });
}

int smlx_array_copy_handle(const smlx_array* a, smlx_array** out) noexcept {
  return guard_array(out, [&] { return *a; });
}

void smlx_array_free(smlx_array* a) noexcept {
  delete a;
}

size_t smlx_array_ndim(const smlx_array* a) noexcept {
  return a->ndim();
}

const int32_t* smlx_array_shape(const smlx_array* a) noexcept {
  return a->shape().data();
}

size_t smlx_array_size(const smlx_array* a) noexcept {
  return a->size();
}

size_t smlx_array_nbytes(const smlx_array* a) noexcept {
  return a->nbytes();
}

int smlx_array_dtype(const smlx_array* a, int32_t* out) noexcept {
  return guard([&] { *out = dtype_code(a->dtype()); });
}

// Copies the elements, row-major, into `out` (num_bytes long). Evaluates.
int smlx_array_read(const smlx_array* a, void* out, size_t num_bytes) noexcept {
  return guard([&] {
    mx::array source = *a;
    source.eval();
    if (!source.flags().row_contiguous) {
      source = mx::contiguous(source);
      source.eval();
    }
    if (source.nbytes() != num_bytes) {
      throw std::invalid_argument("the buffer's size is not the array's");
    }
    if (num_bytes > 0) {
      std::memcpy(out, source.data<char>(), num_bytes);
    }
  });
}

} // extern "C"
