#include "ldm_torch.h"
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

extern "C" {
int ldm_fused_adamw(const tensor *params, const tensor *grads, const tensor *exp_avgs, const tensor *exp_avg_sqs,
                    const tensor *steps, size_t count, double lr, double beta1, double beta2, double weight_decay,
                    double eps) {
  return ldm::guarded([&] {
    at::NoGradGuard no_grad;
    auto step_list = ldm::list(steps, count);
    at::_foreach_add_(step_list, 1);
    at::_fused_adamw_(ldm::list(params, count), ldm::list(grads, count), ldm::list(exp_avgs, count),
                      ldm::list(exp_avg_sqs, count), /*max_exp_avg_sqs=*/{}, step_list, lr, beta1, beta2,
                      weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
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
