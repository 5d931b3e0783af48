// The normalization of a block's channels, once mean and 1/deviation of their groups are known.
#pragma once
#include "tile.h"

namespace ldm {
// Coefficients of each channel of a block, in shared memory: n' = scale·(x - mean)·rstd + shift.
struct Coefficients {
  float *mean; // of x, without the shift before the norm
  float *rstd;
  float *scale;
  float *shift;

  __device__ Coefficients(float *memory, int width)
      : mean(memory), rstd(memory + width), scale(memory + 2 * width), shift(memory + 3 * width) {}

  // `means` and `rstds` begin with the first group of the block. Ends at a barrier.
  __device__ void fill(const Norm &of, const float *means, const float *rstds) {
#pragma unroll 1
    for (int c = threadIdx.x; c < of.tiling.width; c += blockDim.x) {
      long long channel = (long long)blockIdx.x * of.tiling.width + c, image = blockIdx.z;
      long long at = image * of.tiling.channels + channel, half = image * 2 * of.tiling.channels + channel;
      int group = c / of.group_channels;
      mean[c] = means[group] - (read_or(of.channel_shift, channel, 0.f) + read_or(of.image_shift, at, 0.f));
      rstd[c] = rstds[group];
      float of_map = 1.f + read_or(of.scale_shift, half, 0.f);
      scale[c] = read(of.weight, channel) * of_map;
      shift[c] = fmaf(read(of.bias, channel), of_map, read_or(of.scale_shift, half + of.tiling.channels, 0.f));
    }
    __syncthreads();
  }

  // Of the statistics of the whole map.
  __device__ void fill(const Norm &of) {
    long long first = blockIdx.z * (long long)of.groups + blockIdx.x * (of.tiling.width / of.group_channels);
    fill(of, of.mean + first, of.rstd + first);
  }
};

// Those of a thread.
template <int V> struct Normalizer {
  float mean[V], rstd[V], scale[V], shift[V];

  __device__ Normalizer(const Coefficients &of, int column) {
#pragma unroll
    for (int v = 0; v < V; v++) {
      mean[v] = of.mean[column + v];
      rstd[v] = of.rstd[column + v];
      scale[v] = of.scale[column + v];
      shift[v] = of.shift[column + v];
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
