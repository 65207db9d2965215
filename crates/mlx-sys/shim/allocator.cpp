// Out of memory as an exception, also on the CPU device.
//
// The CPU-only library hands out a null buffer when there is no memory, and its
// kernels then write to address 8. So on Linux the program defines MLX's
// `allocator()`: an executable's symbol comes before those of its libraries.
// The Metal and CUDA allocators throw by themselves and stay as they are.
#include "shim.h"

#include <new>
#include <stdexcept>

#if defined(__linux__)
#include <dlfcn.h>

#include <mlx/backend/cuda/cuda.h>

namespace {

using mlx::core::allocator::Allocator;
using mlx::core::allocator::Buffer;

Allocator& original() {
  using Function = Allocator& (*)();
  auto symbol = dlsym(RTLD_NEXT, "_ZN3mlx4core9allocator9allocatorEv");
  if (!symbol) {
    throw std::runtime_error("the MLX library has no allocator()");
  }
  return reinterpret_cast<Function>(symbol)();
}

class Checked : public Allocator {
 public:
  explicit Checked(Allocator& inner) : inner_(inner) {}

  Buffer malloc(size_t size) override {
    auto buffer = inner_.malloc(size);
    if (size > 0 && !buffer.ptr()) {
      throw std::runtime_error(
          "out of memory: cannot allocate " + std::to_string(size) + " bytes");
    }
    return buffer;
  }

  void free(Buffer buffer) override {
    inner_.free(buffer);
  }

  size_t size(Buffer buffer) const override {
    return inner_.size(buffer);
  }

  Buffer make_buffer(void* ptr, size_t size) override {
    return inner_.make_buffer(ptr, size);
  }

  void release(Buffer buffer) override {
    inner_.release(buffer);
  }

 private:
  Allocator& inner_;
};

Allocator& chosen() {
  auto& inner = original();
  if (mlx::core::cu::is_available()) {
    return inner;
  }
  // Never destroyed: buffers are freed until the very end of the process.
  return *new Checked(inner);
}

} // namespace

namespace mlx::core::allocator {

Allocator& allocator() {
  static Allocator& out = chosen();
  return out;
}

} // namespace mlx::core::allocator
#endif

namespace shim {

mx::allocator::Data allocate(size_t size) {
  return mx::allocator::malloc(size);
}

} // namespace shim
