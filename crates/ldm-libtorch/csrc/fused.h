// Shared by the autograd functions of kernels: fused_norm.cpp, fused_sums.cpp.
#pragma once
#include "arguments.h"
#include "launch.h"
#include "ldm_torch.h"
#include <optional>

namespace ldm {
using OptionalTensor = std::optional<at::Tensor>;

inline OptionalTensor optional(tensor given) { return given ? OptionalTensor(*given) : std::nullopt; }

// A small tensor as the kernels read and write it; contiguous.
Small small(const at::Tensor &of);
inline Small small(const OptionalTensor &of) { return of ? small(*of) : Small{nullptr, F32}; }

// A new tensor of the size and dtype of `like`, or none if no gradient of it is needed.
OptionalTensor new_gradient(const OptionalTensor &like, bool needed);

inline Tiling tiling_of(const ldm_tiling &of, int64_t pixels, int64_t channels) {
  return {(int)pixels, (int)channels, of.width, of.rows, of.part_pixels, of.parts};
}

// A launch with one block for each tile of `batch` images, of the kernel `base` for the map's dtype and the tiling's vector:
// group_norm_apply_bf16_x8.
KernelLaunch tiled_launch(const char *module, const char *base, const at::Tensor &map, const ldm_tiling &of, int64_t batch,
                          int64_t channels);

template <class Arguments> void launch(const at::Tensor &map, const KernelLaunch &launch, const Arguments &arguments) {
  ldm::launch(map.device(), launch, &arguments, sizeof arguments);
}

// A new tensor in the memory format of channels_last, as a map [B, C, h, w].
at::Tensor new_map(const at::Tensor &like);

// A gradient in the dtype and format that a kernel reads, at a multiple of 16 bytes.
at::Tensor readable(const at::Tensor &gradient, at::ScalarType dtype, at::MemoryFormat format);

// The kernels have no derivative of their backward.
void refuse_second_derivative(const char *name);
} // namespace ldm
