// The NCCL backend, if build.rs found a libtorch with CUDA and the headers of CUDA and NCCL (LDM_NCCL).
#ifdef LDM_NCCL
#define USE_C10D_NCCL
#include "ranks.h"
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

ldm::Backend ldm::nccl(const Store &store, int rank, int world, std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, world, options);
}
#else
#include "ranks.h"

ldm::Backend ldm::nccl(const Store &, int, int, std::chrono::milliseconds) {
  throw std::runtime_error("expected a build with NCCL for several GPUs, got one without; try cargo xtask setup --cuda and building again");
}
#endif
