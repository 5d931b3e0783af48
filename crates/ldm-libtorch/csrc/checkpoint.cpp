// Gradient checkpointing: the forward keeps only its inputs; the backward runs it again.
// Chen et al. 2016. As torch.utils.checkpoint, the random state and the autocast state of the forward are restored
// for the second run (CompVis' own checkpoint function forgets both).
#include "ldm_torch.h"
#include <ATen/Context.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Body : torch::CustomClassHolder {
  ldm_checkpoint_run run;
  ldm_checkpoint_drop drop;
  void *state;
  Body(ldm_checkpoint_run run, ldm_checkpoint_drop drop, void *state) : run(run), drop(drop), state(state) {}
  ~Body() override { drop(state); }

  at::Tensor operator()(std::vector<at::Tensor> &inputs) const {
    std::vector<tensor> pointers;
    for (auto &input : inputs) pointers.push_back(&input);
    tensor out = nullptr;
    if (run(state, pointers.data(), pointers.size(), &out))
      throw std::runtime_error("a checkpointed block failed");
    std::unique_ptr<at::Tensor> owned(out);
    return *owned;
  }
};

// The random and autocast state that a second run must restore.
struct RunState {
  std::vector<at::Generator> generators;
  std::vector<at::Tensor> random_states;
  bool cpu_autocast, cuda_autocast;
  at::ScalarType cpu_dtype, cuda_dtype;

  static RunState capture(at::Device device) {
    RunState out;
    out.generators.push_back(at::detail::getDefaultCPUGenerator());
    if (device.is_cuda()) out.generators.push_back(at::globalContext().defaultGenerator(device));
    for (auto &each : out.generators) {
      std::lock_guard<std::mutex> lock(each.mutex());
      out.random_states.push_back(each.get_state());
    }
    out.cpu_autocast = at::autocast::is_autocast_enabled(at::kCPU);
    out.cuda_autocast = at::autocast::is_autocast_enabled(at::kCUDA);
    out.cpu_dtype = at::autocast::get_autocast_dtype(at::kCPU);
    out.cuda_dtype = at::autocast::get_autocast_dtype(at::kCUDA);
    return out;
  }

  void restore() const {
    for (size_t i = 0; i < generators.size(); i++) {
      auto each = generators[i];
      std::lock_guard<std::mutex> lock(each.mutex());
      each.set_state(random_states[i]);
    }
    at::autocast::set_autocast_enabled(at::kCPU, cpu_autocast);
    at::autocast::set_autocast_enabled(at::kCUDA, cuda_autocast);
    at::autocast::set_autocast_dtype(at::kCPU, cpu_dtype);
    at::autocast::set_autocast_dtype(at::kCUDA, cuda_dtype);
  }
};

struct Call {
  c10::intrusive_ptr<Body> body;
  RunState state;
  size_t input_count;
  std::vector<at::Tensor> params;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  static at::Tensor forward(AutogradContext *context, std::shared_ptr<Call> call, at::TensorList inputs) {
    std::vector<at::Tensor> given(inputs.begin(), inputs.begin() + call->input_count);
    context->save_for_backward(given);
    call_of(context) = call;
    at::AutoGradMode no_grad(false);
    return (*call->body)(given);
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    auto call = call_of(context);
    auto saved = context->get_saved_variables();
    auto now = RunState::capture(saved[0].device());
    variable_list detached;
    for (auto &each : saved) {
      auto copy = each.detach();
      copy.set_requires_grad(each.requires_grad());
      detached.push_back(copy);
    }
    at::Tensor out;
    {
      at::AutoGradMode grad(true);
      call->state.restore();
      // No autocast scope encloses the second run and clears its cache of casts at its end: left, the next step would
      // compute with the weights of this one. Casts left from the first run have no gradient.
      at::autocast::clear_cache();
      out = (*call->body)(detached);
      at::autocast::clear_cache();
      now.restore();
    }
    variable_list wanted;
    for (auto &each : detached)
      if (each.requires_grad()) wanted.push_back(each);
    for (auto &each : call->params) wanted.push_back(each);
    auto found = torch::autograd::grad({out}, wanted, grads, /*retain_graph=*/false, /*create_graph=*/false,
                                       /*allow_unused=*/true);
    variable_list result{at::Tensor()}; // for `call`, which is no tensor
    size_t next = 0;
    for (auto &each : detached) result.push_back(each.requires_grad() ? found[next++] : at::Tensor());
    for (size_t i = 0; i < call->params.size(); i++) result.push_back(found[next++]);
    return result;
  }

  // A context lives as long as its graph node; the call is stored next to the saved tensors as a capsule.
  static std::shared_ptr<Call> &call_of(AutogradContext *context) {
    struct Capsule : torch::CustomClassHolder {
      std::shared_ptr<Call> call;
    };
    auto &slot = context->saved_data["call"];
    if (!slot.isCapsule()) slot = c10::IValue::make_capsule(c10::make_intrusive<Capsule>());
    return static_cast<Capsule *>(slot.toCapsule().get())->call;
  }
};
} // namespace

extern "C" int ldm_checkpoint(ldm_checkpoint_run run, ldm_checkpoint_drop drop, void *state, const tensor *inputs,
                              size_t input_count, const tensor *params, size_t param_count, tensor *out) {
  return ldm::guarded([&] {
    std::unique_ptr<void, ldm_checkpoint_drop> owned(state, drop);
    auto body = c10::make_intrusive<Body>(run, drop, state);
    owned.release();
    auto call = std::make_shared<Call>();
    call->body = body;
    call->input_count = input_count;
    for (size_t i = 0; i < param_count; i++)
      if (params[i]->requires_grad()) call->params.push_back(*params[i]);
    auto all = ldm::list(inputs, input_count);
    call->state = RunState::capture(all.at(0).device());
    for (auto &each : call->params) all.push_back(each);
    *out = new at::Tensor(Checkpoint::apply(call, at::TensorList(all)));
  });
}
