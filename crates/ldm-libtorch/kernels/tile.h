// The part of a map that a block and a thread have. Threads lie over whole rows of `width` channels, V neighbors each, so that
// loads are wide also where a group has no multiple of V channels.
#pragma once
#include "element.h"

namespace ldm {
template <int V> struct Tile {
  int row;       // of the thread, from 0 to rows
  int column;    // first channel, from the block's first
  int channel;   // first channel, from the map's first
  bool active;   // threads that fill up a warp, or lie behind the last channel, have no pixels
  int begin, end; // pixels of the block
  long long image;

  __device__ explicit Tile(const Tiling &of) {
    int columns = of.width / V;
    row = (int)threadIdx.x / columns;
    column = ((int)threadIdx.x % columns) * V;
    channel = (int)blockIdx.x * of.width + column;
    active = row < of.rows && channel < of.channels;
    begin = (int)blockIdx.y * of.part_pixels;
    end = begin + of.part_pixels < of.pixels ? begin + of.part_pixels : of.pixels;
    image = blockIdx.z;
  }

  // Offset of the thread's channels of a pixel.
  __device__ long long at(const Tiling &of, int pixel) const {
    return (image * of.pixels + pixel) * of.channels + channel;
  }
};

// Half of the power of two that is at least `count`: the first distance of a tree over `count` values.
__device__ inline int first_half(int count) {
  int size = 1;
  while (size < count) size *= 2;
  return size / 2;
}

// Sums N arrays [rows, width] in shared memory over their rows, into row 0, in an order that only the sizes decide.
template <int V, int N>
__device__ inline void sum_rows(float *const (&arrays)[N], const Tile<V> &tile, const Tiling &of) {
  for (int half = first_half(of.rows); half > 0; half /= 2) {
    __syncthreads();
    if (!tile.active || tile.row >= half || tile.row + half >= of.rows) continue;
    int to = tile.row * of.width + tile.column, from = to + half * of.width;
#pragma unroll
    for (int n = 0; n < N; n++)
      for (int v = 0; v < V; v++) arrays[n][to + v] += arrays[n][from + v];
  }
  __syncthreads();
}
} // namespace ldm
