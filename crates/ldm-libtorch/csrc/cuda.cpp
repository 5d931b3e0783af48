// CUDA's half of libtorch, and what the driver and libtorch's generic interface say of a device. No CUDA header is needed,
// so this file works with both variants of libtorch.
#include "ldm_torch.h"
#include <c10/core/impl/VirtualGuardImpl.h>
#include <cstdio>
#include <dlfcn.h>
#include <stdexcept>
#include <string>
#include <unistd.h>

namespace {
// Written before `main`, hence no object with a constructor of its own.
int library = LDM_CUDA_NO_DEVICE;
char failure[1024];

const char *reason() {
  const char *error = dlerror();
  return error ? error : "the dynamic linker gave no reason";
}

// libtorch asks its registry for CUDA once, at the first use of anything that could need it, such as a seed, and remembers
// the answer. The linker drops libtorch_cuda.so, since no symbol of it is used by name; opened after that use, it would be
// ignored for the rest of the process. Without a GPU there is nothing to open, and libtorch's load time is saved.
__attribute__((constructor)) void open_library() {
  bool found = false;
  for (const char *device : {"/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"}) found = found || access(device, F_OK) == 0;
  if (!found) return;
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL)) {
    library = LDM_CUDA_OPEN;
    return;
  }
  library = LDM_CUDA_FAILED;
  std::snprintf(failure, sizeof failure, "%s", reason());
}

// The functions of the driver that give a compute capability, from its library: `CUresult` and `CUdevice` are ints.
struct Driver {
  int (*init)(unsigned);
  int (*get)(int *device, int ordinal);
  int (*attribute)(int *value, int which, int device);
  int (*describe)(int error, const char **text);

  Driver() {
    void *handle = dlopen("libcuda.so.1", RTLD_NOW);
    if (!handle) throw std::runtime_error(reason());
    find(handle, "cuInit", init);
    find(handle, "cuDeviceGet", get);
    find(handle, "cuDeviceGetAttribute", attribute);
    find(handle, "cuGetErrorString", describe);
  }

  void check(const char *call, int error) const {
    if (error == 0) return;
    const char *text = nullptr;
    describe(error, &text);
    throw std::runtime_error(std::string(call) + ": " + (text ? text : "error " + std::to_string(error)));
  }

private:
  template <typename F> static void find(void *handle, const char *name, F &function) {
    function = reinterpret_cast<F>(dlsym(handle, name));
    if (!function) throw std::runtime_error(reason());
  }
};
} // namespace

extern "C" {
int ldm_cuda_library(const char **error) {
  *error = failure;
  return library;
}

int ldm_cuda_capability(int ordinal, int *major, int *minor) {
  return ldm::guarded([&] {
    const int major_attribute = 75, minor_attribute = 76; // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR}
    static const Driver driver;
    int device = 0;
    driver.check("cuInit", driver.init(0));
    driver.check("cuDeviceGet", driver.get(&device, ordinal));
    driver.check("cuDeviceGetAttribute", driver.attribute(major, major_attribute, device));
    driver.check("cuDeviceGetAttribute", driver.attribute(minor, minor_attribute, device));
  });
}

int ldm_cuda_set_device(int device) {
  return ldm::guarded([&] {
    c10::impl::VirtualGuardImpl(at::kCUDA).setDevice({at::kCUDA, static_cast<c10::DeviceIndex>(device)});
  });
}
}
