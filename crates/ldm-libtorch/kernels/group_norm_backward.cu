// Gradients of group_norm.cu. With A = weight·(1 + scale), and m(·) the mean over a group (pixels and channels):
//   dx = rstd·(A·dn' - m(A·dn') - x̂·m(A·dn'·x̂))
// Sums over pixels are taken in parts and then in the order of the parts: no atomics, so that equal inputs have equal bits.
//
// Launches: sums over the pixels of a part; coefficients of the groups and gradients of one image; dx; gradients of the
// parameters, which are sums over images.
#include "norm.h"

namespace ldm {
// dn' of the output's gradient.
__device__ inline float through_silu(float dy, float n, int silu) {
  if (!silu) return dy;
  float s = sigmoid(n);
  return dy * (s * fmaf(n, 1.f - s, 1.f));
}

template <class T, int V> __device__ void group_norm_sums(const NormBackward &a) {
  LDM_SHARED(shared);
  const Norm &norm = a.norm;
  const Tiling &of = norm.tiling;
  Tile<V> tile(of);
  int cells = of.rows * of.width;
  float *rows = reinterpret_cast<float *>(shared);
  float *const arrays[3] = {rows, rows + cells, rows + 2 * cells};
  Coefficients coefficients(rows + 3 * cells, of.width);
  coefficients.fill(norm);
  if (tile.active) {
    Normalizer<V> normalizer(coefficients, tile.column);
    const T *x = static_cast<const T *>(norm.x), *dy = static_cast<const T *>(a.dy);
    float sums[3][V] = {};
#pragma unroll 1
    for (int pixel = tile.begin + tile.row; pixel < tile.end; pixel += of.rows) {
      long long at = tile.at(of, pixel);
      Pack<T, V> xs = load_input<T, V>(x + at), dys = load_input<T, V>(dy + at);
#pragma unroll
      for (int v = 0; v < V; v++) {
        float normalized = normalizer.normalized(to_float(xs.lane[v]), v);
        float dn = through_silu(to_float(dys.lane[v]), normalizer.affine(normalized, v), norm.silu);
        sums[0][v] += dn;
        sums[1][v] = fmaf(dn, normalized, sums[1][v]);
        sums[2][v] += normalized;
      }
    }
#pragma unroll
    for (int n = 0; n < 3; n++)
      for (int v = 0; v < V; v++) arrays[n][tile.row * of.width + tile.column + v] = sums[n][v];
  }
  sum_rows<V, 3>(arrays, tile, of);
#pragma unroll 1
  for (int i = threadIdx.x; i < 3 * of.width; i += blockDim.x) {
    int n = i / of.width, column = i % of.width, channel = (int)blockIdx.x * of.width + column;
    long long row = ((long long)n * a.batch + tile.image) * of.parts + blockIdx.y;
    if (channel < of.channels) a.sums[row * of.channels + channel] = arrays[n][column];
  }
}

// One block for each group of each image: the grid is (groups, B).
__device__ inline void group_norm_coefficients(const NormBackward &a) {
  LDM_SHARED(shared);
  const Norm &norm = a.norm;
  const Tiling &of = norm.tiling;
  int D = norm.group_channels, first = (int)blockIdx.x * D;
  long long image = blockIdx.y, group = image * norm.groups + blockIdx.x;
  float *sums[3]; // over pixels, of each channel
  for (int n = 0; n < 3; n++) sums[n] = reinterpret_cast<float *>(shared) + n * D;
#pragma unroll 1
  for (int i = threadIdx.x; i < 3 * D; i += blockDim.x) {
    int n = i / D, c = i % D;
    const float *from = a.sums + ((long long)n * a.batch + image) * of.parts * of.channels + first + c;
    float sum = 0.f;
    for (int part = 0; part < of.parts; part++) sum += from[(long long)part * of.channels];
    sums[n][c] = sum;
  }
  __syncthreads();
  // Every thread sums the few channels itself, in one order.
  float mean_d = 0.f, mean_dx = 0.f, count = (float)of.pixels * (float)D;
  for (int c = 0; c < D; c++) {
    float of_map = 1.f + read_or(norm.scale_shift, image * 2 * of.channels + first + c, 0.f);
    float scale = read(norm.weight, first + c) * of_map;
    mean_d = fmaf(scale, sums[0][c], mean_d);
    mean_dx = fmaf(scale, sums[1][c], mean_dx);
  }
  mean_d /= count;
  mean_dx /= count;
  if (threadIdx.x == 0) {
    a.means[group] = mean_d;
    a.means[(long long)a.batch * norm.groups + group] = mean_dx;
  }
#pragma unroll 1
  for (int c = threadIdx.x; c < D; c += blockDim.x) {
    long long channel = first + c, at = image * of.channels + channel, half = image * 2 * of.channels + channel;
    long long all = (long long)a.batch * of.channels;
    float of_map = 1.f + read_or(norm.scale_shift, half, 0.f), weight = read(norm.weight, channel);
    float s0 = sums[0][c], s1 = sums[1][c];
    // The sum of dx over pixels.
    float d_shift = norm.rstd[group] * (weight * of_map * s0 - (float)of.pixels * mean_d - sums[2][c] * mean_dx);
    a.terms[at] = of_map * s1;
    a.terms[all + at] = of_map * s0;
    a.terms[2 * all + at] = d_shift;
    write(a.d_image_shift, at, d_shift);
    write(a.d_scale_shift, half, fmaf(weight, s1, read(norm.bias, channel) * s0));
    write(a.d_scale_shift, half + of.channels, s0);
  }
}

template <class T, int V> __device__ void group_norm_dx(const NormBackward &a) {
  LDM_SHARED(shared);
  const Norm &norm = a.norm;
  const Tiling &of = norm.tiling;
  Tile<V> tile(of);
  float *of_block = reinterpret_cast<float *>(shared), *more = of_block + 4 * of.width;
#pragma unroll 1
  for (int c = threadIdx.x; c < of.width; c += blockDim.x) {
    long long group = tile.image * norm.groups + (blockIdx.x * of.width + c) / norm.group_channels;
    more[c] = a.means[group];
    more[of.width + c] = a.means[(long long)a.batch * norm.groups + group];
  }
  Coefficients coefficients(of_block, of.width);
  coefficients.fill(norm);
  if (!tile.active) return;
  Normalizer<V> normalizer(coefficients, tile.column);
  float mean_d[V], mean_dx[V];
#pragma unroll
  for (int v = 0; v < V; v++) {
    mean_d[v] = more[tile.column + v];
    mean_dx[v] = more[of.width + tile.column + v];
  }
  const T *x = static_cast<const T *>(norm.x), *dy = static_cast<const T *>(a.dy);
  T *dx = static_cast<T *>(a.dx);
#pragma unroll 1
  for (int pixel = tile.begin + tile.row; pixel < tile.end; pixel += of.rows) {
    long long at = tile.at(of, pixel);
    Pack<T, V> xs = load_input<T, V>(x + at), dys = load_input<T, V>(dy + at), dxs;
#pragma unroll
    for (int v = 0; v < V; v++) {
      float normalized = normalizer.normalized(to_float(xs.lane[v]), v);
      float dn = through_silu(to_float(dys.lane[v]), normalizer.affine(normalized, v), norm.silu);
      float d = fmaf(dn, normalizer.scale[v], -mean_d[v]) - normalized * mean_dx[v];
      round_to(normalizer.rstd[v] * d, dxs.lane[v]);
    }
    store<T, V>(dx + at, dxs);
  }
}

// One thread for each channel.
__device__ inline void group_norm_parameters(const NormBackward &a) {
  int channels = a.norm.tiling.channels;
  long long channel = (long long)blockIdx.x * blockDim.x + threadIdx.x, all = (long long)a.batch * channels;
  if (channel >= channels) return;
  float sums[3] = {};
  for (int image = 0; image < a.batch; image++)
    for (int n = 0; n < 3; n++) sums[n] += a.terms[n * all + (long long)image * channels + channel];
  write(a.d_weight, channel, sums[0]);
  write(a.d_bias, channel, sums[1]);
  write(a.d_channel_shift, channel, sums[2]);
}
} // namespace ldm

#define LDM_BACKWARD(dtype, T, V)                                                                                      \
  LDM_KERNEL(group_norm_sums_##dtype##_x##V, ldm::NormBackward, ldm::group_norm_sums<ldm::T, V>)                       \
  LDM_KERNEL(group_norm_dx_##dtype##_x##V, ldm::NormBackward, ldm::group_norm_dx<ldm::T, V>)

LDM_BACKWARD(f32, Float32, 4)
LDM_BACKWARD(f32, Float32, 1)
LDM_BACKWARD(bf16, BFloat16, 8)
LDM_BACKWARD(bf16, BFloat16, 1)
LDM_BACKWARD(f16, Float16, 8)
LDM_BACKWARD(f16, Float16, 1)
LDM_KERNEL(group_norm_coefficients, ldm::NormBackward, ldm::group_norm_coefficients)
LDM_KERNEL(group_norm_parameters, ldm::NormBackward, ldm::group_norm_parameters)
