// The C interface between ldm-libtorch and libtorch. Tensors are tch's: a `tensor` is an `at::Tensor *`.
// A function that can fail returns 0, or 1 and stores a message for ldm_last_error (per thread).
#pragma once
#include <cstddef>
#include <cstdint>

#ifdef __cplusplus
#include <exception>
#include <ATen/core/Tensor.h>
#include <c10/core/DeviceType.h>
#include <stdexcept>
#include <vector>

using tensor = at::Tensor *;

namespace ldm {
void set_error(const char *message) noexcept;
inline std::vector<at::Tensor> list(const tensor *items, size_t count) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; i++) out.push_back(*items[i]);
  return out;
}
template <typename F> int guarded(F body) {
  try {
    body();
    return 0;
  } catch (const std::exception &error) {
    set_error(error.what());
  } catch (...) { // an exception that left an `extern "C"` function would end the process
    set_error("an exception that is no std::exception");
  }
  return 1;
}
// guarded, with an error message that lacks the C++ backtrace.
template <typename F> int guarded_brief(F body) {
  return guarded([&] {
    try {
      body();
    } catch (const c10::Error &error) {
      throw std::runtime_error(error.what_without_backtrace());
    }
  });
}
} // namespace ldm

extern "C" {
const char *ldm_last_error();

// generator.cpp: torch.Generator("cpu")
int ldm_generator_new(uint64_t seed, void **out);
void ldm_generator_free(void *generator);
int ldm_generator_randn(void *generator, const int64_t *size, size_t dims, int dtype, tensor *out);
int ldm_generator_rand(void *generator, const int64_t *size, size_t dims, int dtype, tensor *out);
int ldm_generator_randint(void *generator, int64_t high, const int64_t *size, size_t dims, tensor *out);

// format.cpp: memory formats
int ldm_to_channels_last(tensor in, tensor *out);
// As ldm_to_channels_last, with the strides of that format also where a side or the number of channels is 1.
int ldm_restride_channels_last(tensor in, tensor *out);
int ldm_is_channels_last(tensor in, int *out);

// autocast.cpp
int ldm_autocast_enter(int cuda, int enabled, int dtype, int *before_enabled, int *before_dtype);
int ldm_autocast_leave(int cuda, int before_enabled, int before_dtype);
int ldm_autocast_enabled(int cuda);

// settings.cpp: switches of the process; the first two return their former value in `before`
int ldm_set_deterministic(int on, int *before);
// `on`: bit 0 for matrix products, bit 1 for convolutions; negative: changes nothing
int ldm_set_tf32(int on, int *before);
int ldm_set_cudnn_benchmark(int on);

// cuda.cpp
enum { LDM_CUDA_NO_DEVICE, LDM_CUDA_OPEN, LDM_CUDA_FAILED };
// The state of libtorch's CUDA library; for LDM_CUDA_FAILED with the reason.
int ldm_cuda_library(const char **error);
// The compute capability of a device, from the driver.
int ldm_cuda_capability(int device, int *major, int *minor);
// Makes a device that of this thread.
int ldm_cuda_set_device(int device);

// memory.cpp: CUDA's caching allocator
int ldm_cuda_memory(int device, int64_t *current, int64_t *peak, int64_t *reserved);
int ldm_cuda_reset_peak(int device);
int ldm_cuda_empty_cache();

// graph.cpp: CUDA graphs. new: the next operations of this thread, on a stream of their own, are runs before the recording.
// begin: the next ones are recorded. finish: the former stream is current again, as after `free`.
int ldm_graph_new(int device, void **out);
int ldm_graph_begin(void *graph);
int ldm_graph_finish(void *graph);
int ldm_graph_replay(void *graph);
void ldm_graph_free(void *graph);

// optim.cpp: one call for all parameters
// `lists`: params, grads, exp_avgs, exp_avg_sqs, steps; `numbers`: lr, beta1, beta2, weight decay, eps; `grad_scale` is
// null or an f32 scalar, by which the gradients are divided, in place; `found_inf` is null or an f32 scalar; if it is 1,
// the call changes nothing
int ldm_fused_adamw(const tensor *const *lists, size_t count, const double *numbers, tensor grad_scale,
                    tensor found_inf);
int ldm_foreach_lerp(const tensor *targets, const tensor *sources, size_t count, double weight);
int ldm_total_norm(const tensor *tensors, size_t count, tensor *out);
// `tensors` holds the outputs, then the inputs.
int ldm_grad(const tensor *tensors, size_t outputs, size_t inputs, int create_graph, tensor *grads);
// Leaves the parameters without a gradient.
int ldm_forget_gradients(const tensor *params, size_t count);

// transfer.cpp: copies between host and CUDA that do not wait for the device
// A contiguous copy in pinned memory, or the tensor itself if it is one.
int ldm_pin(tensor in, tensor *out);
int ldm_upload(tensor in, int device, tensor *out);
int ldm_download_start(tensor in, void **out);
int ldm_download_wait(void *download, tensor *out);
void ldm_download_free(void *download);

// checkpoint.cpp: gradient checkpointing. `run` may be called again, from any thread and from two at once, until `drop`,
// which is called once, also after a failure.
typedef int (*ldm_checkpoint_run)(void *state, const tensor *inputs, size_t count, tensor *out);
typedef void (*ldm_checkpoint_drop)(void *state);
int ldm_checkpoint(ldm_checkpoint_run run, ldm_checkpoint_drop drop, void *state, const tensor *inputs,
                   size_t input_count, const tensor *params, size_t param_count, tensor *out);

// blob.cpp: a contiguous CPU tensor over foreign memory; `drop` is called once, when its last view is gone or after a
// failure
typedef void (*ldm_blob_drop)(void *owner);
int ldm_from_blob(void *data, const int64_t *size, size_t dims, int dtype, ldm_blob_drop drop, void *owner,
                  tensor *out);

// operations.cpp: the operations of this thread and its backward passes between start and stop; one count at a time.
// `report` is called once per operation name
typedef void (*ldm_operations_report)(void *state, const char *name, int64_t calls, int64_t flop, int64_t bytes,
                                      double seconds);
int ldm_operations_start();
int ldm_operations_stop(ldm_operations_report report, void *state);
// Whether this thread's operations are counted; if so, adds one that libtorch does not know.
int ldm_operations_counting();
int ldm_operations_add(const char *name, int64_t flop, int64_t bytes, double seconds);

// kernels.cpp
// Runs `task(state, i)` for i below `tasks` on libtorch's threads; `task` must not throw.
typedef void (*ldm_parallel_task)(void *state, size_t i);
int ldm_parallel(size_t tasks, ldm_parallel_task task, void *state);
int ldm_grad_enabled();

// driver.cpp: the GPU's limits, and the compiled code of a file of kernels/
int ldm_add_compiled(const char *module, const char *ptx, size_t ptx_bytes, const char *cubin, size_t cubin_bytes);
int ldm_gpu_limits(int device, int *multiprocessors, int *shared_bytes);

// launch.cpp: whether this build runs kernels on the CPU, and in which order of threads (of this thread's launches)
int ldm_has_emulator();
void ldm_set_emulator_order(uint64_t order);

// fused_norm.cpp, fused_sums.cpp: kernels/ as autograd functions, on CUDA or, emulated, on the CPU. Maps are channels_last,
// small tensors contiguous, all f32, bf16 or f16; absent ones are null
typedef struct { // src/cuda_kernels/geometry.rs
  int vector, width, rows, part_pixels, parts, threads, shared_bytes;
} ldm_tiling;
typedef struct {
  int64_t groups;
  double eps;
  int silu, slab;
  ldm_tiling forward, backward;
} ldm_norm_plan;
// `tensors`: x, weight, bias, channel_shift, image_shift, scale_shift
int ldm_fused_group_norm(const ldm_norm_plan *plan, const tensor *tensors, tensor *out);
int ldm_fused_bias_add(const ldm_tiling *tiling, tensor x, tensor channel_bias, tensor image_bias, tensor residual,
                       tensor *out);
int ldm_fused_geglu(const ldm_tiling *tiling, tensor x, tensor *out);
}
#endif
