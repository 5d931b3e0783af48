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
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <mutex>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

namespace {
constexpr size_t FIRST_BUCKET = 1 << 20;

struct Bucket {
  at::Tensor flat; // the gradients, then a flag per parameter: any rank has a gradient
  std::vector<size_t> members;
  int64_t flags = 0; // their offset in `flat`
  size_t waiting = 0;
  ldm::Work work;
};

struct Slot {
  size_t bucket = 0, member = 0;
  at::Tensor view;
};

class Reducer : public std::enable_shared_from_this<Reducer> {
public:
  Reducer(ldm::Group group, std::vector<at::Tensor> params, int world, size_t bucket_bytes)
      : group(std::move(group)), params(std::move(params)), world(world), bucket_bytes(bucket_bytes),
        slots(this->params.size()), ready(this->params.size()) {}

  void hook();
  void unhook();
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
  std::vector<char> ready;
  std::vector<int64_t> order; // of the first pass
  size_t started = 0;
  bool armed = false;
  std::exception_ptr failure;
  std::mutex mutex; // the hooks run on autograd's thread

  void build();
  void move_to_bucket(size_t index);
  void start_ready();
  void start(Bucket &bucket);
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

void Reducer::arm() {
  std::lock_guard<std::mutex> lock(mutex);
  armed = true;
  started = 0;
  failure = nullptr;
  std::fill(ready.begin(), ready.end(), 0);
  for (auto &bucket : buckets) bucket.waiting = bucket.members.size();
}

void Reducer::on_gradient(size_t index) {
  std::lock_guard<std::mutex> lock(mutex);
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
  auto &bucket = buckets[slot.bucket];
  auto &grad = params[index].mutable_grad();
  auto has = grad.defined();
  if (!has) {
    slot.view.zero_();
  } else if (!grad.is_alias_of(slot.view)) {
    slot.view.copy_(grad);
    grad = slot.view;
  }
  bucket.flat.narrow(0, bucket.flags + static_cast<int64_t>(slot.member), 1).fill_(has ? 1 : 0);
}

void Reducer::start_ready() {
  while (started < buckets.size() && buckets[started].waiting == 0) start(buckets[started++]);
}

void Reducer::start(Bucket &bucket) {
  bucket.flat.div_(world);
  std::vector<at::Tensor> list{bucket.flat};
  bucket.work = group.of(bucket.flat).allreduce(list);
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
  for (size_t i = 0; i < params.size(); i++) {
    auto &grad = params[i].mutable_grad();
    if (grad.defined()) continue;
    auto &slot = slots[i];
    auto &bucket = buckets[slot.bucket];
    // Another rank has one: the mean is this rank's too. The only synchronization, and only here.
    if (bucket.flat[bucket.flags + static_cast<int64_t>(slot.member)].item<double>() > 0) grad = slot.view;
  }
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

int ldm_reducer_arm(void *reducer) {
  return ldm::guarded_brief([&] { (*static_cast<std::shared_ptr<Reducer> *>(reducer))->arm(); });
}

int ldm_reducer_finish(void *reducer, int64_t *overlapped, int64_t *buckets) {
  return ldm::guarded_brief([&] {
    std::tie(*overlapped, *buckets) = (*static_cast<std::shared_ptr<Reducer> *>(reducer))->finish();
  });
}
}
