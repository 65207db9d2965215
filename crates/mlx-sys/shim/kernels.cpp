// Kernels of our own: on the CPU device a callback, on GPUs source text.
#include "shim.h"

#include <cstring>
#include <memory>
#include <stdexcept>
#include <unordered_set>

#include <mlx/backend/cpu/encoder.h>
#include <mlx/fast.h>
#include <mlx/primitives.h>

// An operand of a CPU kernel: row-contiguous memory.
struct mlxs_operand {
  void* data;
  const int32_t* shape;
  size_t ndim;
  size_t nbytes;
  int32_t dtype;
};

// Returns non-zero after `mlxs_set_error`. Must not unwind.
using mlxs_kernel_call = int32_t (*)(
    void* state,
    const mlxs_operand* inputs,
    size_t num_inputs,
    const mlxs_operand* outputs,
    size_t num_outputs);
using mlxs_kernel_drop = void (*)(void* state);

struct mlxs_gpu_kernel {
  mx::fast::CustomKernelFunction call;
};

extern "C" {
const char* mlxs_last_error(size_t* len);
int32_t mlxs_array_dtype(const mlxs_array* a);
}

namespace {

mlxs_operand operand(mx::array& array, void* data) {
  return {
      data,
      array.shape().data(),
      array.shape().size(),
      array.nbytes(),
      mlxs_array_dtype(&array)};
}

// Row-major copy of an array whose elements lie apart.
std::vector<char> gathered(const mx::array& array) {
  const auto& shape = array.shape();
  const auto& strides = array.strides();
  const size_t item = array.itemsize();
  std::vector<char> out(array.nbytes());
  const char* data = array.data<char>();
  std::vector<int32_t> index(shape.size(), 0);
  for (size_t at = 0; at < out.size(); at += item) {
    int64_t offset = 0;
    for (size_t axis = 0; axis < index.size(); ++axis) {
      offset += index[axis] * strides[axis];
    }
    std::memcpy(out.data() + at, data + offset * static_cast<int64_t>(item), item);
    for (size_t axis = index.size(); axis-- > 0;) {
      if (++index[axis] < shape[axis]) {
        break;
      }
      index[axis] = 0;
    }
  }
  return out;
}

class CpuKernel : public mx::Primitive {
 public:
  CpuKernel(mx::Stream stream, mlxs_kernel_call call, std::shared_ptr<void> state)
      : Primitive(stream), call_(call), state_(std::move(state)) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    // MLX keeps the buffers of inputs and outputs until the task has run; weak
    // copies leave it to others to reuse them afterwards.
    std::vector<mx::array> ins;
    std::vector<mx::array> outs;
    ins.reserve(inputs.size());
    outs.reserve(outputs.size());
    for (auto& out : outputs) {
      out.set_data(shim::allocate(out.nbytes()));
      outs.push_back(mx::array::unsafe_weak_copy(out));
    }
    for (const auto& in : inputs) {
      ins.push_back(mx::array::unsafe_weak_copy(in));
    }
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.dispatch([call = call_,
                      state = state_,
                      ins = std::move(ins),
                      outs = std::move(outs)]() mutable {
      run(call, state.get(), ins, outs);
    });
  }

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("a CPU kernel cannot run on a GPU");
  }

  DEFINE_NAME(CpuKernel)

 private:
  static void run(
      mlxs_kernel_call call,
      void* state,
      std::vector<mx::array>& ins,
      std::vector<mx::array>& outs) {
    std::vector<std::vector<char>> copies;
    std::vector<mlxs_operand> inputs;
    std::vector<mlxs_operand> outputs;
    copies.reserve(ins.size());
    inputs.reserve(ins.size());
    outputs.reserve(outs.size());
    for (auto& in : ins) {
      if (in.flags().row_contiguous) {
        inputs.push_back(operand(in, in.data<char>()));
      } else {
        copies.push_back(gathered(in));
        inputs.push_back(operand(in, copies.back().data()));
      }
    }
    for (auto& out : outs) {
      outputs.push_back(operand(out, out.data<char>()));
    }
    if (call(state, inputs.data(), inputs.size(), outputs.data(), outputs.size())) {
      size_t len = 0;
      const char* text = mlxs_last_error(&len);
      throw std::runtime_error(std::string(text, len));
    }
  }

  mlxs_kernel_call call_;
  std::shared_ptr<void> state_;
};

std::vector<std::string> texts(
    const char* const* data,
    const size_t* lens,
    size_t count) {
  std::vector<std::string> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    out.emplace_back(data[i], lens[i]);
  }
  return out;
}

// Shapes are given end to end.
std::vector<mx::Shape>
shapes(const int32_t* sizes, const size_t* ndims, size_t count) {
  std::vector<mx::Shape> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    out.emplace_back(sizes, sizes + ndims[i]);
    sizes += ndims[i];
  }
  return out;
}

std::vector<mx::Dtype> dtypes(const int32_t* codes, size_t count) {
  std::vector<mx::Dtype> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    out.push_back(shim::dtype(codes[i]));
  }
  return out;
}

} // namespace

extern "C" {

// Takes `state` over, also when it fails: `drop` is called once.
int32_t mlxs_cpu_kernel(
    mlxs_vec** out,
    mlxs_kernel_call call,
    mlxs_kernel_drop drop,
    void* state,
    const mlxs_array* const* inputs,
    size_t num_inputs,
    const int32_t* sizes,
    const size_t* ndims,
    const int32_t* codes,
    size_t num_outputs) {
  return shim::give_vec(out, [&] {
    auto owner = std::shared_ptr<void>(state, drop);
    auto stream = mx::default_stream(mx::Device(mx::Device::cpu));
    return mx::array::make_arrays(
        shapes(sizes, ndims, num_outputs),
        dtypes(codes, num_outputs),
        std::make_shared<CpuKernel>(stream, call, std::move(owner)),
        shim::arrays(inputs, num_inputs));
  });
}

// The elements of a computed array in row-major order; null if it is not computed
// or they lie apart.
const void* mlxs_array_elements(const mlxs_array* a) {
  if (a->status() != mx::array::Status::available || !a->flags().row_contiguous) {
    return nullptr;
  }
  return a->data<char>();
}

// Whether a CPU kernel that was not handed over yet is among what `a` comes from.
bool mlxs_awaits_cpu_kernel(const mlxs_array* a) {
  try {
    std::vector<const mx::array*> todo{a};
    std::unordered_set<std::uintptr_t> seen;
    while (!todo.empty()) {
      const auto* at = todo.back();
      todo.pop_back();
      if (at->status() != mx::array::Status::unscheduled ||
          !seen.insert(at->id()).second) {
        continue;
      }
      if (at->has_primitive() &&
          dynamic_cast<const CpuKernel*>(&at->primitive())) {
        return true;
      }
      for (const auto& in : at->inputs()) {
        todo.push_back(&in);
      }
    }
    return false;
  } catch (...) {
    // No memory to look: the answer that needs no more of it.
    return true;
  }
}

int32_t mlxs_gpu_kernel_new(
    mlxs_gpu_kernel** out,
    bool cuda,
    const char* name,
    size_t name_len,
    const char* const* inputs,
    const size_t* input_lens,
    size_t num_inputs,
    const char* const* outputs,
    const size_t* output_lens,
    size_t num_outputs,
    const char* source,
    size_t source_len,
    const char* header,
    size_t header_len,
    int32_t shared_memory) {
  return shim::guard([&] {
    auto ins = texts(inputs, input_lens, num_inputs);
    auto outs = texts(outputs, output_lens, num_outputs);
    auto kernel_name = shim::text(name, name_len);
    auto body = shim::text(source, source_len);
    auto head = shim::text(header, header_len);
    auto call = cuda
        ? mx::fast::cuda_kernel(
              kernel_name, ins, outs, body, head, true, shared_memory)
        : mx::fast::metal_kernel(kernel_name, ins, outs, body, head);
    *out = new mlxs_gpu_kernel{std::move(call)};
  });
}

void mlxs_gpu_kernel_free(mlxs_gpu_kernel* kernel) {
  shim::guard([&] { delete kernel; });
}

int32_t mlxs_gpu_kernel_call(
    mlxs_vec** out,
    const mlxs_gpu_kernel* kernel,
    const mlxs_array* const* inputs,
    size_t num_inputs,
    const int32_t* sizes,
    const size_t* ndims,
    const int32_t* codes,
    size_t num_outputs,
    const int32_t* grid,
    const int32_t* threadgroup) {
  return shim::give_vec(out, [&] {
    return kernel->call(
        shim::arrays(inputs, num_inputs),
        shapes(sizes, ndims, num_outputs),
        dtypes(codes, num_outputs),
        {grid[0], grid[1], grid[2]},
        {threadgroup[0], threadgroup[1], threadgroup[2]},
        {},
        std::nullopt,
        false,
        {});
  });
}

} // extern "C"
