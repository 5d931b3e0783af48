#include "ldm_torch.h"
#include <ATen/autocast_mode.h>

static at::DeviceType device_of(int cuda) { return cuda ? at::kCUDA : at::kCPU; }

extern "C" {
int ldm_autocast_enter(int cuda, int enabled, int dtype, int *before_enabled, int *before_dtype) {
  return ldm::guarded([&] {
    auto device = device_of(cuda);
    *before_enabled = at::autocast::is_autocast_enabled(device);
    *before_dtype = static_cast<int>(at::autocast::get_autocast_dtype(device));
    at::autocast::increment_nesting();
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(dtype));
    at::autocast::set_autocast_enabled(device, enabled);
  });
}

int ldm_autocast_leave(int cuda, int before_enabled, int before_dtype) {
  return ldm::guarded([&] {
    auto device = device_of(cuda);
    // The cache holds casted weights; it is only valid inside the outermost scope (torch.autocast does the same).
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, before_enabled);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(before_dtype));
  });
}

int ldm_autocast_enabled(int cuda) { return at::autocast::is_autocast_enabled(device_of(cuda)); }
}
