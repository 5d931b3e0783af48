#include "ldm_torch.h"

extern "C" {
int ldm_to_channels_last(tensor in, tensor *out) {
  return ldm::guarded([&] { *out = new at::Tensor(in->contiguous(at::MemoryFormat::ChannelsLast)); });
}

int ldm_is_channels_last(tensor in, int *out) {
  return ldm::guarded([&] { *out = in->is_contiguous(at::MemoryFormat::ChannelsLast); });
}
}
