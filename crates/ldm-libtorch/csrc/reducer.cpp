// Averages gradients over all ranks while the backward pass runs.
//
// A hook on every parameter runs when its gradient is complete. Gradients are views into buckets, which are flat tensors;
// when all gradients of a bucket are ready, its all-reduce starts, overlapping the rest of the backward pass. Buckets start
// in the same order on all ranks: the order of rank 0's gradients in the first pass, which therefore reduces only at its
// end. (Li et al. 2020, "PyTorch Distributed", section 3.2; torch.nn.parallel.DistributedDataParallel.)
//
// Why not c10d::Reducer: it needs its own ProcessGroup wrapper, traverses the graph from the outputs of the forward to
// find unused parameters, and leaves a gradient of zeros where no rank has one, for which AdamW would decay the weight.
#include "ranks.h"
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <mutex>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

namespace {
constexpr size_t FIRST_BUCKET = 1 << 20;

struct Bucket {
  at::Tensor flat; // the gradients, then a flag per parameter: any rank has a gradient
  std::vector<size_t> members;
  std::vector<int64_t> missing; // members without a gradient on this rank
  int64_t flags = 0;            // their offset in `flat`
  size_t waiting = 0;
  ldm::Work work;

  at::Tensor flag(size_t member) const { return flat[flags + static_cast<int64_t>(member)]; }
};

struct Slot {
  size_t bucket = 0, member = 0;
  at::Tensor view;
};

class Reducer : public std::enable_shared_from_this<Reducer> {
public:
  Reducer(ldm::Group group, std::vector<at::Tensor> params, int world, size_t bucket_bytes)
      : group(std::move(group)), params(std::move(params)), world(world), bucket_bytes(bucket_bytes),
        slots(this->params.size()), touched(this->params.size()), ready(this->params.size()) {}

  void hook();
  void unhook();
  void clear();
  void arm();
  void on_gradient(size_t index);
  std::pair<int64_t, int64_t> finish();

private:
  ldm::Group group;
  std::vector<at::Tensor> params;
  int world;
  size_t bucket_bytes;
  std::vector<Bucket> buckets;
  std::vector<Slot> slots;
  std::vector<char> touched; // by any backward pass since `clear`
  std::vector<char> ready;   // touched by the armed backward pass
  std::vector<int64_t> order; // of the first pass
  size_t started = 0;
  bool armed = false;
  std::exception_ptr failure;
  std::mutex mutex; // the hooks run on autograd's thread

  void build();
  void move_to_bucket(size_t index);
  void start_ready();
  void start(Bucket &bucket);
  void take_from_others();
};

struct Hook : torch::autograd::PostAccumulateGradHook {
  std::shared_ptr<Reducer> reducer;
  size_t index;
  Hook(std::shared_ptr<Reducer> reducer, size_t index) : reducer(std::move(reducer)), index(index) {}
  void operator()(const at::Tensor &) override { reducer->on_gradient(index); }
};

void Reducer::hook() {
  for (size_t i = 0; i < params.size(); i++)
    torch::autograd::impl::set_post_acc_grad_hooks(params[i], std::make_unique<Hook>(shared_from_this(), i));
}

void Reducer::unhook() {
  for (auto &param : params) torch::autograd::impl::set_post_acc_grad_hooks(param, nullptr);
}

// One pass over the buckets instead of one over each gradient. Backward then adds to them in place, so that gradients
// accumulated over several passes take no memory of their own.
void Reducer::clear() {
  std::lock_guard<std::mutex> lock(mutex);
  at::NoGradGuard no_grad;
  std::fill(touched.begin(), touched.end(), 0);
  std::vector<at::Tensor> flats;
  for (auto &bucket : buckets) flats.push_back(bucket.flat);
  if (!flats.empty()) at::_foreach_zero_(flats);
  for (size_t i = 0; i < params.size(); i++) params[i].mutable_grad() = flats.empty() ? at::Tensor() : slots[i].view;
}

void Reducer::arm() {
  std::lock_guard<std::mutex> lock(mutex);
  armed = true;
  started = 0;
  failure = nullptr;
  std::fill(ready.begin(), ready.end(), 0);
  for (auto &bucket : buckets) {
    bucket.waiting = bucket.members.size();
    bucket.missing.clear();
  }
}

void Reducer::on_gradient(size_t index) {
  std::lock_guard<std::mutex> lock(mutex);
  touched[index] = 1;
  if (!armed || failure || ready[index]) return;
  at::NoGradGuard no_grad;
  ready[index] = 1;
  if (buckets.empty()) {
    order.push_back(static_cast<int64_t>(index));
    return;
  }
  // An exception here would leave backward in the middle of the graph; finish() reports it instead.
  try {
    move_to_bucket(index);
    buckets[slots[index].bucket].waiting--;
    start_ready();
  } catch (...) {
    failure = std::current_exception();
  }
}

// Broadcasts the order, and allocates the buckets.
void Reducer::build() {
  for (size_t i = params.size(); i-- > 0;)
    if (!ready[i]) order.push_back(static_cast<int64_t>(i));
  auto agreed = at::from_blob(order.data(), {static_cast<int64_t>(order.size())}, at::kLong).clone();
  std::vector<at::Tensor> list{agreed};
  group.cpu->broadcast(list)->wait();
  auto options = params.at(0).options().requires_grad(false);
  auto close = [&](std::vector<size_t> &members, int64_t numel) {
    Bucket bucket;
    bucket.flags = numel;
    bucket.flat = at::zeros({numel + static_cast<int64_t>(members.size())}, options);
    bucket.waiting = members.size();
    bucket.members = std::move(members);
    members.clear();
    buckets.push_back(std::move(bucket));
  };
  std::vector<size_t> members;
  int64_t numel = 0;
  for (int64_t i = 0; i < agreed.numel(); i++) {
    auto index = static_cast<size_t>(agreed.const_data_ptr<int64_t>()[i]);
    auto &param = params.at(index);
    TORCH_CHECK(param.scalar_type() == params[0].scalar_type() && param.device() == params[0].device(),
                "parameters of one dtype on one device");
    auto bytes = static_cast<size_t>(numel + param.numel()) * param.element_size();
    // The first is small, so that communication starts early.
    if (numel > 0 && bytes > (buckets.empty() ? std::min(bucket_bytes, FIRST_BUCKET) : bucket_bytes)) {
      close(members, numel);
      numel = 0;
    }
    members.push_back(index);
    numel += param.numel();
  }
  close(members, numel);
  // Plain tensors over the buckets' memory: autograd views could not be detached in place.
  at::AutoDispatchBelowADInplaceOrView plain;
  for (size_t b = 0; b < buckets.size(); b++) {
    int64_t offset = 0;
    for (size_t m = 0; m < buckets[b].members.size(); m++) {
      auto index = buckets[b].members[m];
      auto &param = params[index];
      // With the parameter's own strides, channels_last included.
      auto view = param.is_non_overlapping_and_dense()
                      ? buckets[b].flat.as_strided(param.sizes(), param.strides(), offset)
                      : buckets[b].flat.narrow(0, offset, param.numel()).view(param.sizes());
      slots[index] = {b, m, view};
      offset += param.numel();
    }
  }
}

// Moves a gradient into its bucket, where it stays.
void Reducer::move_to_bucket(size_t index) {
  auto &slot = slots[index];
  auto &grad = params[index].mutable_grad();
  auto moved = grad.defined() && grad.is_alias_of(slot.view);
  // A moved gradient that no pass has touched since `clear` is zeros.
  auto has = grad.defined() && (touched[index] || !moved);
  if (has && !moved) {
    slot.view.copy_(grad);
    grad = slot.view;
  }
  if (has) return;
  if (!moved) slot.view.zero_();
  buckets[slot.bucket].missing.push_back(static_cast<int64_t>(slot.member));
}

void Reducer::start_ready() {
  while (started < buckets.size() && buckets[started].waiting == 0) start(buckets[started++]);
}

void Reducer::start(Bucket &bucket) {
  bucket.flat.narrow(0, bucket.flags, static_cast<int64_t>(bucket.members.size())).fill_(1);
  for (auto member : bucket.missing) bucket.flag(static_cast<size_t>(member)).zero_();
  c10d::AllreduceOptions options;
  if (bucket.flat.is_cpu()) {
    bucket.flat.div_(world); // gloo has no mean
  } else {
    options.reduceOp = c10d::ReduceOp::AVG;
  }
  std::vector<at::Tensor> list{bucket.flat};
  bucket.work = group.of(bucket.flat).allreduce(list, options);
}

// A parameter without a gradient on this rank gets the mean if another rank has one, else none. The only
// synchronization with the device, one for all such parameters, and only if there are any.
void Reducer::take_from_others() {
  std::vector<at::Tensor> flags;
  for (auto &bucket : buckets)
    for (auto member : bucket.missing) flags.push_back(bucket.flag(static_cast<size_t>(member)));
  if (flags.empty()) return;
  auto found = at::stack(flags).to(at::kCPU, at::kDouble);
  auto *flag = found.const_data_ptr<double>();
  for (auto &bucket : buckets)
    for (auto member : bucket.missing) {
      auto index = bucket.members[static_cast<size_t>(member)];
      params[index].mutable_grad() = *flag++ > 0 ? slots[index].view : at::Tensor();
    }
}

std::pair<int64_t, int64_t> Reducer::finish() {
  std::lock_guard<std::mutex> lock(mutex);
  at::NoGradGuard no_grad;
  armed = false;
  auto overlapped = static_cast<int64_t>(started);
  try {
    if (failure) std::rethrow_exception(failure);
    if (buckets.empty()) {
      build();
      for (size_t i = 0; i < params.size(); i++) move_to_bucket(i);
    } else {
      for (size_t i = 0; i < params.size(); i++)
        if (!ready[i]) move_to_bucket(i);
    }
    while (started < buckets.size()) start(buckets[started++]);
  } catch (...) {
    failure = std::current_exception();
  }
  // Also after a failure: operations in progress still write to the buckets.
  for (auto &bucket : buckets) {
    if (!bucket.work) continue;
    try {
      bucket.work->wait();
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
    bucket.work.reset();
  }
  if (failure) std::rethrow_exception(failure);
  take_from_others();
  return {overlapped, static_cast<int64_t>(buckets.size())};
}
} // namespace

extern "C" {
int ldm_reducer_new(void *group, const tensor *params, size_t count, int world, size_t bucket_bytes, void **out) {
  return ldm::guarded_brief([&] {
    auto reducer = std::make_shared<Reducer>(*static_cast<ldm::Group *>(group), ldm::list(params, count), world,
                                             bucket_bytes);
    reducer->hook();
    *out = new std::shared_ptr<Reducer>(std::move(reducer));
  });
}

void ldm_reducer_free(void *reducer) {
  std::unique_ptr<std::shared_ptr<Reducer>> owned(static_cast<std::shared_ptr<Reducer> *>(reducer));
  ldm::guarded([&] { (*owned)->unhook(); });
}

int ldm_reducer_clear(void *reducer) {
  return ldm::guarded_brief([&] { (*static_cast<std::shared_ptr<Reducer> *>(reducer))->clear(); });
}

int ldm_reducer_arm(void *reducer) {
  return ldm::guarded_brief([&] { (*static_cast<std::shared_ptr<Reducer> *>(reducer))->arm(); });
}

int ldm_reducer_finish(void *reducer, int64_t *overlapped, int64_t *buckets) {
  return ldm::guarded_brief([&] {
    std::tie(*overlapped, *buckets) = (*static_cast<std::shared_ptr<Reducer> *>(reducer))->finish();
  });
}
}
