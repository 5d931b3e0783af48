#include "ldm_torch.h"
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

extern "C" {
int ldm_fused_adamw(const tensor *const *lists, size_t count, const double *numbers, tensor found_inf) {
  return ldm::guarded([&] {
    at::NoGradGuard no_grad;
    auto steps = ldm::list(lists[4], count);
    std::optional<at::Tensor> skip;
    if (found_inf) skip = *found_inf;
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(ldm::list(lists[0], count), ldm::list(lists[1], count), ldm::list(lists[2], count),
                      ldm::list(lists[3], count), /*max_exp_avg_sqs=*/{}, steps, numbers[0], numbers[1], numbers[2],
                      numbers[3], numbers[4], /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, skip);
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

int ldm_foreach_scale(const tensor *tensors, size_t count, tensor factor) {
  return ldm::guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_mul_(ldm::list(tensors, count), *factor);
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
}
