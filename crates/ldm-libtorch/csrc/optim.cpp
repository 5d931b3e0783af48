#include "ldm_torch.h"
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

namespace {
// Whether both have their elements in the same order in memory; strides of dimensions of one element do not matter.
bool same_order(const at::Tensor &a, const at::Tensor &b) {
  if (!a.sizes().equals(b.sizes())) return false;
  for (int64_t dim = 0; dim < a.dim(); dim++)
    if (a.size(dim) > 1 && a.stride(dim) != b.stride(dim)) return false;
  return true;
}
} // namespace

extern "C" {
int ldm_fused_adamw(const tensor *const *lists, size_t count, const double *numbers, tensor grad_scale,
                    tensor found_inf) {
  return ldm::guarded([&] {
    at::NoGradGuard no_grad;
    auto steps = ldm::list(lists[4], count);
    // The kernel of the CPU reads memory in its order, whatever the strides.
    for (size_t list = 1; list < 4; list++)
      for (size_t i = 0; i < count; i++)
        TORCH_CHECK(same_order(*lists[0][i], *lists[list][i]), "expected a gradient and a state with the shape and the ",
                    "memory format of their parameter, ", lists[0][i]->sizes());
    std::optional<at::Tensor> scale, skip;
    if (grad_scale) scale = *grad_scale;
    if (found_inf) skip = *found_inf;
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(ldm::list(lists[0], count), ldm::list(lists[1], count), ldm::list(lists[2], count),
                      ldm::list(lists[3], count), /*max_exp_avg_sqs=*/{}, steps, numbers[0], numbers[1], numbers[2],
                      numbers[3], numbers[4], /*amsgrad=*/false, /*maximize=*/false, scale, skip);
    // A skipped step is not counted, as in torch.optim's adamw, without synchronization.
    if (skip) at::_foreach_sub_(steps, std::vector<at::Tensor>(count, *skip));
  });
}

int ldm_foreach_lerp(const tensor *targets, const tensor *sources, size_t count, double weight) {
  return ldm::guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_lerp_(ldm::list(targets, count), ldm::list(sources, count), weight);
  });
}

int ldm_total_norm(const tensor *tensors, size_t count, tensor *out) {
  return ldm::guarded([&] {
    at::NoGradGuard no_grad;
    auto norms = at::_foreach_norm(ldm::list(tensors, count), 2, at::kFloat);
    *out = new at::Tensor(at::linalg_vector_norm(at::stack(norms)));
  });
}

int ldm_grad(const tensor *tensors, size_t outputs, size_t inputs, int create_graph, tensor *grads) {
  return ldm::guarded([&] {
    auto found = torch::autograd::grad(ldm::list(tensors, outputs), ldm::list(tensors + outputs, inputs), {},
                                       /*retain_graph=*/true, create_graph != 0, /*allow_unused=*/false);
    for (size_t i = 0; i < inputs; i++) grads[i] = new at::Tensor(found[i]);
  });
}

int ldm_forget_gradients(const tensor *params, size_t count) {
  return ldm::guarded([&] {
    for (size_t i = 0; i < count; i++)
      if (params[i]->grad().defined()) params[i]->mutable_grad() = at::Tensor();
  });
}
}
