#include "ldm_torch.h"
#include <ATen/ops/from_blob.h>
#include <memory>

extern "C" int ldm_from_blob(void *data, const int64_t *size, size_t dims, int dtype, ldm_blob_drop drop, void *owner,
                             tensor *out) {
  return ldm::guarded([&] {
    // Also dropped with a deleter that is never called, if from_blob throws.
    std::shared_ptr<void> owned(owner, drop);
    auto options = at::TensorOptions().dtype(static_cast<at::ScalarType>(dtype)).device(at::kCPU);
    auto free = [owned](void *) mutable { owned.reset(); };
    owned.reset();
    *out = new at::Tensor(at::from_blob(data, at::IntArrayRef(size, dims), std::move(free), options));
  });
}
