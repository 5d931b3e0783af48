// Distributed training: c10d.cpp, nccl.cpp, reducer.cpp.
#pragma once
#include "ldm_torch.h"

#ifdef __cplusplus
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace ldm {
using Store = c10::intrusive_ptr<c10d::Store>;
using Backend = c10::intrusive_ptr<c10d::Backend>;
using Work = c10::intrusive_ptr<c10d::Work>;

// gloo for tensors on the CPU, NCCL for tensors on GPUs.
struct Group {
  Store store;
  Backend cpu, gpu;
  bool closed = false;
  c10d::Backend &of(const at::Tensor &value) const;
};

// Constructors of `c10d::ProcessGroupNCCL` in libtorch_cuda.so; `self` is the object's memory. Names as of
// `ProcessGroupNCCL.hpp` of libtorch 2.11.
struct LateNccl {
  void (*construct_options)(void *self, bool is_high_priority_stream);
  void (*construct)(void *self, Store store, int rank, int size, c10::intrusive_ptr<c10d::Backend::Options> options);
};

// late.cpp: as late.h.
const LateNccl &late_nccl();

// nccl.cpp: throws if libtorch has no CUDA.
Backend nccl(const Store &store, int rank, int world, std::chrono::milliseconds timeout);
} // namespace ldm

extern "C" {
#endif
// Connects `world` processes at host:port; with `serve` this one runs the rendezvous store, on the listening socket
// `listen_fd`, which it takes over, or with -1 on all interfaces. `seconds` is the timeout of the store and of gloo;
// `nccl_seconds` that of NCCL, or 0 for a group without it.
int ldm_group_connect(const char *host, int port, int serve, int listen_fd, int rank, int world, double seconds,
                      double nccl_seconds, void **out);
void ldm_group_free(void *group);
// Ends NCCL's communicators in the regular way; operations after it fail.
int ldm_group_close(void *group);
// In place and asynchronous; operation 0 is the sum, 1 the maximum. The work keeps the tensor alive.
int ldm_group_all_reduce(void *group, tensor value, int operation, void **work);
int ldm_group_broadcast(void *group, tensor value, int from, void **work);
// Waits, and frees the work.
int ldm_work_wait(void *work);
// Adds to a counter that all ranks share and returns its new value.
int ldm_group_count(void *group, const char *key, int64_t add, int64_t *now);

int ldm_reducer_new(void *group, const tensor *params, size_t count, int world, size_t bucket_bytes, void **out);
void ldm_reducer_free(void *reducer);
// clear: no parameter has a gradient. arm: the next backward pass is the step's last. finish: waits for the mean gradients; `overlapped` of `buckets` buckets
// were started before this call.
int ldm_reducer_clear(void *reducer);
int ldm_reducer_arm(void *reducer);
int ldm_reducer_finish(void *reducer, int64_t *overlapped, int64_t *buckets);
#ifdef __cplusplus
}
#endif
