#include "ldm_torch.h"
#include <ATen/ops/from_blob.h>

extern "C" int ldm_from_blob(void *data, const int64_t *size, size_t dims, int dtype, ldm_blob_drop drop, void *owner,
                             tensor *out) {
  return ldm::guarded([&] {
    auto options = at::TensorOptions().dtype(static_cast<at::ScalarType>(dtype)).device(at::kCPU);
    *out = new at::Tensor(
        at::from_blob(data, at::IntArrayRef(size, dims), [drop, owner](void *) { drop(owner); }, options));
  });
}
