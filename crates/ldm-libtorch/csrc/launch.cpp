#include "launch.h"
#include "driver.h"
#include "ldm_torch.h"
#include <c10/core/impl/VirtualGuardImpl.h>
#include <stdexcept>
#ifdef LDM_WITH_EMULATOR
#include "emulator.h"
#endif

namespace {
// Of this thread; the backward of tensors on the CPU runs on the thread that asks for it.
thread_local uint64_t emulator_order = 0;

void emulate(const ldm::KernelLaunch &launch, const void *arguments, size_t argument_bytes) {
#ifdef LDM_WITH_EMULATOR
  emulator::Launch same{launch.name, {launch.grid.x, launch.grid.y, launch.grid.z}, launch.threads, launch.shared_bytes};
  emulator::run(same, arguments, argument_bytes, emulator_order);
#else
  throw std::runtime_error(launch.name + ": this build has no emulator of kernels");
#endif
}
} // namespace

void ldm::launch(at::Device device, const KernelLaunch &launch, const void *arguments, size_t argument_bytes) {
  if (device.is_cpu()) return emulate(launch, arguments, argument_bytes);
  auto stream = c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device);
  driver::launch(device.index(), launch, arguments, stream.native_handle());
}

extern "C" {
int ldm_has_emulator() {
#ifdef LDM_WITH_EMULATOR
  return 1;
#else
  return 0;
#endif
}

void ldm_set_emulator_order(uint64_t order) { emulator_order = order; }
}
