#include "driver.h"
#include "late.h"
#include <map>
#include <mutex>
#include <stdexcept>

namespace {
// Numbers of cuda.h, which are part of the driver's ABI.
enum DeviceAttribute { MULTIPROCESSOR_COUNT = 16, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76, SHARED_OPTIN = 97 };
enum FunctionAttribute { MAX_DYNAMIC_SHARED = 8 };
constexpr unsigned SHARED_WITHOUT_OPTIN = 48 << 10;

void check(int result, const std::string &subject) {
  if (result == 0) return;
  const char *text = nullptr;
  ldm::late::driver().error_text(result, &text);
  throw std::runtime_error(subject + ": " + (text ? text : "CUDA error " + std::to_string(result)));
}

int handle(int device) {
  int handle = 0;
  check(ldm::late::driver().device_get(&handle, device), "cuDeviceGet");
  return handle;
}

int attribute(int device, DeviceAttribute which) {
  int value = 0;
  check(ldm::late::driver().device_get_attribute(&value, which, handle(device)), "cuDeviceGetAttribute");
  return value;
}

// libtorch uses the primary context of a device. A thread that has only used cached memory may have none yet.
void make_current(int device) {
  static std::mutex mutex;
  static std::map<int, void *> contexts; // retained until the process ends
  const auto &driver = ldm::late::driver();
  void *current = nullptr, *primary = nullptr;
  check(driver.context_get_current(&current), "cuCtxGetCurrent");
  {
    std::lock_guard<std::mutex> lock(mutex);
    void *&known = contexts[device];
    if (!known) check(driver.device_primary_context_retain(&known, handle(device)), "cuDevicePrimaryCtxRetain");
    primary = known;
  }
  if (current != primary) check(driver.context_set_current(primary), "cuCtxSetCurrent");
}

struct Compiled {
  std::string ptx; // c_str() ends in NUL, as the driver wants it
  std::string cubin;
};
std::map<std::string, Compiled> &compiled() {
  static std::map<std::string, Compiled> all; // filled before the first launch
  return all;
}

// The machine code is that of sm_90. Other GPUs, and a driver that refuses it, translate the PTX.
void *load(int device, const std::string &name) {
  const auto &driver = ldm::late::driver();
  const Compiled &code = compiled().at(name);
  void *module = nullptr;
  if (attribute(device, CAPABILITY_MAJOR) == 9 && driver.module_load_data(&module, code.cubin.data()) == 0) return module;
  check(driver.module_load_data(&module, code.ptx.c_str()), "kernels/compiled/" + name + ".ptx");
  return module;
}

struct Function {
  void *handle;
  unsigned shared_bytes; // allowed so far
};

void *function(int device, const ldm::KernelLaunch &launch) {
  static std::mutex mutex;
  static std::map<std::pair<int, std::string>, void *> modules;
  static std::map<std::pair<int, std::string>, Function> functions;
  const auto &driver = ldm::late::driver();
  std::lock_guard<std::mutex> lock(mutex);
  Function &function = functions.try_emplace({device, launch.name}, Function{nullptr, SHARED_WITHOUT_OPTIN}).first->second;
  if (!function.handle) {
    void *&module = modules[{device, launch.module}];
    if (!module) module = load(device, launch.module);
    check(driver.module_get_function(&function.handle, module, launch.name.c_str()), launch.name);
  }
  if (launch.shared_bytes > function.shared_bytes) {
    check(driver.function_set_attribute(function.handle, MAX_DYNAMIC_SHARED, (int)launch.shared_bytes), launch.name);
    function.shared_bytes = launch.shared_bytes;
  }
  return function.handle;
}
} // namespace

void ldm::driver::launch(int device, const KernelLaunch &launch, const void *arguments, void *stream) {
  make_current(device);
  void *parameters[] = {const_cast<void *>(arguments)};
  const KernelGrid &grid = launch.grid;
  int result = ldm::late::driver().launch_kernel(function(device, launch), grid.x, grid.y, grid.z, launch.threads, 1, 1,
                                                 launch.shared_bytes, stream, parameters, nullptr);
  check(result, launch.name);
}

extern "C" {
int ldm_add_compiled(const char *module, const char *ptx, size_t ptx_bytes, const char *cubin, size_t cubin_bytes) {
  return ldm::guarded([&] { compiled()[module] = {{ptx, ptx_bytes}, {cubin, cubin_bytes}}; });
}

int ldm_cuda_capability(int device, int *major, int *minor) {
  return ldm::guarded([&] {
    check(ldm::late::driver().init(0), "cuInit");
    *major = attribute(device, CAPABILITY_MAJOR);
    *minor = attribute(device, CAPABILITY_MINOR);
  });
}

int ldm_gpu_limits(int device, int *multiprocessors, int *shared_bytes) {
  return ldm::guarded([&] {
    *multiprocessors = attribute(device, MULTIPROCESSOR_COUNT);
    *shared_bytes = attribute(device, SHARED_OPTIN);
  });
}
}
