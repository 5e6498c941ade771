// Images of ellipsoids: alpha compositing of 4x4-pixel blocks, one vector lane per pixel.
#include <algorithm>

#include "ellipsoid.h"
#include "threads.h"

namespace splatir {
namespace {

// Splats whose records are fetched before they are copied.
constexpr uint32_t kPrefetchAhead = 12;

// What a block's pixels have after the last splat.
struct BlockResult {
  Floats transmittance;
  Ints median_pair;
  uint32_t num_entries;
};

// Copies one splat's channels into a padded row.
SPLATIR_INLINE void copy_row(const Channels& channels, const float* features, float depth,
                             float* row) {
  int64_t c = 0;
  for (; c + 4 <= channels.features; c += 4) store_quad(row + c, load_quad(features + c));
  for (; c < channels.features; ++c) row[c] = features[c];
  if (channels.has_depth) row[c++] = depth;
  for (; c < channels.padded; ++c) row[c] = 0.0f;
}

// For each block of the tile, the least q over its pixel centres is compared with the reach.
// Convexity puts that minimum at the centre if it is inside, else on one of the two nearest edges.
SPLATIR_INLINE uint32_t blocks_reached(const Ellipse& e, Floats tile_x, Floats tile_y) {
  const Floats zero(0.0f), side(static_cast<float>(kBlockSize - 1));
  const Floats left = tile_x - Floats(e.mean_x), top = tile_y - Floats(e.mean_y);
  const Floats right = left + side, bottom = top + side;
  const Floats edge_x = clamp(zero, left, right), edge_y = clamp(zero, top, bottom);
  const Floats x_on_edge = clamp(edge_y * Floats(-e.slope), left, right);
  const Floats y_on_edge = clamp(edge_x * Floats(-e.column_slope), top, bottom);
  const auto minus_q = [&](Floats x, Floats y) {
    const Floats along = x + Floats(e.slope) * y;
    return Floats(e.minus_along) * along * along + Floats(e.minus_across) * y * y;
  };
  const Floats nearest = max(minus_q(edge_x, y_on_edge), minus_q(x_on_edge, edge_y));
  return bits(Floats(-e.reach) <= nearest);
}

void find_blocks(int64_t tile_x, int64_t tile_y, uint32_t count, TileSplats& local) {
  const Floats x = load(kBlockX) + Floats(static_cast<float>(tile_x * kTileSize));
  const Floats y = load(kBlockY) + Floats(static_cast<float>(tile_y * kTileSize));
  for (uint32_t k = 0; k < count; ++k)
    local.blocks[k] = static_cast<uint16_t>(blocks_reached(local.ellipses[k], x, y));
}

// Composites the candidates onto one block: `sums` are the first kWidth channels. Also lists the
// splats that contributed and, for later passes over more channels, their weights.
template <int kWidth, bool kMedian, bool kKeepWeights>
SPLATIR_INLINE BlockResult composite(TileSplats& local, uint32_t num_candidates,
                                     const BlockGeometry& block, int64_t stride,
                                     BlockEntry* entries, Floats (&sums)[kWidth]) {
  const Floats px = load(kLaneX) + Floats(static_cast<float>(block.x));
  const Floats py = load(kLaneY) + Floats(static_cast<float>(block.y));
  const uint32_t* candidates = local.in_block.data();
  const Ellipse* ellipses = local.ellipses.data();
  const float* rows = local.rows.data();
  Mask live = mask_from_bits(block.pixels_inside());
  Floats transmittance(1.0f);
  Ints median(static_cast<int32_t>(kNoPair));
  uint32_t num_entries = 0;
  for (Floats& sum : sums) sum = Floats(0.0f);
  for (uint32_t i = 0; i < num_candidates; ++i) {
    const uint32_t pair = candidates[i];
    const Ellipse& e = ellipses[pair];
    const float* row = rows + pair * stride;
    const Floats dx = px - Floats(e.mean_x), dy = py - Floats(e.mean_y);
    const Floats along = dx + Floats(e.slope) * dy;
    const Floats power = Floats(e.minus_along) * along * along + Floats(e.minus_across) * dy * dy;
    const Floats capped = min(Floats(e.opacity) * exp2(power), Floats(kMaxAlpha));
    Mask hit = and_less_equal(live, Floats(kMinAlpha), capped);
    Floats alpha = keep(hit, capped);
    Floats next = transmittance - transmittance * alpha;
    // Lanes that are not hit keep a transmittance above the minimum: only hits can stop.
    const Mask stops = next <= Floats(kMinTransmittance);
    if (__builtin_expect(any(stops), 0)) {
      live = live & ~stops;
      if (!any(live)) break;
      hit = hit & ~stops;
      alpha = keep(hit, capped);
      next = transmittance - transmittance * alpha;
    }
    const uint32_t pixels = bits(hit);
    const Floats weight = alpha * transmittance;
    if (kMedian)
      median = select(hit & (Floats(0.5f) < transmittance), Ints(static_cast<int32_t>(pair)), median);
    transmittance = next;
    entries[num_entries] = BlockEntry{pair, pixels};
    if (kKeepWeights) store(local.weights.data() + num_entries * kLanes, weight);
    num_entries += pixels != 0;
    for (int c = 0; c < kWidth; ++c) sums[c] += weight * Floats(row[c]);
  }
  return BlockResult{transmittance, median, num_entries};
}

// Channels after the first sixteen, from the weights that `composite` kept.
template <int kWidth>
SPLATIR_INLINE void composite_more(const TileSplats& local, const BlockEntry* entries,
                                   uint32_t num_entries, int64_t stride, int64_t first,
                                   Floats (&sums)[kWidth]) {
  for (Floats& sum : sums) sum = Floats(0.0f);
  for (uint32_t i = 0; i < num_entries; ++i) {
    const Floats weight = load(local.weights.data() + i * kLanes);
    const float* row = local.rows.data() + entries[i].pair * stride + first;
    for (int c = 0; c < kWidth; ++c) sums[c] += weight * Floats(row[c]);
  }
}

class Forward {
 public:
  Forward(EllipsoidContext& context, const EllipsoidInputs& inputs, const EllipsoidImages& images)
      : context_(context), inputs_(inputs), images_(images) {}

  void draw_tile(int thread, int64_t tile) {
    TileSplats& local = context_.scratch[thread];
    const int64_t tile_x = tile % context_.bins.tiles_x, tile_y = tile / context_.bins.tiles_x;
    const uint32_t begin = context_.bins.tile_begin[tile];
    const uint32_t count = context_.bins.tile_begin[tile + 1] - begin;
    gather_tile(context_, tile, count, inputs_, local);
    local.blocks.reserve(count + kLanes);
    local.in_block.reserve(count + kLanes);
    if (context_.channels.padded > 16) local.weights.reserve(count * kLanes);
    find_blocks(tile_x, tile_y, count, local);
    uint32_t used = 0;
    for (int b = 0; b < kBlocksPerTile; ++b) {
      const BlockGeometry block(tile_x, tile_y, b, context_.width, context_.height);
      if (block.is_empty()) continue;
      const uint32_t in_block =
          indices_with_bit(local.blocks.data(), count, b, local.in_block.data());
      BlockEntry* entries = context_.lists.room(thread, in_block + 1);
      const uint32_t listed = draw_block(local, block, tile * kBlocksPerTile + b, begin, in_block, entries);
      context_.lists.finish(thread, tile * kBlocksPerTile + b, listed);
      if (listed > 0) used = std::max(used, entries[listed - 1].pair + 1);
    }
    context_.tile_used[tile] = used;
  }

 private:
  uint32_t draw_block(TileSplats& local, const BlockGeometry& block, int64_t index,
                      uint32_t tile_begin, uint32_t in_block, BlockEntry* entries) {
    const int64_t stride = context_.channels.padded;
    if (context_.has_median) {
      if (stride > 16) return draw<16, true, true>(local, block, index, tile_begin, in_block, entries);
      if (stride == 16) return draw<16, true, false>(local, block, index, tile_begin, in_block, entries);
      if (stride == 8) return draw<8, true, false>(local, block, index, tile_begin, in_block, entries);
      return draw<4, true, false>(local, block, index, tile_begin, in_block, entries);
    }
    if (stride > 16) return draw<16, false, true>(local, block, index, tile_begin, in_block, entries);
    if (stride == 16) return draw<16, false, false>(local, block, index, tile_begin, in_block, entries);
    if (stride == 8) return draw<8, false, false>(local, block, index, tile_begin, in_block, entries);
    return draw<4, false, false>(local, block, index, tile_begin, in_block, entries);
  }

  template <int kWidth, bool kMedian, bool kKeepWeights>
  __attribute__((noinline)) uint32_t draw(TileSplats& local, const BlockGeometry& block,
                                          int64_t index, uint32_t tile_begin, uint32_t in_block,
                                          BlockEntry* entries) {
    const int64_t stride = context_.channels.padded;
    Floats sums[kWidth];
    const BlockResult result = composite<kWidth, kMedian, kKeepWeights>(local, in_block, block, stride, entries, sums);
    write_alpha(block, result.transmittance);
    write_channels(block, result.transmittance, 0, sums);
    if (kMedian) write_median(block, index, tile_begin, result.median_pair);
    if (kKeepWeights) {
      for (int64_t first = kWidth; first < stride;) {
        const int64_t width = Channels::next_width(stride - first);
        if (width == 16) draw_more<16>(local, block, entries, result, first);
        if (width == 8) draw_more<8>(local, block, entries, result, first);
        if (width == 4) draw_more<4>(local, block, entries, result, first);
        first += width;
      }
    }
    return result.num_entries;
  }

  template <int kWidth>
  void draw_more(const TileSplats& local, const BlockGeometry& block, const BlockEntry* entries,
                 const BlockResult& result, int64_t first) {
    Floats sums[kWidth];
    composite_more(local, entries, result.num_entries, context_.channels.padded, first, sums);
    write_channels(block, result.transmittance, first, sums);
  }

  void write_alpha(const BlockGeometry& block, Floats transmittance) {
    alignas(64) float lanes[kLanes];
    store(lanes, transmittance);
    for (int64_t y = 0; y < block.rows; ++y) {
      for (int64_t x = 0; x < block.columns; ++x) {
        const int64_t pixel = (block.y + y) * context_.width + block.x + x;
        images_.alpha[pixel] = 1.0f - lanes[4 * y + x];
        if (images_.transmittance != nullptr) images_.transmittance[pixel] = lanes[4 * y + x];
      }
    }
  }

  template <int kWidth>
  void write_channels(const BlockGeometry& block, Floats transmittance, int64_t first,
                      const Floats (&sums)[kWidth]) {
    alignas(64) float lanes[kWidth][kLanes];
    const Channels& channels = context_.channels;
    const int64_t num_features = std::min<int64_t>(kWidth, channels.features - first);
    for (int c = 0; c < kWidth; ++c) {
      Floats sum = sums[c];
      if (inputs_.background != nullptr && c < num_features)
        sum += transmittance * Floats(inputs_.background[first + c]);
      store(lanes[c], sum);
    }
    const int64_t depth = channels.has_depth ? channels.features - first : -1;
    for (int64_t y = 0; y < block.rows; ++y) {
      for (int64_t x = 0; x < block.columns; ++x) {
        const int64_t pixel = (block.y + y) * context_.width + block.x + x, lane = 4 * y + x;
        float* out = images_.features + pixel * channels.features + first;
        for (int64_t c = 0; c < num_features; ++c) out[c] = lanes[c][lane];
        if (images_.depth != nullptr && depth >= 0 && depth < kWidth)
          images_.depth[pixel] = lanes[depth][lane];
      }
    }
  }

  void write_median(const BlockGeometry& block, int64_t index, uint32_t tile_begin, Ints median) {
    uint32_t* pairs = &context_.median_pair[index * kLanes];
    store(reinterpret_cast<int32_t*>(pairs), median);
    for (int64_t y = 0; y < block.rows; ++y) {
      for (int64_t x = 0; x < block.columns; ++x) {
        const uint32_t pair = pairs[4 * y + x];
        images_.median[(block.y + y) * context_.width + block.x + x] =
            pair == kNoPair ? 0.0f : inputs_.depths[context_.bins.pair_splat[tile_begin + pair]];
      }
    }
  }

  EllipsoidContext& context_;
  const EllipsoidInputs& inputs_;
  const EllipsoidImages& images_;
};

}  // namespace

void gather_tile(const EllipsoidContext& context, int64_t tile, uint32_t count,
                 const EllipsoidInputs& inputs, TileSplats& local) {
  const Channels& channels = context.channels;
  const uint32_t* splats = context.bins.pair_splat.data() + context.bins.tile_begin[tile];
  Ellipse* ellipses = local.ellipses.reserve(count);
  float* row = local.rows.reserve(count * channels.padded);
  for (uint32_t k = 0; k < count; ++k, row += channels.padded) {
    if (k + kPrefetchAhead < count) {
      const uint32_t later = splats[k + kPrefetchAhead];
      __builtin_prefetch(&context.ellipses[later]);
      __builtin_prefetch(inputs.features + later * channels.features);
    }
    const uint32_t splat = splats[k];
    ellipses[k] = context.ellipses[splat];
    copy_row(channels, inputs.features + splat * channels.features, inputs.depths[splat], row);
  }
}

void draw_ellipsoids(EllipsoidContext& context, int64_t num_threads, const EllipsoidInputs& inputs,
                     const EllipsoidImages& images) {
  const int64_t num_tiles = context.bins.num_tiles();
  context.lists.start(num_threads, num_tiles * kBlocksPerTile);
  context.tile_used.reserve(num_tiles);
  if (context.has_median) context.median_pair.reserve(num_tiles * kBlocksPerTile * kLanes);
  if (static_cast<int64_t>(context.scratch.size()) < num_threads) context.scratch.resize(num_threads);
  Forward forward(context, inputs, images);
  MemoryGuard guard;
  parallel_tasks(num_threads, num_tiles, [&](int thread, int64_t tile) {
    guard.run([&] { forward.draw_tile(thread, tile); });
  });
  guard.rethrow();
}

}  // namespace splatir
