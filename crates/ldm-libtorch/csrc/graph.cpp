// CUDA graphs: a sequence of kernel launches is recorded once and launched as one.
//
// As torch.cuda.graph: the launches are recorded on a stream of their own, after runs on it which load kernels and allocate
// workspaces, and into a pool of memory of their own. All graphs of a process share that pool: no two run at once, and
// what a graph needs only while it runs may lie where another has the same. The captured threads are this one alone, so
// that others may allocate meanwhile.
#include "late.h"
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/flat_hash_map.h>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

namespace {
constexpr int THREAD_LOCAL = 1; // cudaStreamCaptureModeThreadLocal

// The members of `at::cuda::CUDAGraph` in libtorch 2.11, for their size; a test in src/graph.rs
// compares them with the header.
struct Members {
  void *graph_;
  void *graph_exec_;
  bool has_graph_;
  bool capture_ended_;
  bool has_graph_exec_;
  c10::CaptureId_t capture_id_;
  c10::MempoolId_t mempool_id_;
  c10::Stream capture_stream_; // the only member of a CUDAStream
  ska::flat_hash_map<void *, uint64_t> captured_generator_states_;
  c10::DeviceIndex capture_dev_;
  bool keep_graph_;
};

// The memory of a CUDAGraph, with space behind it that must stay as it is.
constexpr size_t SPACE = 256;
constexpr unsigned char UNTOUCHED = 0xa5;
static_assert(sizeof(Members) == 104 && alignof(Members) <= 16, "the layout of libtorch 2.11");

// One capture at a time, as they share a pool.
std::mutex capturing;

// The stream of all recordings on a device: libraries keep memory for every stream they have worked on.
c10::Stream recording_stream(const c10::impl::VirtualGuardImpl &guard, c10::Device device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::Stream> streams;
  std::lock_guard<std::mutex> lock(mutex);
  auto found = streams.find(device.index());
  if (found == streams.end())
    found = streams.emplace(device.index(), guard.getStreamFromGlobalPool(device)).first;
  return found->second;
}

class Graph {
public:
  explicit Graph(c10::DeviceIndex index)
      : late(ldm::late::graph()), device(at::kCUDA, index), guard(at::kCUDA),
        stream(recording_stream(guard, device)), before(guard.getStream(device)) {
    std::memset(space, UNTOUCHED, sizeof(space));
  }
  Graph(const Graph &) = delete;

  ~Graph() {
    if (lock) { // the work that was to be recorded has failed
      try {
        late.capture_end(space);
      } catch (...) { // because of that failure
      }
    }
    leave();
    if (constructed) late.destroy(space);
  }

  // Makes the device and the stream of recordings current, until `finish` or the destructor.
  void enter() {
    TORCH_CHECK(!current && !constructed, "a new graph");
    current = guard.exchangeDevice(device);
    late.construct(space, /*keep_graph=*/false);
    constructed = true;
    follow(stream, before);
    guard.exchangeStream(stream);
  }

  // Records the next operations of this thread instead of running them.
  void begin() {
    TORCH_CHECK(current && !lock, "a graph that is not recorded yet");
    guard.synchronizeStream(stream);
    // What the runs before left on this stream, no other can use.
    c10::getDeviceAllocator(at::kCUDA)->emptyCache();
    lock.emplace(capturing);
    static const auto pool = late.pool_handle();
    late.capture_begin(space, pool, THREAD_LOCAL);
  }

  // Ends the recording.
  void finish() {
    TORCH_CHECK(lock, "a graph that is being recorded");
    auto held = std::move(*lock);
    lock.reset();
    late.capture_end(space);
    for (auto at = sizeof(Members); at < SPACE; at++)
      TORCH_CHECK(space[at] == UNTOUCHED, "expected a CUDAGraph of ", sizeof(Members), " bytes, as of libtorch 2.11");
    follow(before, stream);
    leave();
  }

  void replay() {
    TORCH_CHECK(constructed && !current, "a recorded graph");
    late.replay(space);
  }

private:
  const ldm::late::Graph &late;
  c10::Device device;
  c10::impl::VirtualGuardImpl guard;
  c10::Stream stream, before;
  std::optional<c10::Device> current; // while the stream of recordings is
  bool constructed = false;
  std::optional<std::unique_lock<std::mutex>> lock; // while operations are recorded
  alignas(16) unsigned char space[SPACE];

  // Makes the former device and stream current.
  void leave() {
    if (!current) return;
    guard.exchangeStream(before);
    guard.setDevice(*current);
    current.reset();
  }

  // Lets a stream wait for the present work of another.
  static void follow(const c10::Stream &waiting, const c10::Stream &other) {
    c10::Event event(at::kCUDA);
    event.record(other);
    event.block(waiting);
  }
};
} // namespace

extern "C" {
int ldm_graph_new(int device, void **out) {
  return ldm::guarded_brief([&] {
    auto graph = std::make_unique<Graph>(static_cast<c10::DeviceIndex>(device));
    graph->enter();
    *out = graph.release();
  });
}

int ldm_graph_begin(void *graph) {
  return ldm::guarded_brief([&] { static_cast<Graph *>(graph)->begin(); });
}

int ldm_graph_finish(void *graph) {
  return ldm::guarded_brief([&] { static_cast<Graph *>(graph)->finish(); });
}

int ldm_graph_replay(void *graph) {
  return ldm::guarded_brief([&] { static_cast<Graph *>(graph)->replay(); });
}

void ldm_graph_free(void *graph) {
  ldm::guarded([&] { delete static_cast<Graph *>(graph); });
}
}
