// The NCCL backend: libtorch's own ProcessGroupNCCL, with its streams, its watchdog and its timeouts. Its header needs those
// of CUDA and NCCL, so its constructors are found by name (late.h); everything else is virtual functions of
// c10d::Backend.
#include "ranks.h"
#include <cstring>
#include <new>

namespace {
// Bounds of the classes, which have 248 and 1112 bytes in libtorch 2.11 for CUDA 13 (the former depends on NCCL's version),
// and space behind them that must stay as it is.
constexpr size_t OPTIONS_BYTES = 512, GROUP_BYTES = 4096, SPACE = 4096;
constexpr unsigned char UNTOUCHED = 0xa5;

// The object that `construct` makes in new memory, whose deleting destructor is the object's own. Base classes come first.
template <typename Base, typename F> c10::intrusive_ptr<Base> made(size_t bytes, F construct) {
  auto *space = static_cast<unsigned char *>(::operator new(bytes + SPACE));
  std::memset(space, UNTOUCHED, bytes + SPACE);
  try {
    construct(space);
  } catch (...) {
    ::operator delete(space);
    throw;
  }
  auto owned = c10::intrusive_ptr<Base>::unsafe_steal_from_new(reinterpret_cast<Base *>(space));
  for (auto at = bytes; at < bytes + SPACE; at++)
    TORCH_CHECK(space[at] == UNTOUCHED, "expected NCCL's classes of libtorch 2.11, of at most ", bytes, " bytes");
  return owned;
}
} // namespace

ldm::Backend ldm::nccl(const Store &store, int rank, int world, std::chrono::milliseconds timeout) {
  auto &late = late_nccl();
  auto options = made<c10d::Backend::Options>(
      OPTIONS_BYTES, [&](void *space) { late.construct_options(space, /*is_high_priority_stream=*/false); });
  options->timeout = timeout;
  return made<c10d::Backend>(GROUP_BYTES,
                             [&](void *space) { late.construct(space, store, rank, world, options); });
}
