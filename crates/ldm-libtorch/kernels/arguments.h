// Arguments of the kernels, passed by value; csrc/ fills them in.
#pragma once

namespace ldm {
// Dtypes of small inputs, which under autocast are not that of the map.
enum SmallDtype { F32 = 0, BF16 = 1, F16 = 2 };

// A small input or output; null if absent.
struct Small {
  void *data;
  int dtype;
};

// Blocks over a map [B, pixels, C] in memory. The grid is (C / width, parts, B); a block has a part of the pixels of `width`
// channels, `rows` of them at once.
struct Tiling {
  int pixels;
  int channels;
  int width;       // channels of a block: a multiple of the vector, for norms also of a group's channels
  int rows;        // threads: width / vector · rows, rounded up to warps
  int part_pixels; // pixels of a block; fewer in the last part
  int parts;
};

// n = (x + shift - mean)·rstd·weight + bias, n' = n·(1 + scale) + shift', y = n' or n'·sigmoid(n').
struct Norm {
  Tiling tiling;
  int groups;
  int group_channels;
  float eps;
  int silu;
  const void *x;       // [B, pixels, C]
  Small channel_shift; // [C]
  Small image_shift;   // [B, C]
  Small weight;        // [C]
  Small bias;          // [C]
  Small scale_shift;   // [B, 2C]: scale, then shift'
  float *mean;         // [B, groups]
  float *rstd;         // [B, groups]
};

struct NormForward {
  Norm norm;
  void *y;          // [B, pixels, C]
  float *part_mean; // [B, groups, parts]
  float *part_m2;   // [B, groups, parts]: sums of squared deviations
};

struct NormBackward {
  Norm norm;
  const void *dy;      // [B, pixels, C]
  void *dx;            // [B, pixels, C]
  float *sums;         // [3, B, parts, C]: of dn', dn'·x̂ and x̂ over pixels
  float *means;        // [2, B, groups]: of dx̂ and dx̂·x̂
  float *terms;        // [3, B, C]: the images' parts of d weight, d bias and d channel_shift
  Small d_image_shift; // [B, C]
  Small d_scale_shift; // [B, 2C]
  Small d_weight;      // [C]
  Small d_bias;        // [C]
  Small d_channel_shift; // [C]
  int batch;
};

struct BiasAdd {
  Tiling tiling;
  const void *x;        // [B, pixels, C]
  Small channel_bias;   // [C]
  Small image_bias;     // [B, C]
  const void *residual; // [B, pixels, C] or null
  void *y;              // [B, pixels, C]
};

// y = value·gelu(gate) of rows [value, gate]; the tiling's pixels are rows, its channels those of y.
struct Geglu {
  Tiling tiling;
  const void *x;  // [rows, 2C]
  const void *dy; // [rows, C], backward
  void *y;        // [rows, C]; backward: dx [rows, 2C]
};
} // namespace ldm
