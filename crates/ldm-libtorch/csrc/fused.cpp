#include "fused.h"
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <stdexcept>

namespace {
const char *dtype_name(const at::Tensor &of) {
  switch (of.scalar_type()) {
  case at::kFloat: return "f32";
  case at::kBFloat16: return "bf16";
  case at::kHalf: return "f16";
  default: throw std::runtime_error("kernels: expected f32, bf16 or f16");
  }
}
} // namespace

ldm::Small ldm::small(const at::Tensor &of) {
  if (!of.is_contiguous()) throw std::runtime_error("kernels: expected contiguous parameters");
  std::string dtype = dtype_name(of);
  return {of.data_ptr(), dtype == "f32" ? F32 : dtype == "bf16" ? BF16 : F16};
}

ldm::OptionalTensor ldm::new_gradient(const OptionalTensor &like, bool needed) {
  if (!like || !needed) return std::nullopt;
  return at::empty(like->sizes(), like->options());
}

ldm::KernelLaunch ldm::tiled_launch(const char *module, const char *base, const at::Tensor &map, const ldm_tiling &of,
                                    int64_t batch, int64_t channels) {
  auto name = std::string(base) + "_" + dtype_name(map) + "_x" + std::to_string(of.vector);
  auto blocks = (channels + of.width - 1) / of.width;
  KernelGrid grid{(unsigned)blocks, (unsigned)of.parts, (unsigned)batch};
  return {module, name, grid, (unsigned)of.threads, (unsigned)of.shared_bytes};
}

at::Tensor ldm::new_map(const at::Tensor &like) {
  return at::empty(like.sizes(), like.options().memory_format(at::MemoryFormat::ChannelsLast));
}

at::Tensor ldm::readable(const at::Tensor &gradient, at::ScalarType dtype, at::MemoryFormat format) {
  auto dense = gradient.to(dtype).contiguous(format);
  return reinterpret_cast<uintptr_t>(dense.data_ptr()) % 16 == 0 ? dense : dense.clone(format);
}

void ldm::refuse_second_derivative(const char *name) {
  if (c10::GradMode::is_enabled())
    throw std::runtime_error(std::string(name) + ": a second derivative needs libtorch's kernels");
}
