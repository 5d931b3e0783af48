// Launches of compiled kernels by the CUDA driver (late.h).
#pragma once
#include "launch.h"

namespace ldm::driver {
// Launches on `stream`, a CUstream of the device. Loads the kernel's module on its first use there. Throws.
void launch(int device, const KernelLaunch &launch, const void *arguments, void *stream);
} // namespace ldm::driver
