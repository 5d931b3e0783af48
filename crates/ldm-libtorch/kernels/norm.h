// The normalization of a thread's channels, once mean and 1/deviation of their groups are known.
#pragma once
#include "tile.h"

namespace ldm {
template <int V> struct Normalizer {
  float mean[V];  // of x, without the shift
  float rstd[V];
  float scale[V]; // n' = scale·x̂ + shift
  float shift[V];

  // `means` and `rstds` begin with the first group of the map or, in shared memory, of the block.
  __device__ Normalizer(const Norm &of, const Tile<V> &tile, const float *means, const float *rstds, int first_group) {
    for (int v = 0; v < V; v++) {
      long long channel = tile.channel + v, of_image = tile.image * of.tiling.channels + channel;
      long long half = tile.image * 2 * of.tiling.channels + channel;
      int group = (int)channel / of.group_channels - first_group;
      mean[v] = means[group] - (read_or(of.channel_shift, channel, 0.f) + read_or(of.image_shift, of_image, 0.f));
      rstd[v] = rstds[group];
      float of_map = 1.f + read_or(of.scale_shift, half, 0.f);
      scale[v] = read(of.weight, channel) * of_map;
      shift[v] = fmaf(read(of.bias, channel), of_map, read_or(of.scale_shift, half + of.tiling.channels, 0.f));
    }
  }

  __device__ float normalized(float x, int v) const { return (x - mean[v]) * rstd[v]; }
  __device__ float affine(float normalized, int v) const { return fmaf(normalized, scale[v], shift[v]); }

  template <class T> __device__ Pack<T, V> apply(const Pack<T, V> &x, int silu) const {
    Pack<T, V> y;
#pragma unroll
    for (int v = 0; v < V; v++) {
      float n = affine(normalized(to_float(x.lane[v]), v), v);
      round_to(silu ? n * sigmoid(n) : n, y.lane[v]);
    }
    return y;
  }
};
} // namespace ldm
