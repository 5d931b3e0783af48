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
  TORCH_CHECK(!closed, "the process group is closed");
  if (value.is_cpu()) return *cpu;
  TORCH_CHECK(gpu, "expected a tensor on the CPU: the process group has no GPU backend");
  return *gpu;
}

namespace {
ldm::Work *to_heap(ldm::Work work) { return new ldm::Work(std::move(work)); }

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}
} // namespace

extern "C" {
int ldm_group_connect(const char *host, int port, int serve, int listen_fd, int rank, int world, double seconds,
                      double nccl_seconds, void **out) {
  return ldm::guarded_brief([&] {
    auto timeout = milliseconds(seconds);
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
    if (nccl_seconds > 0)
      group->gpu = ldm::nccl(c10::make_intrusive<c10d::PrefixStore>("nccl", store), rank, world,
                             milliseconds(nccl_seconds));
    *out = group.release();
  });
}

int ldm_group_close(void *group) {
  return ldm::guarded_brief([&] {
    auto &closing = *static_cast<ldm::Group *>(group);
    if (closing.closed) return;
    closing.closed = true;
    // Without it NCCL's destructor warns and aborts the communicators.
    if (closing.gpu) closing.gpu->shutdown();
  });
}

void ldm_group_free(void *group) {
  std::unique_ptr<ldm::Group> owned(static_cast<ldm::Group *>(group));
  ldm_group_close(group); // a failure was reported by an operation before
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
