// Group normalization by kernels/group_norm.cu and kernels/group_norm_backward.cu, as an autograd function.
#include "fused.h"
#include <ATen/ops/empty.h>
#include <memory>
#include <torch/csrc/autograd/custom_function.h>

namespace {
using ldm::OptionalTensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr unsigned MERGE_THREADS = 128, SMALL_THREADS = 128;

struct Inputs {
  at::Tensor x, weight, bias;
  OptionalTensor channel_shift, image_shift, scale_shift;
};

struct Call : torch::CustomClassHolder {
  ldm_norm_plan of;
  bool needed[6]; // gradients, in the order of Inputs
};

ldm::Norm norm_of(const Call &call, const Inputs &in, const ldm_tiling &tiling, const at::Tensor &stats) {
  auto batch = in.x.size(0), channels = in.x.size(1), pixels = in.x.size(2) * in.x.size(3);
  ldm::Norm norm{};
  norm.tiling = ldm::tiling_of(tiling, pixels, channels);
  norm.groups = (int)call.of.groups;
  norm.group_channels = (int)(channels / call.of.groups);
  norm.eps = (float)call.of.eps;
  norm.silu = call.of.silu;
  norm.x = in.x.data_ptr();
  norm.channel_shift = ldm::small(in.channel_shift);
  norm.image_shift = ldm::small(in.image_shift);
  norm.weight = ldm::small(in.weight);
  norm.bias = ldm::small(in.bias);
  norm.scale_shift = ldm::small(in.scale_shift);
  norm.mean = stats.data_ptr<float>();
  norm.rstd = norm.mean + batch * call.of.groups;
  return norm;
}

at::Tensor new_floats(const at::Tensor &like, at::IntArrayRef size) {
  return at::empty(size, like.options().dtype(at::kFloat));
}

// Returns y and the mean and 1/deviation of the groups, [2, B, groups].
std::pair<at::Tensor, at::Tensor> forward_of(const Call &call, const Inputs &in) {
  constexpr const char *MODULE = "group_norm";
  const auto &tiling = call.of.forward;
  auto batch = in.x.size(0), channels = in.x.size(1), groups = call.of.groups;
  auto y = ldm::new_map(in.x), stats = new_floats(in.x, {2, batch, groups});
  ldm::NormForward arguments{norm_of(call, in, tiling, stats), y.data_ptr(), nullptr, nullptr};
  auto tiles = [&](const char *base) { return ldm::tiled_launch(MODULE, base, in.x, tiling, batch, channels); };
  if (call.of.slab) {
    ldm::launch(in.x, tiles("group_norm_slab"), arguments);
    return {y, stats};
  }
  auto parts = new_floats(in.x, {2, batch, groups, tiling.parts});
  arguments.part_mean = parts.data_ptr<float>();
  arguments.part_m2 = arguments.part_mean + batch * groups * tiling.parts;
  ldm::launch(in.x, tiles("group_norm_moments"), arguments);
  unsigned shared_bytes = 3 * MERGE_THREADS * sizeof(float);
  ldm::KernelLaunch merge{MODULE, "group_norm_merge", {(unsigned)groups, (unsigned)batch, 1}, MERGE_THREADS, shared_bytes};
  ldm::launch(in.x, merge, arguments);
  auto apply = tiles("group_norm_apply");
  apply.shared_bytes = 4 * tiling.width * sizeof(float); // coefficients
  ldm::launch(in.x, apply, arguments);
  return {y, stats};
}

// Returns the gradients of Inputs; undefined where none is needed.
variable_list backward_of(const Call &call, const Inputs &in, const at::Tensor &stats, const at::Tensor &given) {
  constexpr const char *MODULE = "group_norm_backward";
  const auto &tiling = call.of.backward;
  auto batch = in.x.size(0), channels = in.x.size(1), groups = call.of.groups;
  auto dy = ldm::readable(given, in.x.scalar_type(), at::MemoryFormat::ChannelsLast);
  auto dx = ldm::new_map(in.x);
  auto sums = new_floats(in.x, {3, batch, tiling.parts, channels}), means = new_floats(in.x, {2, batch, groups});
  auto terms = new_floats(in.x, {3, batch, channels});
  OptionalTensor small[] = {
      ldm::new_gradient(in.weight, call.needed[1]),        ldm::new_gradient(in.bias, call.needed[2]),
      ldm::new_gradient(in.channel_shift, call.needed[3]), ldm::new_gradient(in.image_shift, call.needed[4]),
      ldm::new_gradient(in.scale_shift, call.needed[5]),
  };
  ldm::NormBackward arguments{};
  arguments.norm = norm_of(call, in, tiling, stats);
  arguments.dy = dy.data_ptr();
  arguments.dx = dx.data_ptr();
  arguments.sums = sums.data_ptr<float>();
  arguments.means = means.data_ptr<float>();
  arguments.terms = terms.data_ptr<float>();
  arguments.d_weight = ldm::small(small[0]);
  arguments.d_bias = ldm::small(small[1]);
  arguments.d_channel_shift = ldm::small(small[2]);
  arguments.d_image_shift = ldm::small(small[3]);
  arguments.d_scale_shift = ldm::small(small[4]);
  arguments.batch = (int)batch;
  auto tiles = [&](const char *base) { return ldm::tiled_launch(MODULE, base, in.x, tiling, batch, channels); };
  ldm::launch(in.x, tiles("group_norm_sums"), arguments);
  unsigned shared_bytes = 3 * (unsigned)(channels / groups) * sizeof(float);
  ldm::KernelGrid of_groups{(unsigned)groups, (unsigned)batch, 1};
  ldm::launch(in.x, {MODULE, "group_norm_coefficients", of_groups, SMALL_THREADS, shared_bytes}, arguments);
  auto last = tiles("group_norm_dx");
  last.shared_bytes = 6 * tiling.width * sizeof(float); // coefficients
  ldm::launch(in.x, last, arguments);
  if (small[0] || small[1] || small[2]) {
    ldm::KernelGrid of_channels{(unsigned)((channels + SMALL_THREADS - 1) / SMALL_THREADS), 1, 1};
    ldm::launch(in.x, {MODULE, "group_norm_parameters", of_channels, SMALL_THREADS, 0}, arguments);
  }
  variable_list gradients{dx};
  for (auto &each : small) gradients.push_back(each.value_or(at::Tensor()));
  return gradients;
}

struct FusedGroupNorm : torch::autograd::Function<FusedGroupNorm> {
  static at::Tensor forward(AutogradContext *context, c10::intrusive_ptr<Call> call, at::Tensor x, at::Tensor weight,
                            at::Tensor bias, OptionalTensor channel_shift, OptionalTensor image_shift,
                            OptionalTensor scale_shift) {
    Inputs in{x, weight, bias, channel_shift, image_shift, scale_shift};
    auto [y, stats] = forward_of(*call, in);
    auto or_none = [](const OptionalTensor &of) { return of.value_or(at::Tensor()); };
    context->save_for_backward(
        {x, weight, bias, or_none(channel_shift), or_none(image_shift), or_none(scale_shift), stats});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    ldm::refuse_second_derivative("group norm");
    auto saved = context->get_saved_variables();
    auto some = [](const at::Tensor &of) { return of.defined() ? OptionalTensor(of) : std::nullopt; };
    Inputs in{saved[0], saved[1], saved[2], some(saved[3]), some(saved[4]), some(saved[5])};
    auto capsule = context->saved_data["call"].toCapsule();
    auto gradients = backward_of(static_cast<const Call &>(*capsule), in, saved[6], grads[0]);
    gradients.insert(gradients.begin(), at::Tensor()); // for the call, which is no tensor
    return gradients;
  }
};
} // namespace

extern "C" int ldm_fused_group_norm(const ldm_norm_plan *plan, const tensor *tensors, tensor *out) {
  return ldm::guarded([&] {
    auto call = c10::make_intrusive<Call>();
    call->of = *plan;
    for (int i = 0; i < 6; i++) call->needed[i] = tensors[i] && tensors[i]->requires_grad();
    *out = new at::Tensor(FusedGroupNorm::apply(call, *tensors[0], *tensors[1], *tensors[2], ldm::optional(tensors[3]),
                                                ldm::optional(tensors[4]), ldm::optional(tensors[5])));
  });
}
