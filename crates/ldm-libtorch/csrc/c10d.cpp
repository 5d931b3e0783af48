// Process groups of libtorch's c10d, with the headers and symbols of the installed libtorch; gloo/names.h explains why
// gloo's headers are not needed.
#include <torch/version.h>
// Another libtorch may declare other functions of gloo's classes, which would link and then crash.
#if TORCH_VERSION_MAJOR != 2 || TORCH_VERSION_MINOR != 11
#error "gloo/names.h is for libtorch 2.11"
#endif
#define USE_C10D_GLOO
#include "ranks.h"
#include <algorithm>
#include <memory>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

c10d::Backend &ldm::Group::of(const at::Tensor &value) const {
  if (value.is_cpu()) return *cpu;
  TORCH_CHECK(gpu, "expected a tensor on the CPU: the process group has no GPU backend");
  return *gpu;
}

namespace {
// NCCL's timeout ends the process from a thread of its own. A dead rank is seen sooner on the CPU's backend; a slow one
// reads its first batch, or plans its first kernels.
constexpr std::chrono::minutes NCCL_TIMEOUT(10);

ldm::Work *to_heap(ldm::Work work) { return new ldm::Work(std::move(work)); }
} // namespace

extern "C" {
int ldm_group_connect(const char *host, int port, int serve, int listen_fd, int rank, int world, int with_nccl,
                      double seconds, void **out) {
  return ldm::guarded_brief([&] {
    auto timeout = std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(port);
    options.isServer = serve != 0;
    options.waitWorkers = false;
    if (serve && listen_fd >= 0) options.masterListenFd = listen_fd;
    options.timeout = timeout;
    auto store = c10::make_intrusive<c10d::PrefixStore>("ldm", c10::make_intrusive<c10d::TCPStore>(host, options));
    auto group = std::make_unique<ldm::Group>();
    group->store = store;
    auto gloo = c10d::ProcessGroupGloo::Options::create(timeout);
    // The network interface, chosen as in torch.distributed: by this machine's name, else loopback.
    const char *interface = std::getenv("GLOO_SOCKET_IFNAME");
    gloo->devices.push_back(interface && *interface ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                            : std::string(host) == "127.0.0.1" || std::string(host) == "localhost"
                                ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                                : c10d::ProcessGroupGloo::createDefaultDevice());
    group->cpu = c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>("gloo", store), rank, world, gloo);
    if (with_nccl)
      group->gpu = ldm::nccl(c10::make_intrusive<c10d::PrefixStore>("nccl", store), rank, world,
                             std::max<std::chrono::milliseconds>(timeout, NCCL_TIMEOUT));
    *out = group.release();
  });
}

void ldm_group_free(void *group) {
  std::unique_ptr<ldm::Group> owned(static_cast<ldm::Group *>(group));
  // Without it NCCL's backend warns that nobody has ended it. A failure was reported by an operation before.
  ldm::guarded([&] {
    if (owned->gpu) owned->gpu->shutdown();
  });
}

int ldm_group_all_reduce(void *group, tensor value, int operation, void **work) {
  return ldm::guarded_brief([&] {
    c10d::AllreduceOptions options;
    options.reduceOp = operation == 0 ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
    std::vector<at::Tensor> values{*value};
    *work = to_heap(static_cast<ldm::Group *>(group)->of(*value).allreduce(values, options));
  });
}

int ldm_group_broadcast(void *group, tensor value, int from, void **work) {
  return ldm::guarded_brief([&] {
    c10d::BroadcastOptions options;
    options.rootRank = from;
    std::vector<at::Tensor> values{*value};
    *work = to_heap(static_cast<ldm::Group *>(group)->of(*value).broadcast(values, options));
  });
}

int ldm_work_wait(void *work) {
  std::unique_ptr<ldm::Work> owned(static_cast<ldm::Work *>(work));
  return ldm::guarded_brief([&] { (*owned)->wait(); });
}

int ldm_group_count(void *group, const char *key, int64_t add, int64_t *now) {
  return ldm::guarded_brief([&] { *now = static_cast<ldm::Group *>(group)->store->add(key, add); });
}
}
