// What the forward and the backward pass of the surfel rasteriser share: one image's state, and how
// a surfel looks at the sixteen pixels of a block.
#pragma once
#include <cstdint>
#include <vector>

#include "block_sums.h"
#include "blocks.h"
#include "buffers.h"
#include "surfel_geometry.h"
#include "tiles.h"

namespace splatir {

// One channel of an image or of the splats: element i is start[i * stride].
template <class T>
struct Strided {
  T* start;  // Null for zeros.
  int64_t stride;
};

// Copies of a tile's surfels and channels, which are read once per block, and work space.
struct SurfelTile {
  Buffer<Surfel> surfels;
  Buffer<float> channels;          // [surfel][padded channels]
  Buffer<PlaneTrace> planes;       // Backward, for absolute gradients only.
  Buffer<uint16_t> blocks;         // Blocks of the tile that each surfel reaches.
  Buffer<uint32_t> in_block;       // Surfels that reach the current block.
  Buffer<float> weights;           // [entry][lane] of the current block.
  Buffer<float> cotangents;        // [pixel][channel] of the current block, a pass after the other.
  Buffer<float> channel_lanes;     // [channel][lane], the same but zero where detached.
  Buffer<float> spare_row;         // Where sums of entries that are not there go.
};

// Everything that backward needs of forward, and buffers worth keeping. Blocks are numbered
// [tile][block in tile]; surfels in a tile count from its nearest.
struct SurfelImage {
  ImageSize size{};
  int64_t num_splats = 0;
  // Features, then depth and normals where wanted, then zeros up to a multiple of four.
  int num_features = 0, num_channels = 0, padded = 0;
  bool has_depth = false, has_normals = false;
  bool has_depth_outputs = false;  // Distortion, median depth.
  Buffer<Surfel> surfels;
  Buffer<SurfelReach> reaches;
  Buffer<TileRect> rects;
  Buffer<float> channels;  // [splat][padded]
  TileBins bins;
  BlockLists lists;
  Buffer<uint32_t> tile_used;   // Surfels of each tile up to the last that contributed.
  Buffer<float> transmittance;  // [block][lane], after the last surfel.
  Buffer<float> depth_sum;      // [block][lane], sum of w (z - z of the tile's nearest surfel).
  Buffer<int32_t> median;       // [block][lane], surfel in the tile; -1 for none.
  Buffer<float> partials;       // Backward: [pair][padded + kGeometrySums].
  std::vector<SurfelTile> scratch;  // Per thread.
};

// Channels are composited 16, 8 or 4 at a time.
constexpr int pass_width(int remaining) { return remaining > 8 ? 16 : remaining > 4 ? 8 : 4; }
constexpr int padded_channels(int count) {
  int total = 0;
  do total += pass_width(count - total);
  while (total < count);
  return total;
}

// Copies the first `count` surfels of a tile.
void load_tile(const SurfelImage& image, int64_t tile, uint32_t count, SurfelTile& local);

struct SurfelOutputs {
  std::vector<Strided<float>> channels;
  std::vector<float> background;  // One per channel.
  float* alpha;
  float* distortion;  // May be null, likewise below.
  float* median_depth;
  float* transmittance;  // Apart from alpha, because 1 - alpha has lost its digits.
};
// Fills the images from image.surfels, .reaches, .channels and .bins. Throws std::bad_alloc.
void composite_surfels(SurfelImage& image, int64_t num_threads, const SurfelOutputs& out);

struct SurfelCotangents {
  std::vector<Strided<const float>> channels;
  std::vector<float> background;
  const float* alpha;  // May be null, likewise below.
  const float* distortion;
  const float* median_depth;
  int num_detached;  // Of the features, the last this many give no gradient to shape and opacity.
};
struct SurfelGradients {
  const float* means2d;  // Inputs of forward.
  const double* rows;
  const float* opacities;
  std::vector<Strided<float>> channels;
  float *grad_means2d, *grad_opacities;
  double* grad_rows;
  float* grad_depths;  // Without the part that comes through a channel.
  float* probe;        // Camera z times dL/d(X_z, Y_z); may be null, likewise below.
  float* absolute;     // The same with absolute values of each pixel.
};
// Throws std::bad_alloc.
void backpropagate_surfels(SurfelImage& image, int64_t num_threads, const SurfelCotangents& in,
                           const SurfelGradients& out);

// A surfel at sixteen pixels. Where its plane is not hit, numbers may be infinite or none.
struct Hit {
  Floats dx, dy;
  Floats u, v, inverse_w;
  Floats exact, blurred;  // Exponents of two: of the hit, of the low-pass.
  Mask exists;
};

SPLATIR_INLINE Hit hit_at(const Surfel& s, Floats px, Floats py) {
  Hit hit;
  hit.dx = px - Floats(s.x);
  hit.dy = py - Floats(s.y);
  const Floats u = Floats(s.u) + hit.dx * Floats(s.u_dx) + hit.dy * Floats(s.u_dy);
  const Floats v = Floats(s.v) + hit.dx * Floats(s.v_dx) + hit.dy * Floats(s.v_dy);
  const Floats w = Floats(s.w) + hit.dx * Floats(s.w_dx) + hit.dy * Floats(s.w_dy);
  hit.exists = w != Floats(0.0f);
  hit.inverse_w = reciprocal(w);
  hit.u = u * hit.inverse_w;
  hit.v = v * hit.inverse_w;
  hit.exact = hit.u * hit.u + hit.v * hit.v;
  hit.blurred = Floats(kBlurExponent) * (hit.dx * hit.dx + hit.dy * hit.dy);
  return hit;
}

// Alpha before it is capped.
SPLATIR_INLINE Floats uncapped_alpha(const Surfel& s, const Hit& hit) {
  // In this order: of not-a-number and a number, `min` gives the second.
  return exp2(Floats(s.log2_opacity) - min(hit.exact, hit.blurred));
}

// Calls body(lane, pixel) for the block's pixels; pixels count row by row over the image.
template <class Body>
SPLATIR_INLINE void for_each_pixel(const BlockGeometry& block, int64_t image_width, Body body) {
  for (int64_t row = 0; row < block.rows; ++row)
    for (int64_t column = 0; column < block.columns; ++column)
      body(4 * row + column, (block.y + row) * image_width + block.x + column);
}

}  // namespace splatir
