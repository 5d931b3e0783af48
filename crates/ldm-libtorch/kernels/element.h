// Numbers of the kernels: f32, bf16 and f16 in memory, f32 in registers. No header of CUDA: NVRTC knows the rest.
#pragma once
#include "arguments.h"

#ifdef LDM_EMULATOR
#include "emulator.h"
#else
#define LDM_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define LDM_KERNEL(name, arguments, ...)                                                                               \
  extern "C" __global__ void __launch_bounds__(512) name(const arguments a) { __VA_ARGS__(a); }
#endif

namespace ldm {
struct Float32 {
  float bits;
};
struct BFloat16 {
  unsigned short bits;
};
struct Float16 {
  unsigned short bits;
};

#ifdef LDM_EMULATOR
inline float f16_to_float(unsigned short bits) { return emulator::f16_to_float(bits); }
inline unsigned short f16_bits(float value) { return emulator::f16_bits(value); }
inline unsigned short bf16_bits(float value) { return emulator::bf16_bits(value); }
#else
__device__ inline float f16_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
__device__ inline unsigned short f16_bits(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
__device__ inline unsigned short bf16_bits(float value) {
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#endif

// The upper half of an f32 is a bf16.
__device__ inline float bf16_to_float(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }

__device__ inline float to_float(Float32 x) { return x.bits; }
__device__ inline float to_float(BFloat16 x) { return bf16_to_float(x.bits); }
__device__ inline float to_float(Float16 x) { return f16_to_float(x.bits); }
__device__ inline void round_to(float value, Float32 &to) { to.bits = value; }
__device__ inline void round_to(float value, BFloat16 &to) { to.bits = bf16_bits(value); }
__device__ inline void round_to(float value, Float16 &to) { to.bits = f16_bits(value); }

// V neighbors in memory: one load of V·sizeof(T) bytes.
template <class T, int V> struct alignas(sizeof(T) * V) Pack {
  T lane[V];
};

template <class T, int V> __device__ inline Pack<T, V> load(const T *from) {
  return *reinterpret_cast<const Pack<T, V> *>(from);
}

// `load` of memory that no thread of the launch writes: it may pass stores, so that several are on their way at once.
#ifdef LDM_EMULATOR
template <class T, int V> inline Pack<T, V> load_input(const T *from) { return load<T, V>(from); }
#else
template <int BYTES> struct Word;
template <> struct Word<2> {
  using Type = unsigned short;
};
template <> struct Word<4> {
  using Type = unsigned;
};
template <> struct Word<8> {
  using Type = uint2;
};
template <> struct Word<16> {
  using Type = uint4;
};
template <class T, int V> __device__ inline Pack<T, V> load_input(const T *from) {
  using Type = typename Word<sizeof(T) * V>::Type;
  Type word = __ldg(reinterpret_cast<const Type *>(from));
  return *reinterpret_cast<const Pack<T, V> *>(&word);
}
#endif
template <class T, int V> __device__ inline void store(T *to, const Pack<T, V> &pack) {
  *reinterpret_cast<Pack<T, V> *>(to) = pack;
}

__device__ inline float read(const Small &from, long long at) {
  if (from.dtype == F32) return static_cast<const float *>(from.data)[at];
  unsigned short bits = static_cast<const unsigned short *>(from.data)[at];
  return from.dtype == BF16 ? bf16_to_float(bits) : f16_to_float(bits);
}
__device__ inline float read_or(const Small &from, long long at, float absent) {
  return from.data ? read(from, at) : absent;
}
__device__ inline void write(const Small &to, long long at, float value) {
  if (!to.data) return;
  if (to.dtype == F32) {
    static_cast<float *>(to.data)[at] = value;
  } else {
    static_cast<unsigned short *>(to.data)[at] = to.dtype == BF16 ? bf16_bits(value) : f16_bits(value);
  }
}

// exp(-x) of a large negative x is infinite, and 1 / (1 + inf) is 0. The quotient has an error of 2 units of the last place.
__device__ inline float sigmoid(float x) { return __fdividef(1.f, 1.f + expf(-x)); }
} // namespace ldm
