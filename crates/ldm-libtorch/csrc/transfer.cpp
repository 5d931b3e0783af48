// Copies between host and device. c10's device-generic events need no CUDA header, so this file works with both variants
// of libtorch.
#include "ldm_torch.h"
#include <ATen/ops/empty.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <memory>
#include <optional>

namespace {
// Contiguous, so that the copy to the device is one transfer without a temporary tensor in ordinary memory.
at::Tensor pinned(const at::Tensor &in) {
  auto dense = in.contiguous();
  return dense.is_pinned() ? dense : dense.pin_memory();
}

struct Download {
  at::Tensor host;
  std::optional<c10::Event> done;
};
} // namespace

extern "C" {
int ldm_pin(tensor in, tensor *out) {
  return ldm::guarded([&] { *out = new at::Tensor(pinned(*in)); });
}

int ldm_upload(tensor in, int device, tensor *out) {
  return ldm::guarded([&] {
    auto to = in->options().device(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
    *out = new at::Tensor(pinned(*in).to(to, /*non_blocking=*/true));
  });
}

int ldm_download_start(tensor in, void **out) {
  return ldm::guarded([&] {
    auto download = std::make_unique<Download>();
    if (in->is_cuda()) {
      auto source = in->detach().contiguous();
      download->host = at::empty(source.sizes(), source.options().device(at::kCPU).pinned_memory(true));
      download->host.copy_(source, /*non_blocking=*/true);
      download->done.emplace(at::kCUDA);
      download->done->record(c10::impl::VirtualGuardImpl(at::kCUDA).getStream(source.device()));
    } else {
      download->host = in->detach();
    }
    *out = download.release();
  });
}

int ldm_download_wait(void *download, tensor *out) {
  return ldm::guarded([&] {
    auto &copy = *static_cast<Download *>(download);
    if (copy.done) copy.done->synchronize();
    *out = new at::Tensor(copy.host);
  });
}

void ldm_download_free(void *download) { delete static_cast<Download *>(download); }
}
