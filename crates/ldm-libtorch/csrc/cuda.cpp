// CUDA's half of libtorch, and libtorch's generic interface to its devices. No CUDA header is needed,
// so this file works with both variants of libtorch.
#include "ldm_torch.h"
#include <c10/core/impl/VirtualGuardImpl.h>
#include <cstdio>
#include <dlfcn.h>
#include <unistd.h>

namespace {
// Written before `main`, hence no object with a constructor of its own.
int library = LDM_CUDA_NO_DEVICE;
char failure[1024];

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
  const char *error = dlerror();
  std::snprintf(failure, sizeof failure, "%s", error ? error : "the dynamic linker gave no reason");
}
} // namespace

extern "C" {
int ldm_cuda_library(const char **error) {
  *error = failure;
  return library;
}

int ldm_cuda_set_device(int device) {
  return ldm::guarded([&] {
    c10::impl::VirtualGuardImpl(at::kCUDA).setDevice({at::kCUDA, static_cast<c10::DeviceIndex>(device)});
  });
}
}
