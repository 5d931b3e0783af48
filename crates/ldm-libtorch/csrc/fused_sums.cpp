// Sums after a convolution by kernels/bias_add.cu, and GEGLU by kernels/geglu.cu, as autograd functions.
#include "fused.h"
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {
using ldm::OptionalTensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FusedBiasAdd : torch::autograd::Function<FusedBiasAdd> {
  static at::Tensor forward(AutogradContext *context, ldm_tiling tiling, at::Tensor x, OptionalTensor channel_bias,
                            OptionalTensor image_bias, OptionalTensor residual) {
    auto batch = x.size(0), channels = x.size(1), pixels = x.size(2) * x.size(3);
    auto y = ldm::new_map(x);
    ldm::BiasAdd arguments{};
    arguments.tiling = ldm::tiling_of(tiling, pixels, channels);
    arguments.x = x.data_ptr();
    arguments.channel_bias = ldm::small(channel_bias);
    arguments.image_bias = ldm::small(image_bias);
    arguments.residual = residual ? residual->data_ptr() : nullptr;
    arguments.y = y.data_ptr();
    ldm::launch(x, ldm::tiled_launch("bias_add", "bias_add", x, tiling, batch, channels), arguments);
    // -1: no such input.
    auto dtype = [](const OptionalTensor &of) { return of ? (int64_t)of->scalar_type() : -1; };
    context->saved_data["dtypes"] = std::vector<int64_t>{dtype(channel_bias), dtype(image_bias), dtype(residual)};
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    auto &dy = grads[0];
    auto dtypes = context->saved_data["dtypes"].toIntVector();
    auto sum = [&](int64_t dtype, at::IntArrayRef axes) {
      return dtype < 0 ? at::Tensor() : dy.sum(axes, /*keepdim=*/false, (at::ScalarType)dtype);
    };
    return {at::Tensor(), dy, sum(dtypes[0], {0, 2, 3}), sum(dtypes[1], {2, 3}), dtypes[2] < 0 ? at::Tensor() : dy};
  }
};

void launch_geglu(const char *base, const at::Tensor &x, const at::Tensor *dy, at::Tensor &y, const ldm_tiling &tiling) {
  auto channels = x.size(-1) / 2;
  ldm::Geglu arguments{};
  arguments.tiling = ldm::tiling_of(tiling, x.numel() / x.size(-1), channels);
  arguments.x = x.data_ptr();
  arguments.dy = dy ? dy->data_ptr() : nullptr;
  arguments.y = y.data_ptr();
  ldm::launch(x, ldm::tiled_launch("geglu", base, x, tiling, /*batch=*/1, channels), arguments);
}

struct FusedGeglu : torch::autograd::Function<FusedGeglu> {
  static at::Tensor forward(AutogradContext *context, ldm_tiling tiling, at::Tensor x) {
    auto size = x.sizes().vec();
    size.back() /= 2;
    auto y = at::empty(size, x.options());
    launch_geglu("geglu", x, nullptr, y, tiling);
    context->save_for_backward({x});
    context->saved_data["tiling"] = std::string(reinterpret_cast<const char *>(&tiling), sizeof tiling);
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    ldm::refuse_second_derivative("GEGLU");
    auto x = context->get_saved_variables()[0];
    ldm_tiling tiling;
    auto bytes = context->saved_data["tiling"].toStringRef();
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char *>(&tiling));
    auto dy = ldm::readable(grads[0], x.scalar_type(), at::MemoryFormat::Contiguous);
    auto dx = at::empty(x.sizes(), x.options());
    launch_geglu("geglu_backward", x, &dy, dx, tiling);
    return {at::Tensor(), dx};
  }
};
} // namespace

extern "C" {
int ldm_fused_bias_add(const ldm_tiling *tiling, tensor x, tensor channel_bias, tensor image_bias, tensor residual,
                       tensor *out) {
  return ldm::guarded([&] {
    *out = new at::Tensor(FusedBiasAdd::apply(*tiling, *x, ldm::optional(channel_bias), ldm::optional(image_bias),
                                              ldm::optional(residual)));
  });
}

int ldm_fused_geglu(const ldm_tiling *tiling, tensor x, tensor *out) {
  return ldm::guarded([&] { *out = new at::Tensor(FusedGeglu::apply(*tiling, *x)); });
}
}
