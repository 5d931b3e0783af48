// Functions of libraries that are opened at run time, by their names: one program runs with and without CUDA, and neither
// the headers nor the libraries of CUDA are needed to build it. A table has all of its functions, or is not there.
#pragma once
#include "ldm_torch.h"

#ifdef __cplusplus
#include <c10/core/CachingDeviceAllocator.h>

namespace ldm::late {
// `at::cuda::CUDAGraph` of libtorch_cuda.so, whose header needs those of CUDA; `self` is its memory. Names as of
// `ATen/cuda/CUDAGraph.h` of libtorch 2.11.
struct Graph {
  void (*construct)(void *self, bool keep_graph);
  void (*destroy)(void *self);
  void (*capture_begin)(void *self, c10::MempoolId_t pool, int mode); // cudaStreamCaptureMode
  void (*capture_end)(void *self);
  void (*replay)(void *self);
  c10::MempoolId_t (*pool_handle)();
};

// The CUDA driver, libcuda.so.1. Functions return a CUresult, 0 without an error.
struct Driver {
  int (*init)(unsigned flags);
  int (*module_load_data)(void **module, const void *image);
  int (*module_get_function)(void **function, void *module, const char *name);
  int (*function_set_attribute)(void *function, int attribute, int value);
  int (*launch_kernel)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned shared_bytes, void *stream, void **arguments,
                       void **extra);
  int (*error_text)(int result, const char **text);
  int (*device_get)(int *device, int ordinal);
  int (*device_get_attribute)(int *value, int attribute, int device);
  int (*device_primary_context_retain)(void **context, int device);
  int (*context_get_current)(void **context);
  int (*context_set_current)(void *context);
};

// The tables. Each throws a std::runtime_error with the reason if it is not there.
const Graph &graph();
const Driver &driver();
} // namespace ldm::late

extern "C" {
#endif
// Whether a table is there; fails with the reason if it is not. `table`: 0 Graph, 1 Driver, 2 NCCL (ranks.h).
int ldm_late_check(int table);
#ifdef __cplusplus
}
#endif
