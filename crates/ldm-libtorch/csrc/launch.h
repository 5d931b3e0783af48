// Launches of the kernels of kernels/: on a GPU by the CUDA driver, on the CPU, for tests, by the emulator.
#pragma once
#include <ATen/core/Tensor.h>
#include <string>

namespace ldm {
struct KernelGrid {
  unsigned x, y, z;
};

struct KernelLaunch {
  const char *module; // the name of its file in kernels/
  std::string name;
  KernelGrid grid;
  unsigned threads;
  unsigned shared_bytes;
};

// Launches on the current stream of `device`. Throws std::runtime_error.
void launch(at::Device device, const KernelLaunch &launch, const void *arguments, size_t argument_bytes);
} // namespace ldm
