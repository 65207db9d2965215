// A list of kernel launches as one CUDA graph: the driver replays hundreds of
// launches in the time that MLX needs for a few.
//
// This is the one place that goes below MLX's API. The driver and its compiler
// are looked up when first used, so the same program runs without them. From MLX
// it takes two functions and the head of two structs, mirrored here because
// their headers need CUDA's; the version of MLX is pinned and checked.
#include "shim.h"

#include <dlfcn.h>

#include <cstring>
#include <filesystem>
#include <iterator>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <unordered_map>

#include <mlx/primitives.h>

// One argument of a launch: `array`, or else `bytes`, or else a place in the
// arena.
struct mlxs_launch_arg {
  const mlxs_array* array;
  const void* bytes;
  size_t size;
  size_t offset;
};

struct mlxs_launch {
  // A whole translation unit with one `extern "C"` kernel.
  const char* source;
  size_t source_len;
  const char* name;
  size_t name_len;
  uint32_t grid[3];
  uint32_t threads;
  const mlxs_launch_arg* args;
  size_t num_args;
};

// A stretch of the arena.
struct mlxs_stretch {
  size_t offset;
  size_t nbytes;
};

namespace {

using CUresult = int;
using Handle = void*;

// As in cuda.h (`CUDA_KERNEL_NODE_PARAMS_v2`).
struct KernelNodeParams {
  Handle func;
  unsigned grid[3];
  unsigned block[3];
  unsigned shared_bytes;
  void** params;
  void** extra;
  Handle kern;
  Handle ctx;
};

// As in mlx/backend/cuda/device.h, up to what is used.
struct EncoderHead {
  void* device;
  Handle stream;
};

// As in mlx/backend/cuda/allocator.h, up to what is used.
struct BufferHead {
  char* data;
};

template <class F>
F symbol(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (!found) {
    throw std::runtime_error(std::string("no function ") + name);
  }
  return reinterpret_cast<F>(found);
}

struct Driver {
  static const Driver& get() {
    static const Driver driver;
    return driver;
  }

  void check(CUresult result, const char* what) const {
    if (result == 0) {
      return;
    }
    const char* text = nullptr;
    error_string(result, &text);
    throw std::runtime_error(
        std::string(what) + ": " + (text ? text : "unknown CUDA error"));
  }

  CUresult (*error_string)(CUresult, const char**);
  CUresult (*ctx_get_device)(int*);
  CUresult (*device_attribute)(int*, int, int);
  CUresult (*module_load)(Handle*, const void*);
  CUresult (*module_function)(Handle*, Handle, const char*);
  CUresult (*graph_create)(Handle*, unsigned);
  CUresult (*graph_destroy)(Handle);
  CUresult (*graph_add_kernel)(
      Handle*, Handle, const Handle*, size_t, const KernelNodeParams*);
  CUresult (*graph_instantiate)(Handle*, Handle, unsigned long long);
  CUresult (*exec_destroy)(Handle);
  CUresult (*graph_launch)(Handle, Handle);
  CUresult (*copy_async)(uintptr_t, uintptr_t, size_t, Handle);
  EncoderHead* (*get_encoder)(mx::Stream);
  void (*commit)(EncoderHead*);

 private:
  Driver() {
    void* cuda = dlopen("libcuda.so.1", RTLD_NOW);
    if (!cuda) {
      throw std::runtime_error("no libcuda.so.1");
    }
    const auto load = [&](auto& function, const char* name, void* library) {
      function = symbol<std::decay_t<decltype(function)>>(library, name);
    };
    load(error_string, "cuGetErrorString", cuda);
    load(ctx_get_device, "cuCtxGetDevice", cuda);
    load(device_attribute, "cuDeviceGetAttribute", cuda);
    load(module_load, "cuModuleLoadData", cuda);
    load(module_function, "cuModuleGetFunction", cuda);
    load(graph_create, "cuGraphCreate", cuda);
    load(graph_destroy, "cuGraphDestroy", cuda);
    load(graph_add_kernel, "cuGraphAddKernelNode_v2", cuda);
    load(graph_instantiate, "cuGraphInstantiateWithFlags", cuda);
    load(exec_destroy, "cuGraphExecDestroy", cuda);
    load(graph_launch, "cuGraphLaunch", cuda);
    load(copy_async, "cuMemcpyAsync", cuda);
    // mlx::core::cu::get_command_encoder(Stream) and CommandEncoder::commit().
    const char* encoder = "_ZN3mlx4core2cu19get_command_encoderENS0_6StreamE";
    load(get_encoder, encoder, RTLD_DEFAULT);
    load(commit, "_ZN3mlx4core2cu14CommandEncoder6commitEv", RTLD_DEFAULT);
  }
};

struct Compiler {
  static const Compiler& get() {
    static const Compiler compiler;
    return compiler;
  }

  // Machine code for the current device.
  std::vector<char> compile(const std::string& source, const char* name) const {
    Handle program = nullptr;
    check(create(&program, source.c_str(), name, 0, nullptr, nullptr), nullptr);
    const auto free = [this](Handle* at) { destroy(at); };
    const std::unique_ptr<Handle, decltype(free)> guard(&program, free);
    const char* options[] = {arch.c_str(), include.c_str(), "--std=c++17"};
    check(compile_program(program, std::size(options), options), program);
    size_t size = 0;
    check(cubin_size(program, &size), program);
    std::vector<char> code(size);
    check(cubin(program, code.data()), program);
    return code;
  }

 private:
  Compiler() {
    const auto load = [&](auto& function, const char* name) {
      function = symbol<std::decay_t<decltype(function)>>(RTLD_DEFAULT, name);
    };
    load(create, "nvrtcCreateProgram");
    load(destroy, "nvrtcDestroyProgram");
    load(compile_program, "nvrtcCompileProgram");
    load(cubin_size, "nvrtcGetCUBINSize");
    load(cubin, "nvrtcGetCUBIN");
    load(log_size, "nvrtcGetProgramLogSize");
    load(log, "nvrtcGetProgramLog");
    load(error_string, "nvrtcGetErrorString");
    const auto& driver = Driver::get();
    int device = 0, major = 0, minor = 0;
    driver.check(driver.ctx_get_device(&device), "the current device");
    driver.check(driver.device_attribute(&major, 75, device), "the device's version");
    driver.check(driver.device_attribute(&minor, 76, device), "the device's version");
    arch = "--gpu-architecture=sm_" + std::to_string(major) + std::to_string(minor);
    include = "--include-path=" + headers();
  }

  // Where CUDA's headers are: beside its compiler, or where its users say.
  std::string headers() const {
    namespace fs = std::filesystem;
    std::vector<fs::path> roots;
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(create), &info) && info.dli_fname) {
      roots.push_back(fs::path(info.dli_fname).parent_path().parent_path());
    }
    for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) {
      if (const char* home = std::getenv(name)) {
        roots.emplace_back(home);
      }
    }
    roots.emplace_back("/usr/local/cuda");
    for (const auto& root : roots) {
      if (fs::exists(root / "include" / "cuda_bf16.h")) {
        return (root / "include").string();
      }
    }
    throw std::runtime_error("no cuda_bf16.h found: set CUDA_HOME");
  }

  void check(int result, Handle program) const {
    if (result == 0) {
      return;
    }
    std::string text = error_string(result);
    size_t size = 0;
    if (program && log_size(program, &size) == 0 && size > 1) {
      std::string details(size, '\0');
      log(program, details.data());
      text += ": " + details;
    }
    throw std::runtime_error("CUDA's compiler: " + text);
  }

  int (*create)(
      Handle*, const char*, const char*, int, const char* const*, const char* const*);
  int (*destroy)(Handle*);
  int (*compile_program)(Handle, int, const char* const*);
  int (*cubin_size)(Handle, size_t*);
  int (*cubin)(Handle, char*);
  int (*log_size)(Handle, size_t*);
  int (*log)(Handle, char*);
  const char* (*error_string)(int);
  std::string arch;
  std::string include;
};

// Compiled once a program and never unloaded: graphs come and go, kernels stay.
Handle function_of(const std::string& source, const std::string& name) {
  static std::mutex mutex;
  static std::unordered_map<std::string, Handle> functions;
  const std::lock_guard lock(mutex);
  if (const auto found = functions.find(source); found != functions.end()) {
    return found->second;
  }
  const auto& driver = Driver::get();
  const auto code = Compiler::get().compile(source, (name + ".cu").c_str());
  Handle module = nullptr;
  Handle function = nullptr;
  driver.check(driver.module_load(&module, code.data()), "loading a kernel");
  driver.check(
      driver.module_function(&function, module, name.c_str()), "finding a kernel");
  functions.emplace(source, function);
  return function;
}

char* device_pointer(const mx::array& array) {
  const auto* head = static_cast<const BufferHead*>(array.buffer().ptr());
  return head->data + array.offset();
}

struct Output {
  size_t offset;
  mx::Shape shape;
  mx::Dtype dtype;
};

struct Graph {
  ~Graph() {
    if (exec) {
      Driver::get().exec_destroy(exec);
    }
  }

  explicit Graph(mx::array space) : arena(std::move(space)) {}

  mx::array arena;
  // What launches read and write beside the arena, and where it was.
  std::vector<std::pair<mx::array, char*>> constants;
  std::vector<mlxs_stretch> inputs;
  std::vector<Output> outputs;
  char* base = nullptr;
  Handle exec = nullptr;
};

class Replay : public mx::Primitive {
 public:
  Replay(mx::Stream stream, std::shared_ptr<Graph> graph)
      : Primitive(stream), graph_(std::move(graph)) {}

  void eval_cpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("a CUDA graph cannot run on the CPU");
  }

  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    const auto& driver = Driver::get();
    const auto& graph = *graph_;
    for (const auto& [array, at] : graph.constants) {
      if (device_pointer(array) != at) {
        throw std::runtime_error("memory that a CUDA graph uses has moved");
      }
    }
    // What MLX has collected so far comes first.
    auto* encoder = driver.get_encoder(stream());
    driver.commit(encoder);
    for (size_t i = 0; i < inputs.size(); ++i) {
      const auto [offset, nbytes] = graph.inputs[i];
      if (nbytes == 0) {
        continue;
      }
      if (!inputs[i].flags().row_contiguous || inputs[i].nbytes() != nbytes) {
        throw std::runtime_error("an input of a CUDA graph has another layout");
      }
      const auto from = reinterpret_cast<uintptr_t>(device_pointer(inputs[i]));
      const auto to = reinterpret_cast<uintptr_t>(graph.base + offset);
      driver.check(driver.copy_async(to, from, nbytes, encoder->stream), "an input");
    }
    driver.check(driver.graph_launch(graph.exec, encoder->stream), "a graph");
    for (size_t i = 0; i < outputs.size(); ++i) {
      auto& out = outputs[i];
      mx::array::Flags flags{true, true, false};
      flags.col_contiguous = out.size() == 1;
      const auto offset = static_cast<int64_t>(graph.outputs[i].offset / out.itemsize());
      out.copy_shared_buffer(graph.arena, out.strides(), flags, out.size(), offset);
    }
  }

  DEFINE_NAME(Replay)

 private:
  std::shared_ptr<Graph> graph_;
};

void add_launch(
    Graph& graph,
    const mlxs_launch& launch,
    Handle definition,
    Handle* last) {
  const auto& driver = Driver::get();
  std::vector<std::vector<char>> values;
  std::vector<void*> params;
  for (size_t i = 0; i < launch.num_args; ++i) {
    const auto& arg = launch.args[i];
    const auto* bytes = static_cast<const char*>(arg.bytes);
    char* pointer = graph.base + arg.offset;
    if (arg.array) {
      pointer = device_pointer(*arg.array);
      graph.constants.emplace_back(*arg.array, pointer);
    }
    const auto* raw = reinterpret_cast<const char*>(&pointer);
    values.emplace_back(bytes ? bytes : raw, bytes ? bytes + arg.size : raw + sizeof raw);
  }
  for (auto& value : values) {
    params.push_back(value.data());
  }
  KernelNodeParams node{};
  node.func = function_of(
      shim::text(launch.source, launch.source_len),
      shim::text(launch.name, launch.name_len));
  std::memcpy(node.grid, launch.grid, sizeof node.grid);
  node.block[0] = launch.threads;
  node.block[1] = node.block[2] = 1;
  node.params = params.data();
  Handle added = nullptr;
  driver.check(
      driver.graph_add_kernel(&added, definition, last, *last ? 1 : 0, &node), "a launch");
  *last = added;
}

} // namespace

struct mlxs_cuda_graph {
  std::shared_ptr<Graph> graph;
};

extern "C" {

// The launches run one after the other. Inputs are copied to their stretches
// first; outputs are views of the arena, good until a graph of this arena runs
// again.
int32_t mlxs_cuda_graph_new(
    mlxs_cuda_graph** out,
    const mlxs_launch* launches,
    size_t num_launches,
    const mlxs_array* arena,
    const mlxs_stretch* inputs,
    size_t num_inputs,
    const size_t* output_offsets,
    const int32_t* sizes,
    const size_t* ndims,
    const int32_t* codes,
    size_t num_outputs) {
  return shim::guard([&] {
    const auto& driver = Driver::get();
    auto graph = std::make_shared<Graph>(*arena);
    graph->base = device_pointer(graph->arena);
    graph->constants.emplace_back(graph->arena, graph->base);
    graph->inputs.assign(inputs, inputs + num_inputs);
    for (size_t i = 0; i < num_outputs; ++i) {
      graph->outputs.push_back(
          {output_offsets[i], mx::Shape(sizes, sizes + ndims[i]), shim::dtype(codes[i])});
      sizes += ndims[i];
    }
    Handle definition = nullptr;
    driver.check(driver.graph_create(&definition, 0), "a new graph");
    const auto destroy = [&](Handle* at) { driver.graph_destroy(*at); };
    const std::unique_ptr<Handle, decltype(destroy)> guard(&definition, destroy);
    Handle last = nullptr;
    for (size_t i = 0; i < num_launches; ++i) {
      add_launch(*graph, launches[i], definition, &last);
    }
    driver.check(
        driver.graph_instantiate(&graph->exec, definition, 0), "instantiating a graph");
    *out = new mlxs_cuda_graph{std::move(graph)};
  });
}

void mlxs_cuda_graph_free(mlxs_cuda_graph* graph) {
  shim::guard([&] { delete graph; });
}

int32_t mlxs_cuda_graph_run(
    mlxs_vec** out,
    const mlxs_cuda_graph* graph,
    const mlxs_array* const* inputs,
    size_t num_inputs) {
  return shim::give_vec(out, [&] {
    if (num_inputs != graph->graph->inputs.size()) {
      throw std::invalid_argument("another number of inputs than the graph has");
    }
    std::vector<mx::Shape> shapes;
    std::vector<mx::Dtype> dtypes;
    for (const auto& output : graph->graph->outputs) {
      shapes.push_back(output.shape);
      dtypes.push_back(output.dtype);
    }
    auto stream = mx::default_stream(mx::Device(mx::Device::gpu));
    return mx::array::make_arrays(
        shapes,
        dtypes,
        std::make_shared<Replay>(stream, graph->graph),
        shim::arrays(inputs, num_inputs));
  });
}

} // extern "C"
