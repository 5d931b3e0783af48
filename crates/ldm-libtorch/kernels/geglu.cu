// value·gelu(gate) of rows [value, gate] (Shazeer 2020) with the exact GELU, g·Φ(g).
#include "tile.h"

namespace ldm {
// Φ(g), the normal distribution.
__device__ inline float normal_cdf(float g) { return 0.5f * (1.f + erff(g * 0.70710678118654752f)); }

template <class T, int V> __device__ void geglu(const Geglu &a) {
  const Tiling &of = a.tiling;
  Tile<V> tile(of);
  if (!tile.active) return;
  const T *x = static_cast<const T *>(a.x);
  T *y = static_cast<T *>(a.y);
#pragma unroll 1
  for (int row = tile.begin + tile.row; row < tile.end; row += of.rows) {
    const T *value = x + (long long)row * 2 * of.channels + tile.channel;
    Pack<T, V> values = load_input<T, V>(value), gates = load_input<T, V>(value + of.channels), ys;
#pragma unroll
    for (int v = 0; v < V; v++) {
      float g = to_float(gates.lane[v]);
      round_to(to_float(values.lane[v]) * (g * normal_cdf(g)), ys.lane[v]);
    }
    store<T, V>(y + tile.at(of, row), ys);
  }
}

// d value = dy·gelu(g), d gate = dy·value·(Φ(g) + g·φ(g)).
template <class T, int V> __device__ void geglu_backward(const Geglu &a) {
  const Tiling &of = a.tiling;
  Tile<V> tile(of);
  if (!tile.active) return;
  const T *x = static_cast<const T *>(a.x), *dy = static_cast<const T *>(a.dy);
  T *dx = static_cast<T *>(a.y);
#pragma unroll 1
  for (int row = tile.begin + tile.row; row < tile.end; row += of.rows) {
    long long value = (long long)row * 2 * of.channels + tile.channel, gate = value + of.channels;
    Pack<T, V> values = load_input<T, V>(x + value), gates = load_input<T, V>(x + gate);
    Pack<T, V> dys = load_input<T, V>(dy + tile.at(of, row)), d_values, d_gates;
#pragma unroll
    for (int v = 0; v < V; v++) {
      float g = to_float(gates.lane[v]), d = to_float(dys.lane[v]), cdf = normal_cdf(g);
      float density = 0.39894228040143268f * expf(-0.5f * g * g); // 1/√(2π)
      round_to(d * (g * cdf), d_values.lane[v]);
      round_to(d * to_float(values.lane[v]) * fmaf(g, density, cdf), d_gates.lane[v]);
    }
    store<T, V>(dx + value, d_values);
    store<T, V>(dx + gate, d_gates);
  }
}
} // namespace ldm

#define LDM_GEGLU(dtype, T, V)                                                                                         \
  LDM_KERNEL(geglu_##dtype##_x##V, ldm::Geglu, ldm::geglu<ldm::T, V>)                                                  \
  LDM_KERNEL(geglu_backward_##dtype##_x##V, ldm::Geglu, ldm::geglu_backward<ldm::T, V>)

LDM_GEGLU(f32, Float32, 4)
LDM_GEGLU(f32, Float32, 1)
LDM_GEGLU(bf16, BFloat16, 8)
LDM_GEGLU(bf16, BFloat16, 1)
LDM_GEGLU(f16, Float16, 8)
LDM_GEGLU(f16, Float16, 1)
