// Group normalization (Wu & He 2018) of channels_last maps with what diffusion networks do around it: a bias and a time
// embedding before, scale and shift and SiLU after.
//
// group_norm_slab: one launch, where a block's groups fit in its shared memory: the map is read once.
// group_norm_moments, group_norm_merge, group_norm_apply: three launches, for maps of any size.
#include "moments.h"
#include "norm.h"

namespace ldm {
// Moments of the block's pixels of its groups, into `stats` [2, groups of the block] in shared memory. If `slab` is given, the
// pixels are left there.
template <class T, int V>
__device__ inline void block_moments(const Norm &a, const Tile<V> &tile, T *slab, float *rows, float *stats) {
  const Tiling &of = a.tiling;
  const T *x = static_cast<const T *>(a.x);
  ThreadMoments<V> own;
  auto next = [&](int pixel) {
    Pack<T, V> pack = load_input<T, V>(x + tile.at(of, pixel));
    if (slab) store<T, V>(slab + (pixel - tile.begin) * of.width + tile.column, pack);
    return pack;
  };
  int pixel = tile.begin + tile.row;
  if (tile.active && pixel < tile.end) {
    own.begin(next(pixel));
#pragma unroll 4
    for (pixel += of.rows; pixel < tile.end; pixel += of.rows) own.add(next(pixel));
  }
  float *mean = rows, *m2 = rows + of.rows * of.width;
  merge_rows<V>(own, mean, m2, tile, of);
  // The shift moves means alone.
#pragma unroll 1
  for (int c = threadIdx.x; c < of.width; c += blockDim.x) {
    long long channel = (long long)blockIdx.x * of.width + c;
    mean[c] += read_or(a.channel_shift, channel, 0.f) +
               read_or(a.image_shift, tile.image * of.channels + channel, 0.f);
  }
  __syncthreads();
  int groups = of.width / a.group_channels;
#pragma unroll 1
  for (int group = threadIdx.x; group < groups; group += blockDim.x) {
    int first = group * a.group_channels;
    Moments moments = merge_channels(mean + first, m2 + first, a.group_channels, tile.end - tile.begin);
    stats[group] = moments.mean;
    stats[groups + group] = moments.m2;
  }
}

__device__ inline float reciprocal_deviation(float m2, float count, float eps) {
  return rsqrtf(m2 / count + eps);
}

template <class T, int V> __device__ void group_norm_slab(const NormForward &a) {
  LDM_SHARED(shared);
  const Norm &norm = a.norm;
  const Tiling &of = norm.tiling;
  Tile<V> tile(of);
  T *slab = reinterpret_cast<T *>(shared);
  // A row is a multiple of V numbers, so that f32 behind them are aligned if V·sizeof(T) is at least 4.
  float *stats = reinterpret_cast<float *>(shared + (long long)of.part_pixels * of.width * sizeof(T));
  float *rows = stats + 2 * (of.width / norm.group_channels);
  Coefficients coefficients(rows, of.width); // over the moments, which are done by then
  block_moments<T, V>(norm, tile, slab, rows, stats);
  int groups = of.width / norm.group_channels, first_group = blockIdx.x * groups;
#pragma unroll 1
  for (int group = threadIdx.x; group < groups; group += blockDim.x) { // of its own writes
    float count = (float)of.pixels * (float)norm.group_channels;
    stats[groups + group] = reciprocal_deviation(stats[groups + group], count, norm.eps);
    norm.mean[tile.image * norm.groups + first_group + group] = stats[group];
    norm.rstd[tile.image * norm.groups + first_group + group] = stats[groups + group];
  }
  __syncthreads();
  coefficients.fill(norm, stats, stats + groups);
  if (!tile.active) return;
  Normalizer<V> normalizer(coefficients, tile.column);
  T *y = static_cast<T *>(a.y);
#pragma unroll 1
  for (int pixel = tile.begin + tile.row; pixel < tile.end; pixel += of.rows) {
    Pack<T, V> pack = load<T, V>(slab + (pixel - tile.begin) * of.width + tile.column);
    store<T, V>(y + tile.at(of, pixel), normalizer.apply(pack, norm.silu));
  }
}

template <class T, int V> __device__ void group_norm_moments(const NormForward &a) {
  LDM_SHARED(shared);
  const Norm &norm = a.norm;
  const Tiling &of = norm.tiling;
  Tile<V> tile(of);
  float *stats = reinterpret_cast<float *>(shared), *rows = stats + 2 * (of.width / norm.group_channels);
  block_moments<T, V>(norm, tile, static_cast<T *>(nullptr), rows, stats);
  int groups = of.width / norm.group_channels;
#pragma unroll 1
  for (int group = threadIdx.x; group < groups; group += blockDim.x) { // of its own writes
    long long to = (tile.image * norm.groups + blockIdx.x * groups + group) * of.parts + blockIdx.y;
    a.part_mean[to] = stats[group];
    a.part_m2[to] = stats[groups + group];
  }
}

// One block for each group of each image: the grid is (groups, B).
__device__ inline void group_norm_merge(const NormForward &a) {
  LDM_SHARED(shared);
  const Norm &norm = a.norm;
  const Tiling &of = norm.tiling;
  float *count = reinterpret_cast<float *>(shared), *mean = count + blockDim.x, *m2 = mean + blockDim.x;
  long long group = (long long)blockIdx.y * norm.groups + blockIdx.x;
  Moments own = {0.f, 0.f, 0.f};
#pragma unroll 1
  for (int part = threadIdx.x; part < of.parts; part += blockDim.x) {
    int rest = of.pixels - part * of.part_pixels, pixels = rest < of.part_pixels ? rest : of.part_pixels;
    long long from = group * of.parts + part;
    own = merge(own, {(float)pixels * (float)norm.group_channels, a.part_mean[from], a.part_m2[from]});
  }
  int at = threadIdx.x;
  count[at] = own.count;
  mean[at] = own.mean;
  m2[at] = own.m2;
  for (int half = first_half(blockDim.x); half > 0; half /= 2) {
    __syncthreads();
    if (at >= half || at + half >= (int)blockDim.x) continue;
    own = merge(own, {count[at + half], mean[at + half], m2[at + half]});
    count[at] = own.count;
    mean[at] = own.mean;
    m2[at] = own.m2;
  }
  if (at != 0) return;
  norm.mean[group] = own.mean;
  norm.rstd[group] = reciprocal_deviation(own.m2, own.count, norm.eps);
}

template <class T, int V> __device__ void group_norm_apply(const NormForward &a) {
  LDM_SHARED(shared);
  const Norm &norm = a.norm;
  const Tiling &of = norm.tiling;
  Coefficients coefficients(reinterpret_cast<float *>(shared), of.width);
  coefficients.fill(norm);
  Tile<V> tile(of);
  if (!tile.active) return;
  Normalizer<V> normalizer(coefficients, tile.column);
  const T *x = static_cast<const T *>(a.norm.x);
  T *y = static_cast<T *>(a.y);
#pragma unroll 1
  for (int pixel = tile.begin + tile.row; pixel < tile.end; pixel += of.rows) {
    long long at = tile.at(of, pixel);
    store<T, V>(y + at, normalizer.apply(load_input<T, V>(x + at), norm.silu));
  }
}
} // namespace ldm

#define LDM_SLAB(dtype, T, V) LDM_KERNEL(group_norm_slab_##dtype##_x##V, ldm::NormForward, ldm::group_norm_slab<ldm::T, V>)
#define LDM_SPLIT(dtype, T, V)                                                                                         \
  LDM_KERNEL(group_norm_moments_##dtype##_x##V, ldm::NormForward, ldm::group_norm_moments<ldm::T, V>)                  \
  LDM_KERNEL(group_norm_apply_##dtype##_x##V, ldm::NormForward, ldm::group_norm_apply<ldm::T, V>)

LDM_SLAB(f32, Float32, 4)
LDM_SLAB(f32, Float32, 2)
LDM_SLAB(bf16, BFloat16, 8)
LDM_SLAB(bf16, BFloat16, 4)
LDM_SLAB(f16, Float16, 8)
LDM_SLAB(f16, Float16, 4)
LDM_SPLIT(f32, Float32, 4)
LDM_SPLIT(f32, Float32, 1)
LDM_SPLIT(bf16, BFloat16, 8)
LDM_SPLIT(bf16, BFloat16, 1)
LDM_SPLIT(f16, Float16, 8)
LDM_SPLIT(f16, Float16, 1)
LDM_KERNEL(group_norm_merge, ldm::NormForward, ldm::group_norm_merge)
