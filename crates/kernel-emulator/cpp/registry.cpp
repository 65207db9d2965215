#include "registry.h"

#include <cstdio>
#include <stdexcept>
#include <string>

namespace emulator {
namespace {

struct Prepared {
  Launch launch;
  Body body;
  std::vector<std::vector<DeviceShadow>> shadows;
};

template <typename Item>
const Item& find(const Item* items, int64_t count, const char* name, const char* what) {
  for (int64_t i = 0; i < count; ++i) {
    if (std::strcmp(items[i].name, name) == 0) return items[i];
  }
  throw std::runtime_error(std::string(what) + " " + name + " is not given");
}

void check_no_others(const char* what, int64_t given, size_t known) {
  if (given == int64_t(known)) return;
  throw std::runtime_error("the kernel has " + std::to_string(known) + " " + what + ", given " +
                           std::to_string(given));
}

void add_buffers(const Kernel& kernel, const EmulatorLaunch& from, const std::vector<int>& codes,
                 Prepared& to) {
  check_no_others("buffers", from.num_buffers, kernel.parameters.size());
  to.shadows.resize(kernel.parameters.size());
  for (size_t i = 0; i < kernel.parameters.size(); ++i) {
    const Parameter& parameter = kernel.parameters[i];
    const EmulatorBuffer& given = find(from.buffers, from.num_buffers, parameter.name, "buffer");
    const int code = parameter.type < 0 ? ~parameter.type : codes[parameter.type];
    if (code != given.code) {
      throw std::runtime_error(std::string("buffer ") + parameter.name +
                               " has another element type than the kernel");
    }
    Buffer buffer = {parameter.name, given.data, given.count, {}, parameter.is_output, nullptr};
    for (int d = 0; d < 8; ++d) buffer.shape[d] = given.shape[d];
    if (parameter.is_output || parameter.is_writable) {
      to.shadows[i].resize(size_t(given.count) + 1);
      buffer.shadow = to.shadows[i].data();
    }
    to.launch.buffers.push_back(buffer);
  }
}

void prepare(const EmulatorLaunch& from, Prepared& to) {
  const Kernel* kernel = nullptr;
  for (const Kernel* one : kernels()) {
    if (std::strcmp(one->name, from.kernel) == 0) kernel = one;
  }
  if (!kernel) throw std::runtime_error("no kernel of this name");
  std::vector<int> codes;
  check_no_others("types", from.num_types, kernel->types.size());
  for (const char* name : kernel->types) {
    codes.push_back(find(from.types, from.num_types, name, "type").code);
  }
  to.body = kernel->select(codes.data());
  if (!to.body) throw std::runtime_error("not compiled for these element types");
  to.launch.kernel = kernel->name;
  add_buffers(*kernel, from, codes, to);
  check_no_others("constants", from.num_constants, kernel->ints.size() + kernel->floats.size());
  for (const char* name : kernel->ints) {
    to.launch.ints.push_back(find(from.constants, from.num_constants, name, "constant").integer);
  }
  for (const char* name : kernel->floats) {
    to.launch.floats.push_back(find(from.constants, from.num_constants, name, "constant").real);
  }
  for (int d = 0; d < 3; ++d) to.launch.groups[d] = from.groups[d];
  to.launch.threads = from.threads;
  to.launch.metal_tiles = from.metal_tiles != 0;
  if (from.threads <= 0 || from.threads % 32 != 0 || from.threads > 1024) {
    throw std::runtime_error("a threadgroup has 32, 64, ... 1024 threads");
  }
}

}  // namespace
}  // namespace emulator

int32_t emulator_run(const EmulatorLaunch* launch, char* error, int64_t error_size) {
  std::string failure;
  try {
    emulator::Prepared prepared;
    emulator::prepare(*launch, prepared);
    failure = emulator::run(prepared.launch, prepared.body);
  } catch (const std::exception& exception) {
    failure = std::string(launch->kernel) + ": " + exception.what();
  }
  if (failure.empty()) return 0;
  std::snprintf(error, size_t(error_size), "%s", failure.c_str());
  return 1;
}
