// What the forward pass of the ellipsoid rasteriser leaves for its backward pass.
//
// An ellipsoid's image is an ellipse: alpha = opacity exp(-sigma) with
// sigma = (along (dx + slope dy)^2 + across dy^2) / 2 and (dx, dy) = pixel - mean. Compared with
// the entries (a, b, c) of the conic, sigma = (a dx^2 + c dy^2) / 2 + b dx dy, this sum of squares
// takes one operation less, is never negative, and does not cancel for needles.
#pragma once
#include <cstdint>
#include <vector>

#include "blocks.h"
#include "buffers.h"
#include "channels.h"
#include "simd.h"
#include "tiles.h"

namespace splatir {

constexpr float kMinAlpha = 1.0f / 255.0f;
constexpr float kMaxAlpha = 0.999f;
constexpr float kMinTransmittance = 1e-4f;
constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.69314718f;

// One splat as the pixel loops read it. Exponents are in bits: alpha = opacity 2^-q,
// q = along (dx + slope dy)^2 + across dy^2.
struct Ellipse {
  float mean_x, mean_y;
  float minus_along, minus_across;
  float slope;         // -slope dy is the dx that is nearest the centre on row dy.
  float column_slope;  // The same for columns.
  float opacity;
  float reach;  // A block matters if q <= reach somewhere in it; a little generous.
};

SPLATIR_INLINE Floats capped_alpha(const Ellipse& e, Floats px, Floats py) {
  const Floats dx = px - Floats(e.mean_x), dy = py - Floats(e.mean_y);
  const Floats along = dx + Floats(e.slope) * dy;
  const Floats power = Floats(e.minus_along) * along * along + Floats(e.minus_across) * dy * dy;
  return min(Floats(e.opacity) * exp2(power), Floats(kMaxAlpha));
}

// Copies of a tile's splats in depth order, and per-tile work space of one thread.
struct TileSplats {
  Buffer<Ellipse> ellipses;
  Buffer<float> rows;         // [splat][padded channels]
  Buffer<uint16_t> blocks;    // Blocks of the tile that each splat reaches.
  Buffer<uint32_t> in_block;  // Splats that reach the current block.
  Buffer<float> weights;      // [entry][lane] of the current block.
  Buffer<float> alphas;       // Likewise, backward only.
  Buffer<float> projections;  // Likewise: gradient of the image along the splat's channels.
  Buffer<float> gradients;    // Image gradients of a block, by pixel and then by channel.
};

struct EllipsoidContext {
  int64_t num_splats = 0, width = 0, height = 0;
  Channels channels;
  bool has_median = false;
  Buffer<Ellipse> ellipses;
  Buffer<TileRect> rects;
  TileBins bins;
  BlockLists lists;
  // Pairs of each tile up to the last that contributed; later ones have no gradient.
  Buffer<uint32_t> tile_used;
  Buffer<uint32_t> median_pair;  // [block][lane]; kNoPair where no splat is the median.
  std::vector<TileSplats> scratch;
};

constexpr uint32_t kNoPair = UINT32_MAX;

// One image's splats: means2d [n, 2], factors (along, slope, across) [n, 3], opacities [n],
// depths [n], radii [n, 2], features [n, channels]; background [channels] may be null.
struct EllipsoidInputs {
  const float *means2d, *factors, *opacities, *depths;
  const int32_t* radii;
  const float *features, *background;
};

// [height, width, channels]; the last three may be null. The transmittance behind the last splat is
// wanted apart from alpha because 1 - alpha has lost its digits where it matters.
struct EllipsoidImages {
  float *features, *alpha, *depth, *median, *transmittance;
};

// Gradients of the loss to images; all but features may be null. Of the features' the last
// `num_detached` reach the splats' features but not their shape and opacity.
struct EllipsoidImageGradients {
  const float *features, *alpha, *depth, *median;
  int64_t num_detached;
};

// Gradients to inputs, as these are shaped; absgrad [n, 2] and depths may be null.
struct EllipsoidGradients {
  float *means2d, *absgrad, *factors, *opacities, *features, *depths;
};

// Fills `context.ellipses` and `context.rects`. Throws std::bad_alloc.
void prepare_ellipses(EllipsoidContext& context, int64_t num_threads,
                      const EllipsoidInputs& inputs);

// Draws the binned splats. Throws std::bad_alloc.
void draw_ellipsoids(EllipsoidContext& context, int64_t num_threads, const EllipsoidInputs& inputs,
                     const EllipsoidImages& images);

// Work space of a backward pass, apart from the context so that this can be replayed.
struct EllipsoidScratch {
  std::vector<TileSplats> threads;
  // [pair][padded channels + kMoments]; rows of pairs that did not contribute are never touched.
  Buffer<float> partials;
};

// Throws std::bad_alloc.
void differentiate_ellipsoids(const EllipsoidContext& context, EllipsoidScratch& scratch,
                              int64_t num_threads, const EllipsoidInputs& inputs,
                              const EllipsoidImageGradients& v_images,
                              const EllipsoidGradients& gradients);

// Copies the first `count` splats of a tile and their channels into `local`.
// Throws std::bad_alloc.
void gather_tile(const EllipsoidContext& context, int64_t tile, uint32_t count,
                 const EllipsoidInputs& inputs, TileSplats& local);

}  // namespace splatir
