// What the kernels of ldm-kernels need from libtorch: its threads and the gradient mode.
#include "ldm_torch.h"
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <algorithm>
#include <atomic>

extern "C" {
int ldm_parallel(size_t tasks, ldm_parallel_task task, void *state) {
  return ldm::guarded([&] {
    std::atomic<size_t> next{0};
    auto work = [&] {
      for (size_t i = next.fetch_add(1); i < tasks; i = next.fetch_add(1)) task(state, i);
    };
    auto threads = std::min<size_t>(at::get_num_threads(), tasks);
    if (threads <= 1 || at::in_parallel_region()) return work();
    // One element a thread. at::parallel_for is a template that runs serially in code compiled without OpenMP, as this
    // is; TensorIterator's loop is compiled inside libtorch, with it.
    auto elements = at::empty({static_cast<int64_t>(threads)}, at::kByte);
    auto iterator = at::TensorIterator::nullary_op(elements);
    iterator.for_each([&](char **, const int64_t *, int64_t count) { while (count-- > 0) work(); }, /*grain_size=*/1);
  });
}

int ldm_grad_enabled() { return c10::GradMode::is_enabled(); }
}
