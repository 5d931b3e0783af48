// An observer of libtorch's dispatcher: every operation that a thread calls, and those of its backward passes.

// at::RecordFunction has an extra member without NDEBUG, and libtorch was built with NDEBUG.
#ifndef NDEBUG
#define NDEBUG
#endif
#include "ldm_torch.h"
#include <ATen/core/List.h>
#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace {
using Clock = std::chrono::steady_clock;

struct Sum {
  int64_t calls = 0, flop = 0, bytes = 0;
  double seconds = 0;
};

std::mutex lock;
std::map<std::string, Sum> sums;
std::optional<at::CallbackHandle> observer;
// Operations call operations: the depth of this thread, and the operations counted inside the outermost one.
thread_local int depth = 0;
thread_local int64_t computed = 0;
thread_local bool counting = false;

struct Call : at::ObserverContext {
  bool outermost = false, mutates = false;
  int64_t flop = 0; // from the inputs; of a convolution, per output value
  bool per_output = false;
  int64_t read = 0, written = 0;
  std::vector<const void *> storages;
  Clock::time_point start;
};

int64_t product(at::IntArrayRef sizes, size_t from = 0) {
  int64_t all = 1;
  for (size_t i = from; i < sizes.size(); i++) all *= sizes[i];
  return all;
}

template <typename F> void each_tensor(const c10::IValue &value, F visit) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) visit(value.toTensor());
  } else if (value.isList()) {
    for (const auto &item : value.toListRef()) each_tensor(item, visit);
  }
}

const void *storage(const at::Tensor &tensor) {
  return tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
}

// An expanded tensor has more elements than memory.
int64_t bytes(const at::Tensor &tensor) {
  int64_t all = tensor.numel() * static_cast<int64_t>(tensor.element_size());
  return tensor.has_storage() ? std::min<int64_t>(all, tensor.storage().nbytes()) : all;
}

bool starts_with(std::string_view text, std::string_view head) { return text.substr(0, head.size()) == head; }
bool ends_with(std::string_view text, std::string_view tail) {
  return text.size() >= tail.size() && text.substr(text.size() - tail.size()) == tail;
}

// 2·m·n·k of `[…, m, k]` by `[…, k, n]`.
int64_t matrix_product(const c10::IValue &a, const c10::IValue &b) {
  return 2 * a.toTensor().numel() * b.toTensor().sizes().back();
}

// Two products of queries, keys and values, `[…, L, d]`, `[…, S, d]`, `[…, S, e]`.
int64_t attention(const c10::IValue &query, const c10::IValue &key, const c10::IValue &value) {
  auto q = query.toTensor().sizes(), k = key.toTensor().sizes(), v = value.toTensor().sizes();
  return 2 * product(q.slice(0, q.size() - 1)) * k[k.size() - 2] * (q.back() + v.back());
}

// Multiplications and additions of convolutions, matrix products and attention, as torch.utils.flop_counter counts them
// (a multiplication with its addition is two); everything else is memory traffic.
void count_flop(std::string_view name, c10::ArrayRef<const c10::IValue> in, Call &call) {
  if (name == "aten::mm" || name == "aten::bmm") {
    call.flop = matrix_product(in[0], in[1]);
  } else if (name == "aten::addmm" || name == "aten::baddbmm") {
    call.flop = matrix_product(in[1], in[2]);
  } else if (name == "aten::convolution") {
    // A weight is `[out, in / groups, …]`, transposed `[in, out / groups, …]`, where each input value is multiplied with
    // a whole row.
    auto &weight = in[1].toTensor();
    call.flop = 2 * product(weight.sizes(), 1);
    if (in[6].toBool()) call.flop *= in[0].toTensor().numel();
    else call.per_output = true;
  } else if (name == "aten::convolution_backward") {
    auto &of = in[7].toBool() ? in[1].toTensor() : in[0].toTensor();
    auto wanted = in[10].toBoolList();
    call.flop = 2 * of.numel() * product(in[2].toTensor().sizes(), 1) * (int64_t(wanted[0]) + int64_t(wanted[1]));
  } else if (starts_with(name, "aten::_scaled_dot_product_") && name != "aten::_scaled_dot_product_attention_math") {
    // The backward recomputes the first product, and four more.
    if (ends_with(name, "_backward")) call.flop = attention(in[1], in[2], in[3]) / 2 * 5;
    else call.flop = attention(in[0], in[1], in[2]);
  }
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction &function) {
  // A node of the backward pass is not an operation, but calls some.
  if (starts_with(function.name(), "autograd::")) return nullptr;
  auto call = std::make_unique<Call>();
  call->outermost = depth == 0;
  auto inputs = function.inputs();
  count_flop(function.name(), inputs, *call);
  if (call->outermost) {
    computed = 0;
    for (const auto &input : inputs)
      each_tensor(input, [&](const at::Tensor &tensor) {
        call->read += bytes(tensor);
        call->storages.push_back(storage(tensor));
      });
    if (auto schema = function.operator_schema(); schema && schema->is_mutable()) {
      call->mutates = true;
      for (size_t i = 0; i < inputs.size() && i < schema->arguments().size(); i++)
        if (auto alias = schema->arguments()[i].alias_info(); alias && alias->isWrite())
          each_tensor(inputs[i], [&](const at::Tensor &tensor) { call->written += bytes(tensor); });
    }
    call->start = Clock::now();
  }
  depth++; // last: `end` does not undo it if anything before throws
  return call;
}

void end(const at::RecordFunction &function, at::ObserverContext *context) {
  auto stop = Clock::now();
  if (!context) return; // not counted, or `begin` threw
  auto &call = *static_cast<Call *>(context);
  depth--;
  const auto &outputs = function.outputs();
  if (call.per_output && !outputs.empty() && outputs[0].isTensor()) call.flop *= outputs[0].toTensor().numel();
  computed += call.flop;
  if (!call.outermost) return;
  std::string_view name = function.name();
  // A view moves nothing, and allocation alone does not write.
  bool writes = call.mutates;
  if (!call.mutates && name.find("empty") == std::string_view::npos)
    for (const auto &output : outputs)
      each_tensor(output, [&](const at::Tensor &tensor) {
        if (std::find(call.storages.begin(), call.storages.end(), storage(tensor)) != call.storages.end()) return;
        writes = true;
        call.written += bytes(tensor);
      });
  std::lock_guard<std::mutex> guard(lock);
  auto &sum = sums[std::string(name)];
  sum.calls++;
  sum.flop += computed;
  sum.bytes += writes ? call.read + call.written : 0;
  sum.seconds += std::chrono::duration<double>(stop - call.start).count();
}
} // namespace

extern "C" {
int ldm_operations_start() {
  return ldm::guarded([&] {
    {
      std::lock_guard<std::mutex> guard(lock);
      sums.clear();
    }
    observer = at::addThreadLocalCallback(at::RecordFunctionCallback(begin, end)
                                              .needsInputs(true)
                                              .needsOutputs(true)
                                              .scopes({at::RecordScope::FUNCTION}));
    counting = true;
  });
}

int ldm_operations_stop(ldm_operations_report report, void *state) {
  return ldm::guarded([&] {
    if (observer) at::removeCallback(*observer);
    observer.reset();
    counting = false;
    std::lock_guard<std::mutex> guard(lock);
    for (const auto &[name, sum] : sums) report(state, name.c_str(), sum.calls, sum.flop, sum.bytes, sum.seconds);
    sums.clear();
  });
}

int ldm_operations_counting() { return counting; }

int ldm_operations_add(const char *name, int64_t flop, int64_t bytes, double seconds) {
  return ldm::guarded([&] {
    std::lock_guard<std::mutex> guard(lock);
    auto &sum = sums[name];
    sum.calls++;
    sum.flop += flop;
    sum.bytes += bytes;
    sum.seconds += seconds;
  });
}
}
