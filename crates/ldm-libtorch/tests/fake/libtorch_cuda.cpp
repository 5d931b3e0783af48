// A libtorch_cuda.so without CUDA for tests/it/cuda_graph.rs, loaded before libtorch: one device with streams, and a CUDAGraph,
// which write what is asked of them to the file LDM_FAKE_LOG.
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace {
void say(const std::string &line) {
  static FILE *log = std::fopen(std::getenv("LDM_FAKE_LOG"), "a");
  std::fprintf(log, "%s\n", line.c_str());
  std::fflush(log);
}

// Throws in the call that LDM_FAKE_FAILURE names.
void call(const std::string &name) {
  say(name);
  const char *failing = std::getenv("LDM_FAKE_FAILURE");
  if (failing && name == failing) throw std::runtime_error("failed: " + name);
}

c10::Device current(c10::kCUDA, 1);
c10::StreamId stream = 0;

std::string named(const c10::Stream &stream) { return "stream " + std::to_string(stream.id()); }

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device getDevice() const override { return current; }
  c10::Device exchangeDevice(c10::Device device) const override {
    auto before = current;
    setDevice(device);
    return before;
  }
  void setDevice(c10::Device device) const override {
    call("device " + std::to_string(device.index()));
    current = device;
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = device; }
  c10::DeviceIndex deviceCount() const noexcept override { return 2; }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, device, stream);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    static c10::StreamId next = 7;
    return c10::Stream(c10::Stream::UNSAFE, device, next++);
  }
  c10::Stream exchangeStream(c10::Stream to) const override {
    call(named(to));
    auto before = getStream(to.device());
    stream = to.id();
    return before;
  }
  void record(void **event, const c10::Stream &of, c10::DeviceIndex, c10::EventFlag) const override {
    call("event of " + named(of));
    *event = &current;
  }
  void block(void *, const c10::Stream &waiting) const override { call(named(waiting) + " waits"); }
  void destroyEvent(void *, c10::DeviceIndex) const noexcept override {}
  void synchronizeStream(const c10::Stream &of) const override { call("the host waits for " + named(of)); }
};

struct Allocator final : c10::DeviceAllocator {
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override { call("empty cache"); }
  void recordStream(const c10::DataPtr &, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override { return {}; }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
  c10::DataPtr allocate(size_t) override { throw std::runtime_error("no memory"); }
  void copy_data(void *, const void *, size_t) const override {}
};

Allocator allocator;

int registered = [] {
  c10::SetAllocator(c10::kCUDA, &allocator);
  return 0;
}();

// As many bytes as libtorch's class has, or LDM_FAKE_BYTES.
size_t bytes() {
  const char *given = std::getenv("LDM_FAKE_BYTES");
  return given ? std::strtoul(given, nullptr, 10) : 104;
}
} // namespace

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

extern "C" {
void construct(void *self, bool keep) asm("_ZN2at4cuda9CUDAGraphC1Eb");
void destroy(void *self) asm("_ZN2at4cuda9CUDAGraphD1Ev");
void capture_begin(void *self, c10::MempoolId_t pool,
                   int mode) asm("_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode");
void capture_end(void *self) asm("_ZN2at4cuda9CUDAGraph11capture_endEv");
void replay(void *self) asm("_ZN2at4cuda9CUDAGraph6replayEv");
c10::MempoolId_t pool_handle() asm("_ZN2at4cuda17graph_pool_handleEv");

void construct(void *self, bool keep) {
  call(keep ? "construct, keep" : "construct");
  std::memset(self, 1, bytes());
}
void destroy(void *) { call("destroy"); }
void capture_begin(void *, c10::MempoolId_t pool, int mode) {
  call("begin in pool " + std::to_string(pool.first) + "." + std::to_string(pool.second) + ", mode " +
       std::to_string(mode));
}
void capture_end(void *) { call("end"); }
void replay(void *) { call("replay"); }
c10::MempoolId_t pool_handle() { return {0, 5}; }
}
