#include "ldm_torch.h"
#include <ATen/Context.h>

extern "C" {
int ldm_set_deterministic(int on, int *before) {
  return ldm::guarded([&] {
    auto &context = at::globalContext();
    *before = context.deterministicAlgorithms();
    context.setDeterministicAlgorithms(on, /*warn_only=*/false);
    context.setDeterministicCuDNN(on);
  });
}

int ldm_set_tf32(int on, int *before) {
  return ldm::guarded([&] {
    auto &context = at::globalContext();
    *before = context.allowTF32CuBLAS() | context.allowTF32CuDNN() << 1;
    if (on < 0) return;
    context.setAllowTF32CuBLAS(on & 1);
    context.setAllowTF32CuDNN(on & 2);
  });
}

int ldm_set_cudnn_benchmark(int on) {
  return ldm::guarded([&] { at::globalContext().setBenchmarkCuDNN(on); });
}
}
