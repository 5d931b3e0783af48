#include "late.h"
#include "ranks.h"
#include <cstring>
#include <dlfcn.h>
#include <mutex>
#include <stdexcept>
#include <string>
#include <torch/version.h>

// Another libtorch may have other functions of these names.
#if TORCH_VERSION_MAJOR != 2 || TORCH_VERSION_MINOR != 11
#error "the names and types of late.h are those of libtorch 2.11"
#endif

namespace {
// The functions of a table in the order of its fields.
constexpr const char *GRAPH[] = {
    "_ZN2at4cuda9CUDAGraphC1Eb",
    "_ZN2at4cuda9CUDAGraphD1Ev",
    "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode",
    "_ZN2at4cuda9CUDAGraph11capture_endEv",
    "_ZN2at4cuda9CUDAGraph6replayEv",
    "_ZN2at4cuda17graph_pool_handleEv",
};
constexpr const char *NCCL[] = {
    "_ZN4c10d16ProcessGroupNCCL7OptionsC1Eb",
    "_ZN4c10d16ProcessGroupNCCLC1EN3c1013intrusive_ptrINS_5StoreENS1_6detail34intrusive_target_default_null_typeIS3_EEEEii"
    "NS2_INS0_7OptionsENS5_IS8_EEEE",
};
constexpr const char *DRIVER[] = {
    "cuInit",           "cuModuleLoadData", "cuModuleGetFunction",  "cuFuncSetAttribute",
    "cuLaunchKernel",   "cuGetErrorString", "cuDeviceGet",          "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain", "cuCtxGetCurrent", "cuCtxSetCurrent",
};

// libtorch's CUDA library must be open already: opened here, after the first tensor, it would stay unused.
constexpr int IF_OPEN = RTLD_NOW | RTLD_NOLOAD;

// Finds all functions of a table, or throws.
template <typename Table, size_t N> const Table &find(const char *library, int flags, const char *const (&names)[N]) {
  static_assert(sizeof(Table) == N * sizeof(void *), "one name for each function");
  static std::mutex mutex;
  static Table table;
  static bool complete = false;
  std::lock_guard<std::mutex> lock(mutex);
  if (complete) return table;
  void *handle = dlopen(library, flags);
  if (!handle) {
    const char *reason = dlerror();
    throw std::runtime_error(reason ? reason : std::string(library) + " is not open");
  }
  void *functions[N];
  for (size_t i = 0; i < N; i++) {
    functions[i] = dlsym(handle, names[i]);
    if (!functions[i]) throw std::runtime_error(std::string(library) + " has no " + names[i]);
  }
  std::memcpy(&table, functions, sizeof(table));
  complete = true;
  return table;
}
} // namespace

const ldm::late::Graph &ldm::late::graph() { return find<Graph>("libtorch_cuda.so", IF_OPEN, GRAPH); }

const ldm::late::Driver &ldm::late::driver() { return find<Driver>("libcuda.so.1", RTLD_NOW, DRIVER); }

const ldm::LateNccl &ldm::late_nccl() { return find<LateNccl>("libtorch_cuda.so", IF_OPEN, NCCL); }

extern "C" int ldm_late_check(int table) {
  return ldm::guarded([&] {
    if (table == 0) ldm::late::graph();
    if (table == 1) ldm::late::driver();
    if (table == 2) ldm::late_nccl();
  });
}
