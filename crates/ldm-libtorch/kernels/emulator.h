// CUDA's threads on the CPU, for tests of the kernels' arithmetic: each thread of a block is a fiber that runs until the next
// __syncthreads. The order of threads and blocks is an argument: a kernel whose result depends on it lacks a barrier.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#define __global__
#define __device__
#define LDM_SHARED(name) unsigned char *name = emulator::shared_memory()
#define LDM_KERNEL(name, arguments, ...)                                                                               \
  static void name(const void *a) { __VA_ARGS__(*static_cast<const arguments *>(a)); }                                 \
  static const emulator::Registration registration_##name(#name, name, sizeof(arguments));

namespace emulator {
struct Dimensions {
  unsigned x = 1, y = 1, z = 1;
};
using Body = void (*)(const void *arguments);

struct Kernel {
  Body body;
  size_t argument_bytes;
};

struct Registration {
  Registration(const char *name, Body body, size_t argument_bytes);
};

struct Launch {
  std::string name;
  Dimensions grid;
  unsigned threads;
  unsigned shared_bytes;
};

// Runs a kernel; throws std::runtime_error if it is unknown, leaves a thread alone at a barrier, or writes behind its shared
// memory. `order` 0 is ascending, every other value another permutation.
void run(const Launch &launch, const void *arguments, size_t argument_bytes, uint64_t order);

unsigned char *shared_memory();
void barrier();

// Rounding to nearest, ties to even, as PTX' cvt.rn; NaN becomes the canonical one.
float f16_to_float(unsigned short bits);
unsigned short f16_bits(float value);
unsigned short bf16_bits(float value);
} // namespace emulator

extern thread_local emulator::Dimensions threadIdx, blockIdx, blockDim, gridDim;

// Functions of CUDA that the C library does not have. The GPU's own last two err by 2 units of the last place.
inline void __syncthreads() { emulator::barrier(); }
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
