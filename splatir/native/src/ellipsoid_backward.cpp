// Gradients of the ellipsoid images.
//
// Per block, front to back: replay the contributions of the forward pass (alpha_k, weight
// w_k = alpha_k T_k) and project the image gradient v on each splat's channels, g_k = v . f_k.
// Then back to front: B_k = what lies behind k as seen at k, in units of the loss, obeys
// B_{k-1} = B_k + alpha_k (g_k - B_k), and d loss / d alpha_k = T_k (g_k - B_k). No division by
// 1 - alpha, which loses precision for opaque splats.
//
// Splats' sums go to one row per (splat, tile), then rows are added in a fixed order.
#include <algorithm>
#include <cstring>

#include "ellipsoid.h"
#include "pair_rows.h"
#include "threads.h"

namespace splatir {
namespace {

// Entries handled together, so that they share loads of the image gradient.
constexpr int kGroup = kEntryGroup;
// Sums of d loss / d sigma times 1, l, dy, l^2, l dy, dy^2 with l = dx + slope dy, and absolute
// screen gradients x, y.
constexpr int kMoments = 8;

// A row vector of `kWidth` channels in as few registers as this instruction set has them.
template <int kWidth>
struct RowVector {
  static constexpr int kQuads = kWidth / 4;
  Quad v[kQuads];
  SPLATIR_INLINE void clear() {
    for (Quad& q : v) q = Quad{};
  }
  SPLATIR_INLINE void read(const float* from) {
    for (int q = 0; q < kQuads; ++q) v[q] = load_quad(from + 4 * q);
  }
  SPLATIR_INLINE void add_product(float a, const RowVector& b) {
    for (int q = 0; q < kQuads; ++q) v[q] += a * b.v[q];
  }
  SPLATIR_INLINE void add_to(float* to) const {
    for (int q = 0; q < kQuads; ++q) store_quad(to + 4 * q, load_quad(to + 4 * q) + v[q]);
  }
};

#if defined(__AVX2__)
template <>
struct RowVector<8> {
  __m256 v;
  SPLATIR_INLINE void clear() { v = _mm256_setzero_ps(); }
  SPLATIR_INLINE void read(const float* from) { v = _mm256_loadu_ps(from); }
  SPLATIR_INLINE void add_product(float a, const RowVector& b) { v += _mm256_set1_ps(a) * b.v; }
  SPLATIR_INLINE void add_to(float* to) const { _mm256_storeu_ps(to, _mm256_loadu_ps(to) + v); }
};

template <>
struct RowVector<16> {
  Floats v;
  SPLATIR_INLINE void clear() { v = Floats(0.0f); }
  SPLATIR_INLINE void read(const float* from) { v = load(from); }
  SPLATIR_INLINE void add_product(float a, const RowVector& b) { v += Floats(a) * b.v; }
  SPLATIR_INLINE void add_to(float* to) const { store(to, load(to) + v); }
};
#endif

// The image gradients of one block, both ways round, zero outside the image.
struct BlockGradients {
  float* by_pixel;    // [lane][padded channels]
  float* by_channel;  // [padded channels][lane], zero for detached channels.
  Floats behind_all;  // d loss / d (transmittance behind the last splat).
};

class Backward {
 public:
  Backward(const EllipsoidContext& context, EllipsoidScratch& scratch,
           const EllipsoidInputs& inputs, const EllipsoidImageGradients& v_images)
      : context_(context), scratch_(scratch), inputs_(inputs), v_images_(v_images),
        stride_(context.channels.padded),
        rows_(context.bins, context.rects.data(), context.tile_used.data(),
              scratch.partials.data(), stride_ + kMoments) {}

  template <bool kAbsolute>
  void differentiate_tile(int thread, int64_t tile) {
    const uint32_t used = context_.tile_used[tile];
    if (used == 0) return;
    TileSplats& local = scratch_.threads[thread];
    gather_tile(context_, tile, used, inputs_, local);
    float* partials = rows_.clear(tile);
    for (int b = 0; b < kBlocksPerTile; ++b) {
      const int64_t index = tile * kBlocksPerTile + b;
      const uint32_t count = round_up(context_.lists.count(index));
      if (count == 0) continue;
      const BlockGeometry block(tile % context_.bins.tiles_x, tile / context_.bins.tiles_x, b,
                                context_.width, context_.height);
      const BlockEntry* entries = context_.lists.entries(index);
      local.weights.reserve(count * size_t{kLanes});
      local.alphas.reserve(count * size_t{kLanes});
      local.projections.reserve(count * size_t{kLanes});
      const BlockGradients v = read_gradients(block, local);
      replay(local, block, entries, count, v);
      walk_back<kAbsolute>(local, block, entries, count, v, partials);
      if (v_images_.median != nullptr) add_median(block, index, partials);
    }
  }

  void sum_rows(int64_t begin, int64_t end, const EllipsoidGradients& out);

 private:
  BlockGradients read_gradients(const BlockGeometry& block, TileSplats& local) const;
  void replay(TileSplats& local, const BlockGeometry& block, const BlockEntry* entries,
              uint32_t count, const BlockGradients& v) const;
  template <bool kAbsolute>
  void walk_back(const TileSplats& local, const BlockGeometry& block, const BlockEntry* entries,
                 uint32_t count, const BlockGradients& v, float* partials) const;
  void add_median(const BlockGeometry& block, int64_t index, float* partials) const;
  void write_gradients(int64_t splat, const float* sums, const EllipsoidGradients& out) const;

  const EllipsoidContext& context_;
  EllipsoidScratch& scratch_;
  const EllipsoidInputs& inputs_;
  const EllipsoidImageGradients& v_images_;
  const int64_t stride_;
  const PairRows rows_;
};

BlockGradients Backward::read_gradients(const BlockGeometry& block, TileSplats& local) const {
  const Channels& channels = context_.channels;
  float* by_pixel = local.gradients.reserve(2 * kLanes * stride_);
  float* by_channel = by_pixel + kLanes * stride_;
  alignas(64) float v_alpha[kLanes] = {};
  if (block.rows < kBlockSize || block.columns < kBlockSize)
    std::memset(by_pixel, 0, kLanes * stride_ * sizeof(float));
  for (int64_t y = 0; y < block.rows; ++y) {
    for (int64_t x = 0; x < block.columns; ++x) {
      const int64_t pixel = (block.y + y) * context_.width + block.x + x, lane = 4 * y + x;
      fill_row(channels, v_images_.features + pixel * channels.features,
               v_images_.depth == nullptr ? nullptr : v_images_.depth + pixel,
               by_pixel + lane * stride_);
      if (v_images_.alpha != nullptr) v_alpha[lane] = v_images_.alpha[pixel];
    }
  }
  for (int64_t c = 0; c < stride_; c += 4) {
    for (int64_t lane = 0; lane < kLanes; lane += 4) {
      Quad quads[4];
      for (int i = 0; i < 4; ++i) quads[i] = load_quad(by_pixel + (lane + i) * stride_ + c);
      transpose(quads);
      for (int i = 0; i < 4; ++i) store_quad(by_channel + (c + i) * kLanes + lane, quads[i]);
    }
  }
  std::memset(by_channel + (channels.features - v_images_.num_detached) * kLanes, 0,
              v_images_.num_detached * kLanes * sizeof(float));
  // What lies behind all splats is the background, at the cost of alpha.
  Floats behind_all = -load(v_alpha);
  if (inputs_.background != nullptr)
    for (int64_t c = 0; c < channels.features; ++c)
      behind_all += Floats(inputs_.background[c]) * load(by_channel + c * kLanes);
  return BlockGradients{by_pixel, by_channel, behind_all};
}

void Backward::replay(TileSplats& local, const BlockGeometry& block, const BlockEntry* entries,
                      uint32_t count, const BlockGradients& v) const {
  const Floats px = load(kLaneX) + Floats(static_cast<float>(block.x));
  const Floats py = load(kLaneY) + Floats(static_cast<float>(block.y));
  float* alphas = local.alphas.data();
  float* weights = local.weights.data();
  float* projections = local.projections.data();
  Floats transmittance(1.0f);
  for (uint32_t i = 0; i < count; i += kGroup) {
    const float* rows[kGroup];
    for (int j = 0; j < kGroup; ++j) {
      const BlockEntry entry = entries[i + j];
      const Ellipse& e = local.ellipses[entry.pair];
      rows[j] = local.rows.data() + entry.pair * stride_;
      const Floats alpha = keep(mask_from_bits(entry.pixels), capped_alpha(e, px, py));
      store(alphas + (i + j) * kLanes, alpha);
      store(weights + (i + j) * kLanes, alpha * transmittance);
      transmittance = transmittance - transmittance * alpha;
    }
    Floats sums[kGroup];
    for (Floats& sum : sums) sum = Floats(0.0f);
    for (int64_t c = 0; c < stride_; c += 4) {
      for (int64_t d = c; d < c + 4; ++d) {
        const Floats channel = load(v.by_channel + d * kLanes);
        for (int j = 0; j < kGroup; ++j) sums[j] += channel * Floats(rows[j][d]);
      }
    }
    for (int j = 0; j < kGroup; ++j) store(projections + (i + j) * kLanes, sums[j]);
  }
}

// Adds sum over pixels of weight * image gradient to the channels of each entry's row.
template <int kWidth>
SPLATIR_INLINE void add_channels(const float* weights, const float* by_pixel, int64_t stride,
                                 float* const* rows, int64_t first) {
  RowVector<kWidth> sums[kGroup];
  for (auto& sum : sums) sum.clear();
  for (int lane = 0; lane < kLanes; ++lane) {
    RowVector<kWidth> v;
    v.read(by_pixel + lane * stride + first);
    for (int j = 0; j < kGroup; ++j) sums[j].add_product(weights[j * kLanes + lane], v);
  }
  for (int j = 0; j < kGroup; ++j) sums[j].add_to(rows[j] + first);
}

// Sums over the pixels of each of four entries; lane j of a result belongs to entry j.
SPLATIR_INLINE Quad sum_each(Floats (&v)[kGroup]) {
  transpose_quads(v);
  return sum_quads((v[0] + v[1]) + (v[2] + v[3]));
}

// From the entries' centres to a block's, and their slopes: one lane per entry.
struct GroupGeometry {
  Quad to_block_x, to_block_y, slope;
};

// Moments of d loss / d sigma about each entry's centre, in the order of the row.
SPLATIR_INLINE void add_moments(Floats (&v)[kGroup], const GroupGeometry& g, Quad absolute_x,
                                Quad absolute_y, float* const* moments) {
  // About the block's centre first: lane 4y + j of v[x] becomes pixel (x, y) of entry j.
  transpose_quads(v);
  const Floats outer = v[0] + v[3], inner = v[1] + v[2];
  const Floats sum = outer + inner;
  const Floats x = Floats(1.5f) * (v[3] - v[0]) + Floats(0.5f) * (v[2] - v[1]);
  const Floats xx = Floats(2.25f) * outer + Floats(0.25f) * inner;
  const Floats row_y = load(kLaneY) - Floats(2.0f);
  const Floats y = row_y * sum;
  const Quad m = sum_quads(sum), mx = sum_quads(x), my = sum_quads(y);
  const Quad mxx = sum_quads(xx), mxy = sum_quads(row_y * x), myy = sum_quads(row_y * y);
  // Sheared while still small, so that needles keep the digits of l.
  const Quad ml = mx + g.slope * my, mly = mxy + g.slope * myy;
  const Quad mll = mxx + g.slope * (mxy + mly);
  const Quad to_block_l = g.to_block_x + g.slope * g.to_block_y;
  const Quad l = ml + to_block_l * m, y_sum = my + g.to_block_y * m;
  Quad first[4] = {m, l, y_sum, mll + to_block_l * (ml + l)};
  Quad second[4] = {mly + to_block_l * my + g.to_block_y * l, myy + g.to_block_y * (my + y_sum),
                    absolute_x, absolute_y};
  transpose(first);
  transpose(second);
  for (int j = 0; j < kGroup; ++j) {
    store_quad(moments[j], load_quad(moments[j]) + first[j]);
    store_quad(moments[j] + 4, load_quad(moments[j] + 4) + second[j]);
  }
}

template <bool kAbsolute>
void Backward::walk_back(const TileSplats& local, const BlockGeometry& block,
                         const BlockEntry* entries, uint32_t count, const BlockGradients& v,
                         float* partials) const {
  const float centre_x = static_cast<float>(block.x) + 2.0f;
  const float centre_y = static_cast<float>(block.y) + 2.0f;
  Floats behind = v.behind_all;
  for (int64_t i = static_cast<int64_t>(count) - kGroup; i >= 0; i -= kGroup) {
    const float* weights = local.weights.data() + i * kLanes;
    Floats v_sigma[kGroup];
    for (int j = kGroup - 1; j >= 0; --j) {
      const Floats alpha = load(local.alphas.data() + (i + j) * kLanes);
      const Floats over = load(local.projections.data() + (i + j) * kLanes) - behind;
      // d alpha / d sigma = -alpha, 0 where alpha is capped.
      v_sigma[j] = keep(alpha < Floats(kMaxAlpha), -load(weights + j * kLanes) * over);
      behind += alpha * over;
    }
    float *rows[kGroup], *moments[kGroup];
    GroupGeometry geometry;
    Quad absolute_x{}, absolute_y{};
    Floats screen_x[kGroup], screen_y[kGroup];
    for (int j = 0; j < kGroup; ++j) {
      const uint32_t pair = entries[i + j].pair;
      const Ellipse& e = local.ellipses[pair];
      rows[j] = partials + pair * rows_.width();
      moments[j] = rows[j] + stride_;
      geometry.to_block_x[j] = centre_x - e.mean_x;
      geometry.to_block_y[j] = centre_y - e.mean_y;
      geometry.slope[j] = e.slope;
      if (kAbsolute) {
        const Floats dx = load(kLaneX) + Floats(static_cast<float>(block.x) - e.mean_x);
        const Floats dy = load(kLaneY) + Floats(static_cast<float>(block.y) - e.mean_y);
        const Floats along = Floats(e.minus_along) * (dx + Floats(e.slope) * dy);
        screen_x[j] = abs(v_sigma[j] * along);
        screen_y[j] = abs(v_sigma[j] * (Floats(e.slope) * along + Floats(e.minus_across) * dy));
      }
    }
    if (kAbsolute) {
      absolute_x = sum_each(screen_x);
      absolute_y = sum_each(screen_y);
    }
    add_moments(v_sigma, geometry, absolute_x, absolute_y, moments);
    for (int64_t first = 0; first < stride_;) {
      const int64_t width = Channels::next_width(stride_ - first);
      if (width == 16) add_channels<16>(weights, v.by_pixel, stride_, rows, first);
      if (width == 8) add_channels<8>(weights, v.by_pixel, stride_, rows, first);
      if (width == 4) add_channels<4>(weights, v.by_pixel, stride_, rows, first);
      first += width;
    }
  }
}

void Backward::add_median(const BlockGeometry& block, int64_t index, float* partials) const {
  const uint32_t* pairs = context_.median_pair.data() + index * kLanes;
  for (int64_t y = 0; y < block.rows; ++y) {
    for (int64_t x = 0; x < block.columns; ++x) {
      const uint32_t pair = pairs[4 * y + x];
      const int64_t pixel = (block.y + y) * context_.width + block.x + x;
      if (pair != kNoPair)
        partials[pair * rows_.width() + context_.channels.features] += v_images_.median[pixel];
    }
  }
}

void Backward::sum_rows(int64_t begin, int64_t end, const EllipsoidGradients& out) {
  Buffer<float> totals;
  float* sums = totals.reserve(rows_.width());
  for (int64_t i = begin; i < end; ++i) {
    rows_.add_up(i, sums);
    write_gradients(i, sums, out);
  }
}

// Chain rule from sums over pixels to the splat; all zero if it was culled.
void Backward::write_gradients(int64_t splat, const float* sums,
                               const EllipsoidGradients& out) const {
  const int64_t num_features = context_.channels.features;
  std::memcpy(out.features + splat * num_features, sums, num_features * sizeof(float));
  if (out.depths != nullptr) out.depths[splat] = sums[num_features];
  const float* m = sums + stride_;
  const bool culled = context_.rects[splat].count() == 0;
  const Ellipse e = culled ? Ellipse{} : context_.ellipses[splat];
  const float along = -2.0f * kLn2 * e.minus_along, across = -2.0f * kLn2 * e.minus_across;
  const float v_x = -along * m[1];
  out.means2d[2 * splat] = v_x;
  out.means2d[2 * splat + 1] = e.slope * v_x - across * m[2];
  out.factors[3 * splat] = 0.5f * m[3];
  out.factors[3 * splat + 1] = along * m[4];
  out.factors[3 * splat + 2] = 0.5f * m[5];
  out.opacities[splat] = culled ? 0.0f : -m[0] / e.opacity;
  if (out.absgrad != nullptr) {
    out.absgrad[2 * splat] = 2.0f * kLn2 * m[6];
    out.absgrad[2 * splat + 1] = 2.0f * kLn2 * m[7];
  }
}

}  // namespace

void differentiate_ellipsoids(const EllipsoidContext& context, EllipsoidScratch& scratch,
                              int64_t num_threads, const EllipsoidInputs& inputs,
                              const EllipsoidImageGradients& v_images,
                              const EllipsoidGradients& gradients) {
  const int64_t num_tiles = context.bins.num_tiles();
  if (scratch.threads.size() < static_cast<size_t>(num_threads))
    scratch.threads.resize(num_threads);
  const uint64_t num_pairs = context.bins.num_pairs();
  scratch.partials.reserve(num_pairs * (context.channels.padded + kMoments));
  Backward backward(context, scratch, inputs, v_images);
  MemoryGuard guard;
  parallel_tasks(num_threads, num_tiles, [&](int thread, int64_t tile) {
    guard.run([&] {
      if (gradients.absgrad != nullptr)
        backward.differentiate_tile<true>(thread, tile);
      else
        backward.differentiate_tile<false>(thread, tile);
    });
  });
  guard.rethrow();
  parallel_ranges(num_threads, context.num_splats, [&](int, int64_t begin, int64_t end) {
    guard.run([&] { backward.sum_rows(begin, end, gradients); });
  });
  guard.rethrow();
}

}  // namespace splatir
