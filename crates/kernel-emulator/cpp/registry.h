// The C ABI of the emulator, and what generated code says about each kernel.
#pragma once

#include <cstdint>

#include "group.h"

namespace emulator {

struct Parameter {
  const char* name;
  // Index into `types`, or ~code for a fixed element type.
  int type;
  bool is_output, is_writable;
};

// One kernel, as generated from the first lines of its body.
struct Kernel {
  const char* name;
  std::vector<const char*> types;
  std::vector<Parameter> parameters;
  std::vector<const char*> ints, floats;
  // The body for these element types, or null.
  Body (*select)(const int* codes);
};

const std::vector<const Kernel*>& kernels();

}  // namespace emulator

extern "C" {

// Codes of element types: 0 f32, 1 f16, 2 bf16, 3 i32, 4 u32; bytes of packed rows of K
// and V: 5 fp8, 6 int8, 7 int4.
struct EmulatorBuffer {
  const char* name;
  char* data;
  int64_t count;
  int32_t code;
  int32_t shape[8];
};
struct EmulatorType {
  const char* name;
  int32_t code;
};
struct EmulatorConstant {
  const char* name;
  int32_t is_float;
  int32_t integer;
  float real;
};
struct EmulatorLaunch {
  const char* kernel;
  const EmulatorBuffer* buffers;
  int64_t num_buffers;
  const EmulatorType* types;
  int64_t num_types;
  const EmulatorConstant* constants;
  int64_t num_constants;
  int32_t groups[3];
  int32_t threads;
  int32_t metal_tiles;
};

// Returns 0, or writes what went wrong into `error`.
int32_t emulator_run(const EmulatorLaunch* launch, char* error, int64_t error_size);
}
