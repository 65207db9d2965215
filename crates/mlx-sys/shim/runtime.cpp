// Version, devices, memory, compiled functions.
#include "shim.h"

#include <cstdlib>
#include <memory>
#include <stdexcept>

#include <mlx/backend/cuda/cuda.h>
#include <mlx/backend/metal/metal.h>

#define MEMORY_READ(name)                                        \
  int32_t mlxs_##name(size_t* out) {                             \
    return shim::guard([&] { *out = mx::name(); });              \
  }

#define MEMORY_LIMIT(name)                                       \
  int32_t mlxs_##name(size_t limit, size_t* previous) {          \
    return shim::guard([&] { *previous = mx::name(limit); });    \
  }

// The closure behind a compiled function. Pushes its results to the list, or
// returns non-zero after `mlxs_set_error`. Must not unwind.
using mlxs_closure_call = int32_t (*)(
    void* state,
    const mlxs_array* const* inputs,
    size_t num_inputs,
    mlxs_vec* outputs);
using mlxs_closure_drop = void (*)(void* state);

struct mlxs_compiled {
  std::function<std::vector<mx::array>(const std::vector<mx::array>&)> call;
};

namespace {

// MLX counts the CUDA graphs it makes for as long as it runs and fails every
// evaluation once they are twice its cache's size, so a server would end after
// some hours of new batch shapes. Said before main, while no thread reads the
// environment; a user's own setting stands.
const int keep_serving = setenv("MLX_ENABLE_CACHE_THRASHING_CHECK", "0", 0);

} // namespace

extern "C" {

const char* mlxs_last_error(size_t* len);

const char* mlxs_version() {
  return mx::version();
}

bool mlxs_metal_available() {
  bool out = false;
  shim::guard([&] { out = mx::metal::is_available(); });
  return out;
}

bool mlxs_cuda_available() {
  bool out = false;
  shim::guard([&] { out = mx::cu::is_available(); });
  return out;
}

int32_t mlxs_set_default_device(bool gpu) {
  return shim::guard([&] {
    auto device = mx::Device(gpu ? mx::Device::gpu : mx::Device::cpu);
    if (!mx::is_available(device)) {
      throw std::invalid_argument("this MLX library has no such device here");
    }
    mx::set_default_device(device);
  });
}

int32_t mlxs_default_device_is_gpu(bool* out) {
  return shim::guard(
      [&] { *out = mx::default_device() == mx::Device::gpu; });
}

int32_t mlxs_synchronize() {
  return shim::guard([&] { mx::synchronize(); });
}

MEMORY_READ(get_active_memory)
MEMORY_READ(get_peak_memory)
MEMORY_READ(get_cache_memory)
MEMORY_READ(get_memory_limit)
MEMORY_LIMIT(set_memory_limit)
MEMORY_LIMIT(set_cache_limit)
MEMORY_LIMIT(set_wired_limit)

int32_t mlxs_reset_peak_memory() {
  return shim::guard([&] { mx::reset_peak_memory(); });
}

int32_t mlxs_clear_cache() {
  return shim::guard([&] { mx::clear_cache(); });
}

// Takes `state` over, also when it fails: `drop` is called once.
int32_t mlxs_compile(
    mlxs_compiled** out,
    mlxs_closure_call call,
    mlxs_closure_drop drop,
    void* state,
    bool shapeless) {
  return shim::guard([&] {
    auto owner = std::shared_ptr<void>(state, drop);
    auto body = [owner, call](const std::vector<mx::array>& inputs) {
      std::vector<const mlxs_array*> pointers;
      pointers.reserve(inputs.size());
      for (const auto& input : inputs) {
        pointers.push_back(&input);
      }
      mlxs_vec outputs;
      if (call(owner.get(), pointers.data(), pointers.size(), &outputs) != 0) {
        size_t len = 0;
        const char* text = mlxs_last_error(&len);
        throw std::runtime_error(std::string(text, len));
      }
      return std::move(outputs.arrays);
    };
    using Function =
        std::function<std::vector<mx::array>(const std::vector<mx::array>&)>;
    *out = new mlxs_compiled{mx::compile(Function(std::move(body)), shapeless)};
  });
}

int32_t mlxs_compiled_call(
    mlxs_vec** out,
    const mlxs_compiled* compiled,
    const mlxs_array* const* inputs,
    size_t num_inputs) {
  return shim::give_vec(
      out, [&] { return compiled->call(shim::arrays(inputs, num_inputs)); });
}

void mlxs_compiled_free(mlxs_compiled* compiled) {
  shim::guard([&] { delete compiled; });
}

} // extern "C"
