// Images of ellipsoids: alpha compositing of 4x4-pixel blocks, one vector lane per pixel.
#include <algorithm>

#include "ellipsoid.h"
#include "threads.h"

namespace splatir {
namespace {

// Splats whose records are fetched before they are copied.
constexpr uint32_t kPrefetchAhead = 16;

// One block, the splats that may reach it, and where those that contribute are listed.
struct BlockTask {
  BlockGeometry block;
  int64_t index;         // Of the block in the image.
  uint32_t tile_begin;   // First pair of the tile.
  uint32_t num_candidates;
  BlockEntry* entries;
};

// What a block's pixels have after the last splat.
struct BlockResult {
  Floats transmittance;
  Ints median_pair;
  uint32_t num_entries;
};

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
SPLATIR_INLINE BlockResult composite(TileSplats& local, const BlockTask& task, int64_t stride,
                                     Floats (&sums)[kWidth]) {
  const Floats px = load(kLaneX) + Floats(static_cast<float>(task.block.x));
  const Floats py = load(kLaneY) + Floats(static_cast<float>(task.block.y));
  const uint32_t* candidates = local.in_block.data();
  const Ellipse* ellipses = local.ellipses.data();
  const float* rows = local.rows.data();
  Mask live = mask_from_bits(task.block.pixels_inside());
  Floats transmittance(1.0f);
  Ints median(static_cast<int32_t>(kNoPair));
  uint32_t num_entries = 0;
  for (Floats& sum : sums) sum = Floats(0.0f);
  for (uint32_t i = 0; i < task.num_candidates; ++i) {
    const uint32_t pair = candidates[i];
    const Ellipse& e = ellipses[pair];
    const float* row = rows + pair * stride;
    const Floats capped = capped_alpha(e, px, py);
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
    if (kMedian) {
      const Mask above_half = hit & (Floats(0.5f) < transmittance);
      median = select(above_half, Ints(static_cast<int32_t>(pair)), median);
    }
    transmittance = next;
    task.entries[num_entries] = BlockEntry{pair, pixels};
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
      : context_(context), inputs_(inputs), images_(images),
        draw_(context.has_median ? choose_draw<true>(context.channels.padded)
                                 : choose_draw<false>(context.channels.padded)) {}

  void draw_tile(int thread, int64_t tile) {
    TileSplats& local = context_.scratch[thread];
    const int64_t tile_x = tile % context_.bins.tiles_x, tile_y = tile / context_.bins.tiles_x;
    const uint32_t begin = context_.bins.tile_begin[tile];
    const uint32_t count = context_.bins.tile_begin[tile + 1] - begin;
    gather_tile(context_, tile, count, inputs_, local);
    local.blocks.reserve(count + kLanes);
    local.in_block.reserve(count + kLanes);
    if (context_.channels.padded > 16) local.weights.reserve(count * size_t{kLanes});
    find_blocks(tile_x, tile_y, count, local);
    uint32_t used = 0;
    for (int b = 0; b < kBlocksPerTile; ++b) {
      const BlockGeometry block(tile_x, tile_y, b, context_.width, context_.height);
      if (block.is_empty()) continue;
      const int64_t index = tile * kBlocksPerTile + b;
      const uint32_t candidates =
          indices_with_bit(local.blocks.data(), count, b, local.in_block.data());
      BlockEntry* entries = context_.lists.room(thread, candidates);
      const uint32_t listed = (this->*draw_)(local, {block, index, begin, candidates, entries});
      context_.lists.finish(thread, index, listed);
      if (listed > 0) used = std::max(used, entries[listed - 1].pair + 1);
    }
    context_.tile_used[tile] = used;
  }

 private:
  using Draw = uint32_t (Forward::*)(TileSplats&, const BlockTask&);

  template <bool kMedian>
  static Draw choose_draw(int64_t padded_channels) {
    if (padded_channels == 4) return &Forward::draw<4, kMedian, false>;
    if (padded_channels == 8) return &Forward::draw<8, kMedian, false>;
    if (padded_channels == 16) return &Forward::draw<16, kMedian, false>;
    return &Forward::draw<16, kMedian, true>;
  }

  // Returns the number of entries.
  template <int kWidth, bool kMedian, bool kKeepWeights>
  uint32_t draw(TileSplats& local, const BlockTask& task) {
    const int64_t stride = context_.channels.padded;
    Floats sums[kWidth];
    const BlockResult result =
        composite<kWidth, kMedian, kKeepWeights>(local, task, stride, sums);
    write_alpha(task.block, result.transmittance);
    write_channels(task.block, result.transmittance, 0, sums);
    if (kMedian) write_median(task, result.median_pair);
    if (kKeepWeights) {
      for (int64_t first = kWidth; first < stride;) {
        const int64_t width = Channels::next_width(stride - first);
        if (width == 16) draw_more<16>(local, task, result, first);
        if (width == 8) draw_more<8>(local, task, result, first);
        if (width == 4) draw_more<4>(local, task, result, first);
        first += width;
      }
    }
    return result.num_entries;
  }

  template <int kWidth>
  void draw_more(const TileSplats& local, const BlockTask& task, const BlockResult& result,
                 int64_t first) {
    Floats sums[kWidth];
    composite_more(local, task.entries, result.num_entries, context_.channels.padded, first, sums);
    write_channels(task.block, result.transmittance, first, sums);
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
    const Channels& channels = context_.channels;
    const int64_t depth = channels.has_depth ? channels.features - first : -1;
    for (int64_t c = 0; c < kWidth; c += 4) {
      const int64_t num_features = std::min<int64_t>(4, channels.features - first - c);
      Floats columns[4] = {sums[c], sums[c + 1], sums[c + 2], sums[c + 3]};
      if (inputs_.background != nullptr)
        for (int64_t i = 0; i < num_features; ++i)
          columns[i] += transmittance * Floats(inputs_.background[first + c + i]);
      // Pixel (x, y) then has its four channels at pixels[x][4 y].
      transpose_quads(columns);
      alignas(64) float pixels[4][kLanes];
      for (int x = 0; x < 4; ++x) store(pixels[x], columns[x]);
      const bool holds_depth = images_.depth != nullptr && depth >= c && depth < c + 4;
      for (int64_t y = 0; y < block.rows; ++y) {
        for (int64_t x = 0; x < block.columns; ++x) {
          const int64_t pixel = (block.y + y) * context_.width + block.x + x;
          const float* from = pixels[x] + 4 * y;
          store_some(images_.features + pixel * channels.features + first + c, load_quad(from),
                     num_features);
          if (holds_depth) images_.depth[pixel] = from[depth - c];
        }
      }
    }
  }

  void write_median(const BlockTask& task, Ints median) {
    const BlockGeometry& block = task.block;
    uint32_t* pairs = &context_.median_pair[task.index * kLanes];
    const uint32_t* splats = context_.bins.pair_splat.data() + task.tile_begin;
    store(reinterpret_cast<int32_t*>(pairs), median);
    for (int64_t y = 0; y < block.rows; ++y) {
      for (int64_t x = 0; x < block.columns; ++x) {
        const uint32_t pair = pairs[4 * y + x];
        images_.median[(block.y + y) * context_.width + block.x + x] =
            pair == kNoPair ? 0.0f : inputs_.depths[splats[pair]];
      }
    }
  }

  EllipsoidContext& context_;
  const EllipsoidInputs& inputs_;
  const EllipsoidImages& images_;
  const Draw draw_;
};

}  // namespace

void gather_tile(const EllipsoidContext& context, int64_t tile, uint32_t count,
                 const EllipsoidInputs& inputs, TileSplats& local) {
  const Channels channels = context.channels;
  const uint64_t begin = context.bins.tile_begin[tile];
  const uint32_t* splats = context.bins.pair_splat.data() + begin;
  // Beyond the end of the tile, too: the next one is likely to be drawn next.
  const uint64_t fetchable = context.bins.num_pairs() - begin;
  Ellipse* ellipses = local.ellipses.reserve(count);
  float* row = local.rows.reserve(static_cast<size_t>(count) * channels.padded);
  for (uint32_t k = 0; k < count; ++k, row += channels.padded) {
    if (k + kPrefetchAhead < fetchable) {
      const int64_t later = splats[k + kPrefetchAhead];
      __builtin_prefetch(&context.ellipses[later]);
      const float* features = inputs.features + later * channels.features;
      for (int64_t c = 0; c < channels.features; c += 16) __builtin_prefetch(features + c);
      if (channels.has_depth) __builtin_prefetch(&inputs.depths[later]);
    }
    const int64_t splat = splats[k];
    ellipses[k] = context.ellipses[splat];
    fill_row(channels, inputs.features + splat * channels.features, &inputs.depths[splat], row);
  }
}

void draw_ellipsoids(EllipsoidContext& context, int64_t num_threads, const EllipsoidInputs& inputs,
                     const EllipsoidImages& images) {
  const int64_t num_tiles = context.bins.num_tiles();
  context.lists.start(num_threads, num_tiles * kBlocksPerTile);
  context.tile_used.reserve(num_tiles);
  if (context.has_median) context.median_pair.reserve(num_tiles * kBlocksPerTile * kLanes);
  if (context.scratch.size() < static_cast<size_t>(num_threads))
    context.scratch.resize(num_threads);
  Forward forward(context, inputs, images);
  MemoryGuard guard;
  parallel_tasks(num_threads, num_tiles, [&](int thread, int64_t tile) {
    guard.run([&] { forward.draw_tile(thread, tile); });
  });
  guard.rethrow();
}

}  // namespace splatir
