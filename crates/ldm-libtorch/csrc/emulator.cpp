// The kernels of kernels/ on the CPU, and the fibers that run them. Built for tests, not into releases (build.rs).
#define LDM_EMULATOR
#include "bias_add.cu"
#include "geglu.cu"
#include "group_norm.cu"
#include "group_norm_backward.cu"

#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <ucontext.h>
#include <vector>

thread_local emulator::Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
namespace {
constexpr size_t STACK_BYTES = 64 << 10, GUARD_BYTES = 4 << 10;
constexpr unsigned char POISON = 0xFF, GUARD = 0xA5; // f32, bf16 and f16 of 0xFF are NaN

std::map<std::string, Kernel> &kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
  bool done = false;
};

struct Machine {
  std::vector<std::unique_ptr<Fiber>> fibers; // kept: their stacks are large
  std::vector<unsigned char> shared;
  unsigned char *shared_begin = nullptr; // aligned
  ucontext_t scheduler;
  Fiber *current = nullptr;
  Body body = nullptr;
  const void *arguments = nullptr;
};
thread_local Machine machine;

void run_thread() {
  machine.body(machine.arguments);
  machine.current->done = true;
  swapcontext(&machine.current->context, &machine.scheduler);
}

std::vector<unsigned> permutation(unsigned count, uint64_t order, uint64_t salt) {
  std::vector<unsigned> all(count);
  for (unsigned i = 0; i < count; i++) all[i] = i;
  uint64_t state = order * 0x9E3779B97F4A7C15ull + salt;
  for (unsigned i = count; order != 0 && i > 1; i--) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(all[i - 1], all[(state >> 33) % i]);
  }
  return all;
}

void poison(unsigned shared_bytes) {
  machine.shared.assign(16 + shared_bytes + GUARD_BYTES, POISON);
  auto misaligned = reinterpret_cast<uintptr_t>(machine.shared.data()) % 16;
  machine.shared_begin = machine.shared.data() + (16 - misaligned);
  std::fill_n(machine.shared_begin + shared_bytes, GUARD_BYTES - 16, GUARD);
}

void check_guard(const Launch &launch) {
  auto guard = machine.shared_begin + launch.shared_bytes;
  if (std::any_of(guard, guard + GUARD_BYTES - 16, [](unsigned char each) { return each != GUARD; }))
    throw std::runtime_error(launch.name + ": writes behind its shared memory");
}

void run_block(const Launch &launch, uint64_t order) {
  poison(launch.shared_bytes);
  while (machine.fibers.size() < launch.threads) machine.fibers.push_back(std::make_unique<Fiber>());
  for (unsigned i = 0; i < launch.threads; i++) {
    Fiber &fiber = *machine.fibers[i];
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_thread, 0);
  }
  for (uint64_t phase = 0;; phase++) { // from one barrier to the next
    unsigned done = 0;
    for (unsigned i : permutation(launch.threads, order, phase)) {
      machine.current = machine.fibers[i].get();
      threadIdx = {i, 0, 0};
      swapcontext(&machine.scheduler, &machine.current->context);
      done += machine.current->done;
    }
    if (done == launch.threads) break;
    if (done != 0) throw std::runtime_error(launch.name + ": a barrier that not every thread reaches");
  }
  check_guard(launch);
}
} // namespace

Registration::Registration(const char *name, Body body, size_t argument_bytes) {
  kernels()[name] = {body, argument_bytes};
}

unsigned char *shared_memory() { return machine.shared_begin; }

void barrier() { swapcontext(&machine.current->context, &machine.scheduler); }

void run(const Launch &launch, const void *arguments, size_t argument_bytes, uint64_t order) {
  auto found = kernels().find(launch.name);
  if (found == kernels().end()) throw std::runtime_error(launch.name + ": no such kernel");
  if (found->second.argument_bytes != argument_bytes) throw std::runtime_error(launch.name + ": other arguments");
  if (launch.threads == 0 || launch.threads > 512 || launch.grid.x == 0 || launch.grid.y == 0 ||
      launch.grid.y > 65535 || launch.grid.z == 0 || launch.grid.z > 65535)
    throw std::runtime_error(launch.name + ": a grid that CUDA refuses");
  machine.body = found->second.body;
  machine.arguments = arguments;
  blockDim = {launch.threads, 1, 1};
  gridDim = launch.grid;
  unsigned plane = launch.grid.x * launch.grid.y;
  for (unsigned block : permutation(plane * launch.grid.z, order, ~0ull)) {
    blockIdx = {block % launch.grid.x, block % plane / launch.grid.x, block / plane};
    run_block(launch, order);
  }
}

float f16_to_float(unsigned short bits) {
  float magnitude;
  unsigned exponent = bits >> 10 & 31, mantissa = bits & 1023;
  if (exponent == 0) {
    magnitude = std::ldexp((float)mantissa, -24);
  } else if (exponent == 31) {
    magnitude = mantissa ? NAN : INFINITY;
  } else {
    magnitude = std::ldexp((float)(1024 + mantissa), (int)exponent - 25);
  }
  return bits >> 15 ? -magnitude : magnitude;
}

unsigned short f16_bits(float value) {
  if (std::isnan(value)) return 0x7FFF;
  unsigned sign = std::signbit(value) ? 0x8000 : 0;
  float magnitude = std::fabs(value);
  if (magnitude == 0.f) return sign;
  if (magnitude >= 65520.f) return sign | 0x7C00; // half of the last place above the largest number
  int exponent = 0;
  std::frexp(magnitude, &exponent); // magnitude < 2^exponent
  exponent = std::max(exponent - 1, -14);
  // The number of units of the last place; rounding up to 2048 of them is the next exponent.
  unsigned units = (unsigned)std::nearbyint(std::ldexp(magnitude, 10 - exponent));
  return sign | (((unsigned)(exponent + 14) << 10) + units);
}

unsigned short bf16_bits(float value) {
  if (std::isnan(value)) return 0x7FFF;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
} // namespace emulator
