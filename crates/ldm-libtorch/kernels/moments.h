// Mean and sum of squared deviations, merged by Chan, Golub & LeVeque 1979: a mean far from zero costs no accuracy.
#pragma once
#include "tile.h"

namespace ldm {
struct Moments {
  float count, mean, m2;
};

__device__ inline Moments merge(const Moments &a, const Moments &b) {
  if (b.count == 0.f) return a;
  if (a.count == 0.f) return b;
  float count = a.count + b.count, difference = b.mean - a.mean, share = __fdividef(b.count, count);
  return {count, fmaf(difference, share, a.mean), a.m2 + b.m2 + difference * difference * a.count * share};
}

// Moments of V channels over the pixels of a thread. Sums are relative to the thread's first pixel: their rounding is then at
// most (1 + pixels) times that of the deviations themselves.
template <int V> struct ThreadMoments {
  float first[V], sum[V], squares[V];
  int count = 0;

  template <class T> __device__ void begin(const Pack<T, V> &pack) {
#pragma unroll
    for (int v = 0; v < V; v++) {
      first[v] = to_float(pack.lane[v]);
      sum[v] = first[v] - first[v]; // 0, or NaN of an Inf
      squares[v] = 0.f;
    }
    count = 1;
  }

  template <class T> __device__ void add(const Pack<T, V> &pack) {
#pragma unroll
    for (int v = 0; v < V; v++) {
      float from_first = to_float(pack.lane[v]) - first[v];
      sum[v] += from_first;
      squares[v] = fmaf(from_first, from_first, squares[v]);
    }
    count++;
  }

  // Writes mean and squared deviations of each channel.
  __device__ void store(float *mean, float *m2) const {
    float each = __fdividef(1.f, (float)count);
#pragma unroll
    for (int v = 0; v < V; v++) {
      float from_first = sum[v] * each, deviations = squares[v] - sum[v] * from_first;
      mean[v] = first[v] + from_first;
      m2[v] = deviations < 0.f ? 0.f : deviations; // below 0 by rounding; NaN stays
    }
  }
};

// Pixels of the rows that a tree of distance `stride` has merged into `row`, if row r had the pixels r, r + rows, …
__device__ inline int merged_pixels(int pixels, int rows, int row, int stride) {
  int each = pixels / rows, rest = pixels % rows;
  int merged = (rows - row + stride - 1) / stride;
  return each * merged + (rest > row ? (rest - row + stride - 1) / stride : 0);
}

// Merges the threads' moments in shared memory into those of the block's channels, in row 0 of `mean` and `m2` [rows, width].
template <int V>
__device__ inline void merge_rows(const ThreadMoments<V> &own, float *mean, float *m2, const Tile<V> &tile,
                                  const Tiling &of) {
  int at = tile.row * of.width + tile.column, pixels = tile.end - tile.begin;
  if (own.count > 0) own.store(mean + at, m2 + at); // others have no pixels to merge
  for (int half = first_half(of.rows); half > 0; half /= 2) {
    __syncthreads();
    if (!tile.active || tile.row >= half || tile.row + half >= of.rows) continue;
    float here = (float)merged_pixels(pixels, of.rows, tile.row, 2 * half);
    float there = (float)merged_pixels(pixels, of.rows, tile.row + half, 2 * half);
    if (there == 0.f) continue;
    int from = at + half * of.width;
#pragma unroll 1
    for (int v = 0; v < V; v++) {
      Moments merged = merge({here, mean[at + v], m2[at + v]}, {there, mean[from + v], m2[from + v]});
      mean[at + v] = merged.mean;
      m2[at + v] = merged.m2;
    }
  }
  __syncthreads();
}

// Moments of a group of channels of equally many pixels, by one thread.
__device__ inline Moments merge_channels(const float *mean, const float *m2, int channels, int pixels) {
  float means = 0.f, squares = 0.f;
  for (int c = 0; c < channels; c++) means += mean[c] - mean[0];
  float of_group = mean[0] + means / (float)channels;
  for (int c = 0; c < channels; c++) {
    float difference = mean[c] - of_group;
    squares += fmaf(difference * difference, (float)pixels, m2[c]);
  }
  return {(float)pixels * (float)channels, of_group, squares};
}
} // namespace ldm
