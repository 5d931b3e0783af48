#include "ldm_torch.h"

extern "C" {
int ldm_to_channels_last(tensor in, tensor *out) {
  return ldm::guarded([&] { *out = new at::Tensor(in->contiguous(at::MemoryFormat::ChannelsLast)); });
}

int ldm_restride_channels_last(tensor in, tensor *out) {
  return ldm::guarded([&] {
    auto last = in->contiguous(at::MemoryFormat::ChannelsLast);
    *out = new at::Tensor(last.as_strided(last.sizes(), c10::get_channels_last_strides_2d(last.sizes())));
  });
}

int ldm_is_channels_last(tensor in, int *out) {
  return ldm::guarded([&] { *out = in->is_contiguous(at::MemoryFormat::ChannelsLast); });
}
}
