#include "ldm_torch.h"
#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>

// CUDA's allocator, or null if CUDA is absent or not yet used. c10's device-generic interface needs no CUDA header, so
// this file works with both variants of libtorch.
static c10::DeviceAllocator *allocator() {
  if (!at::hasCUDA()) return nullptr;
  auto *found = c10::getDeviceAllocator(at::kCUDA);
  return found && found->initialized() ? found : nullptr;
}

extern "C" {
int ldm_cuda_memory(int device, int64_t *current, int64_t *peak, int64_t *reserved) {
  *current = *peak = *reserved = 0;
  return ldm::guarded([&] {
    auto *found = allocator();
    if (!found) return;
    auto stats = found->getDeviceStats(device);
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *current = stats.allocated_bytes[all].current;
    *peak = stats.allocated_bytes[all].peak;
    *reserved = stats.reserved_bytes[all].current;
  });
}

int ldm_cuda_reset_peak(int device) {
  return ldm::guarded([&] {
    if (auto *found = allocator()) found->resetPeakStats(device);
  });
}

int ldm_cuda_empty_cache() {
  return ldm::guarded([&] {
    if (auto *found = allocator()) found->emptyCache();
  });
}
}
