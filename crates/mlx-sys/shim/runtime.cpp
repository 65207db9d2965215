// Evaluation, compiled functions, files, memory, devices.
#include "common.h"

#include <memory>
#include <sstream>
#include <stdexcept>
#include <unordered_map>

#include <mlx/backend/cuda/cuda.h>
#include <mlx/backend/gpu/device_info.h>
#include <mlx/backend/metal/metal.h>

using namespace smlx;

using Named = std::unordered_map<std::string, mx::array>;
using Metadata = std::unordered_map<std::string, std::string>;

// A named set of arrays with text metadata, as files hold them.
struct smlx_map {
  std::vector<std::pair<std::string, mx::array>> arrays;
  std::vector<std::pair<std::string, std::string>> metadata;
};

using smlx_function = std::function<std::vector<mx::array>(const std::vector<mx::array>&)>;

// Returns 0 and up to `capacity` new arrays in `outputs`, or 1 with the message set.
using smlx_callback = int (*)(
    void* payload, const smlx_array* const* inputs, size_t num_inputs, smlx_array*** outputs,
    size_t* num_outputs);
using smlx_drop = void (*)(void* payload);
using smlx_free_outputs = void (*)(smlx_array** outputs, size_t num_outputs);

extern "C" {

const char* smlx_last_error() noexcept;

int smlx_eval(const smlx_array* const* items, size_t count, bool async) noexcept {
  return guard([&] {
    async ? mx::async_eval(arrays(items, count)) : mx::eval(arrays(items, count));
  });
}

int smlx_synchronize() noexcept {
  return guard([] { mx::synchronize(); });
}

const char* smlx_version() noexcept {
  return mx::version();
}

int smlx_compile(
    smlx_callback call, smlx_drop drop, smlx_free_outputs free_outputs, void* payload,
    bool shapeless, smlx_function** out) noexcept {
  // Owned from here on, so a failure below drops the closure as well.
  std::shared_ptr<void> owner(payload, drop);
  return guard([&] {
    auto body = [call, free_outputs, owner](const std::vector<mx::array>& inputs) {
      std::vector<const smlx_array*> pointers;
      pointers.reserve(inputs.size());
      for (auto& input : inputs) {
        pointers.push_back(&input);
      }
      smlx_array** outputs = nullptr;
      size_t count = 0;
      if (call(owner.get(), pointers.data(), pointers.size(), &outputs, &count) != 0) {
        throw std::runtime_error(smlx_last_error());
      }
      auto result = arrays(outputs, count);
      free_outputs(outputs, count);
      return result;
    };
    *out = new smlx_function(mx::compile(smlx_function(std::move(body)), shapeless));
  });
}

// `outputs` has room for `capacity`; `num_outputs` tells how many there are.
int smlx_function_call(
    const smlx_function* function, const smlx_array* const* inputs, size_t num_inputs,
    smlx_map** out) noexcept {
  return guard([&] {
    auto results = (*function)(arrays(inputs, num_inputs));
    auto map = std::make_unique<smlx_map>();
    for (auto& result : results) {
      map->arrays.emplace_back(std::string(), result);
    }
    *out = map.release();
  });
}

void smlx_function_free(smlx_function* function) noexcept {
  delete function;
}

int smlx_map_new(smlx_map** out) noexcept {
  return guard([&] { *out = new smlx_map(); });
}

void smlx_map_free(smlx_map* map) noexcept {
  delete map;
}

size_t smlx_map_len(const smlx_map* map, bool metadata) noexcept {
  return metadata ? map->metadata.size() : map->arrays.size();
}

void smlx_map_key(
    const smlx_map* map, bool metadata, size_t index, const char** data, size_t* len) noexcept {
  const auto& key = metadata ? map->metadata[index].first : map->arrays[index].first;
  *data = key.data();
  *len = key.size();
}

int smlx_map_array(const smlx_map* map, size_t index, smlx_array** out) noexcept {
  return guard_array(out, [&] { return map->arrays.at(index).second; });
}

void smlx_map_text(
    const smlx_map* map, size_t index, const char** data, size_t* len) noexcept {
  *data = map->metadata[index].second.data();
  *len = map->metadata[index].second.size();
}

int smlx_map_push_array(
    smlx_map* map, const char* key, size_t len, const smlx_array* value) noexcept {
  return guard([&] { map->arrays.emplace_back(std::string(key, len), *value); });
}

int smlx_map_push_text(
    smlx_map* map, const char* key, size_t key_len, const char* value, size_t len) noexcept {
  return guard(
      [&] { map->metadata.emplace_back(std::string(key, key_len), std::string(value, len)); });
}

int smlx_load_safetensors(const char* path, size_t len, smlx_map** out) noexcept {
  return guard([&] {
    auto [named, metadata] = mx::load_safetensors(std::string(path, len));
    auto map = std::make_unique<smlx_map>();
    map->arrays.assign(named.begin(), named.end());
    map->metadata.assign(metadata.begin(), metadata.end());
    *out = map.release();
  });
}

// Metadata that is not text is left out.
int smlx_load_gguf(const char* path, size_t len, smlx_map** out) noexcept {
  return guard([&] {
    auto [named, metadata] = mx::load_gguf(std::string(path, len));
    auto map = std::make_unique<smlx_map>();
    map->arrays.assign(named.begin(), named.end());
    for (auto& [key, value] : metadata) {
      if (auto text = std::get_if<std::string>(&value)) {
        map->metadata.emplace_back(key, *text);
      }
    }
    *out = map.release();
  });
}

int smlx_save_safetensors(const char* path, size_t len, const smlx_map* map) noexcept {
  return guard([&] {
    Named named(map->arrays.begin(), map->arrays.end());
    Metadata metadata(map->metadata.begin(), map->metadata.end());
    mx::save_safetensors(std::string(path, len), std::move(named), std::move(metadata));
  });
}

// what: 0 active, 1 peak, 2 cache, 3 memory limit
int smlx_memory_get(int32_t what, size_t* out) noexcept {
  return guard([&] {
    switch (what) {
      case 0:
        *out = mx::get_active_memory();
        break;
      case 1:
        *out = mx::get_peak_memory();
        break;
      case 2:
        *out = mx::get_cache_memory();
        break;
      default:
        *out = mx::get_memory_limit();
    }
  });
}

// what: 0 memory limit, 1 cache limit, 2 wired limit; returns the one before.
int smlx_memory_set(int32_t what, size_t limit, size_t* before) noexcept {
  return guard([&] {
    switch (what) {
      case 0:
        *before = mx::set_memory_limit(limit);
        break;
      case 1:
        *before = mx::set_cache_limit(limit);
        break;
      default:
        *before = mx::set_wired_limit(limit);
    }
  });
}

int smlx_memory_reset_peak() noexcept {
  return guard([] { mx::reset_peak_memory(); });
}

int smlx_memory_clear_cache() noexcept {
  return guard([] { mx::clear_cache(); });
}

int smlx_set_default_device(bool gpu) noexcept {
  return guard(
      [&] { mx::set_default_device(mx::Device(gpu ? mx::Device::gpu : mx::Device::cpu)); });
}

int smlx_default_device_is_gpu(bool* out) noexcept {
  return guard([&] { *out = mx::default_device() == mx::Device::gpu; });
}

int smlx_backend_available(bool metal, bool* out) noexcept {
  return guard([&] { *out = metal ? mx::metal::is_available() : mx::cu::is_available(); });
}

// Facts about the GPU as a map's metadata; empty without one.
int smlx_gpu_info(smlx_map** out) noexcept {
  return guard([&] {
    auto map = std::make_unique<smlx_map>();
    if (mx::gpu::is_available()) {
      for (auto& [key, value] : mx::gpu::device_info(0)) {
        auto text = std::get_if<std::string>(&value);
        map->metadata.emplace_back(key, text ? *text : std::to_string(std::get<size_t>(value)));
      }
    }
    *out = map.release();
  });
}

} // extern "C"
