#include "ldm_torch.h"
#include <ATen/Context.h>

extern "C" {
int ldm_set_deterministic(int on) {
  return ldm::guarded([&] {
    auto &context = at::globalContext();
    context.setDeterministicAlgorithms(on, /*warn_only=*/false);
    context.setDeterministicCuDNN(on);
  });
}

int ldm_set_tf32(int on) {
  return ldm::guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(on);
    at::globalContext().setAllowTF32CuDNN(on);
  });
}

int ldm_set_cudnn_benchmark(int on) {
  return ldm::guarded([&] { at::globalContext().setBenchmarkCuDNN(on); });
}
}
