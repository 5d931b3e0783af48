// x + channel_bias + image_bias + residual of a channels_last map, in one pass.
#include "tile.h"

namespace ldm {
template <class T, int V> __device__ void bias_add(const BiasAdd &a) {
  LDM_SHARED(shared);
  const Tiling &of = a.tiling;
  Tile<V> tile(of);
  float *biases = reinterpret_cast<float *>(shared);
#pragma unroll 1
  for (int c = threadIdx.x; c < of.width; c += blockDim.x) {
    int channel = (int)blockIdx.x * of.width + c;
    if (channel >= of.channels) break;
    biases[c] = read_or(a.channel_bias, channel, 0.f) + read_or(a.image_bias, tile.image * of.channels + channel, 0.f);
  }
  __syncthreads();
  if (!tile.active) return;
  float bias[V];
#pragma unroll
  for (int v = 0; v < V; v++) bias[v] = biases[tile.column + v];
  const T *x = static_cast<const T *>(a.x), *residual = static_cast<const T *>(a.residual);
  T *y = static_cast<T *>(a.y);
#pragma unroll 1
  for (int pixel = tile.begin + tile.row; pixel < tile.end; pixel += of.rows) {
    long long at = tile.at(of, pixel);
    Pack<T, V> xs = load_input<T, V>(x + at), rs, ys;
    if (residual) rs = load_input<T, V>(residual + at);
#pragma unroll
    for (int v = 0; v < V; v++) {
      float sum = to_float(xs.lane[v]) + bias[v];
      round_to(residual ? sum + to_float(rs.lane[v]) : sum, ys.lane[v]);
    }
    store<T, V>(y + at, ys);
  }
}
} // namespace ldm

#define LDM_BIAS_ADD(dtype, T, V) LDM_KERNEL(bias_add_##dtype##_x##V, ldm::BiasAdd, ldm::bias_add<ldm::T, V>)

LDM_BIAS_ADD(f32, Float32, 4)
LDM_BIAS_ADD(f32, Float32, 1)
LDM_BIAS_ADD(bf16, BFloat16, 8)
LDM_BIAS_ADD(bf16, BFloat16, 1)
LDM_BIAS_ADD(f16, Float16, 8)
LDM_BIAS_ADD(f16, Float16, 1)
