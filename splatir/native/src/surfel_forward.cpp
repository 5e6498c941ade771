// Forward pass of the surfel rasteriser: tile by tile, block by block, front to back.
#include <algorithm>
#include <cstring>

#include "surfel.h"
#include "threads.h"

namespace splatir {
namespace {

// Surfels whose records are fetched before they are read.
constexpr uint32_t kPrefetchAhead = 12;

// Which blocks of a tile a surfel can reach: bit b for block b. Exact for the ellipse and for the
// disc, on the rectangles that the blocks' pixel centres span.
SPLATIR_INLINE uint32_t blocks_reached(const Surfel& s, const SurfelReach& reach, Floats block_x,
                                       Floats block_y) {
  const Floats zero(0.0f), side(kBlockSize - 1.0f);
  const Floats left = block_x - Floats(reach.x), right = left + side;
  const Floats top = block_y - Floats(reach.y), bottom = top + side;
  // The form is least at the centre, or on the one or two edges that face it.
  const Floats edge_x = clamp(zero, left, right), edge_y = clamp(zero, top, bottom);
  const Floats y = clamp(edge_x * Floats(reach.y_of_x), top, bottom);
  const Floats x = clamp(edge_y * Floats(reach.x_of_y), left, right);
  const Floats xx(reach.xx), xy2(2.0f * reach.xy), yy(reach.yy);
  const Floats on_vertical = edge_x * (xx * edge_x + xy2 * y) + yy * y * y;
  const Floats on_horizontal = x * (xx * x + xy2 * edge_y) + yy * edge_y * edge_y;
  const Floats shift_x(reach.x - s.x), shift_y(reach.y - s.y);
  const Floats disc_x = clamp(zero, left + shift_x, right + shift_x);
  const Floats disc_y = clamp(zero, top + shift_y, bottom + shift_y);
  const Floats distance_squared = disc_x * disc_x + disc_y * disc_y;
  return bits((min(on_vertical, on_horizontal) <= Floats(kReachLimit)) |
              (distance_squared <= Floats(reach.disc_squared)));
}

void find_blocks(const SurfelImage& image, int64_t tile, uint32_t count, SurfelTile& local) {
  const uint32_t* splats = image.bins.pair_splat.data() + image.bins.tile_begin[tile];
  const Floats x = load(kBlockX) + Floats(tile % image.bins.tiles_x * float{kTileSize});
  const Floats y = load(kBlockY) + Floats(tile / image.bins.tiles_x * float{kTileSize});
  for (uint32_t k = 0; k < count; ++k) {
    if (k + kPrefetchAhead < count) __builtin_prefetch(&image.reaches[splats[k + kPrefetchAhead]]);
    local.blocks[k] = static_cast<uint16_t>(
        blocks_reached(local.surfels[k], image.reaches[splats[k]], x, y));
  }
}

// What a block's pixels have after the last surfel; the last three only with depth outputs.
template <int kWidth>
struct BlockResult {
  Floats sums[kWidth];
  Floats transmittance = 1.0f;
  uint32_t num_entries = 0;
  Floats distortion = 0.0f, depth_sum = 0.0f;
  Ints median = -1;
};

// Composites the first kWidth channels of the candidates, lists those that contributed and, for
// later passes over more channels, their weights.
template <int kWidth, bool kDepth, bool kKeepWeights>
SPLATIR_INLINE BlockResult<kWidth> composite(SurfelTile& local, uint32_t num_candidates,
                                             const BlockGeometry& block, int stride,
                                             BlockEntry* entries) {
  const Floats px = load(kLaneX) + Floats(static_cast<float>(block.x));
  const Floats py = load(kLaneY) + Floats(static_cast<float>(block.y));
  const uint32_t* candidates = local.in_block.data();
  const Surfel* surfels = local.surfels.data();
  const float* channels = local.channels.data();
  Mask live = mask_from_bits(block.pixels_inside());
  // Distortion sees only differences of depths: relative ones keep their digits.
  const float nearest = kDepth && num_candidates > 0 ? surfels[0].depth : 0.0f;
  BlockResult<kWidth> r;
  for (Floats& sum : r.sums) sum = Floats(0.0f);
  for (uint32_t i = 0; i < num_candidates; ++i) {
    const uint32_t k = candidates[i];
    const Surfel& s = surfels[k];
    const float* channel = channels + static_cast<size_t>(k) * stride;
    const Hit hit = hit_at(s, px, py);
    const Floats capped = min(uncapped_alpha(s, hit), Floats(kMaxAlpha));
    Mask counts = live & hit.exists & (Floats(kMinAlpha) <= capped);
    Floats alpha = keep(counts, capped);
    Floats after = r.transmittance - r.transmittance * alpha;
    // Lanes that do not count stay above the minimum: only those that do can stop.
    const Mask stops = after <= Floats(kMinTransmittance);
    if (__builtin_expect(any(stops), 0)) {
      live = live & ~stops;
      if (!any(live)) break;
      counts = counts & ~stops;
      alpha = keep(counts, capped);
      after = r.transmittance - r.transmittance * alpha;
    }
    const uint32_t pixels = bits(counts);
    const Floats weight = alpha * r.transmittance;
    entries[r.num_entries] = BlockEntry{k, pixels};
    if (kKeepWeights) store(&local.weights[r.num_entries * kLanes], weight);
    r.num_entries += pixels != 0;
    for (int c = 0; c < kWidth; ++c) r.sums[c] += weight * Floats(channel[c]);
    if (kDepth) {
      const Floats weighted = weight * Floats(s.depth - nearest);
      const Floats earlier = Floats(1.0f) - r.transmittance;
      r.distortion += Floats(2.0f) * (weighted * earlier - weight * r.depth_sum);
      r.depth_sum += weighted;
      r.median = select(counts & (Floats(0.5f) < r.transmittance), Ints(static_cast<int32_t>(k)),
                        r.median);
    }
    r.transmittance = after;
  }
  return r;
}

// Channels after the first pass, from the weights that it kept.
template <int kWidth>
void composite_more(const SurfelTile& local, const BlockEntry* entries, uint32_t num_entries,
                    int stride, int first, Floats (&sums)[kWidth]) {
  for (Floats& sum : sums) sum = Floats(0.0f);
  for (uint32_t i = 0; i < num_entries; ++i) {
    const Floats weight = load(&local.weights[i * kLanes]);
    const float* channel = &local.channels[static_cast<size_t>(entries[i].pair) * stride + first];
    for (int c = 0; c < kWidth; ++c) sums[c] += weight * Floats(channel[c]);
  }
}

class Forward {
 public:
  Forward(SurfelImage& image, const SurfelOutputs& out) : image_(image), out_(out) {}

  void draw_tile(int thread, int64_t tile) {
    SurfelTile& local = image_.scratch[thread];
    const uint32_t count = image_.bins.tile_begin[tile + 1] - image_.bins.tile_begin[tile];
    load_tile(image_, tile, count, local);
    local.blocks.reserve(count + kLanes);
    local.in_block.reserve(count + kLanes);
    if (image_.padded > 16) local.weights.reserve((count + 1) * size_t{kLanes});
    find_blocks(image_, tile, count, local);
    uint32_t used = 0;
    for (int b = 0; b < kBlocksPerTile; ++b) {
      const BlockGeometry block(tile % image_.bins.tiles_x, tile / image_.bins.tiles_x, b,
                                image_.size.width, image_.size.height);
      if (block.is_empty()) continue;
      const int64_t index = tile * kBlocksPerTile + b;
      const uint32_t in_block =
          indices_with_bit(local.blocks.data(), count, b, local.in_block.data());
      BlockEntry* entries = image_.lists.room(thread, in_block + 1);
      const uint32_t listed = draw_block(local, block, index, in_block, entries);
      image_.lists.finish(thread, index, listed);
      if (listed > 0) used = std::max(used, entries[listed - 1].pair + 1);
    }
    image_.tile_used[tile] = used;
  }

 private:
  uint32_t draw_block(SurfelTile& local, const BlockGeometry& block, int64_t index,
                      uint32_t in_block, BlockEntry* entries) {
    if (image_.has_depth_outputs) return draw_width<true>(local, block, index, in_block, entries);
    return draw_width<false>(local, block, index, in_block, entries);
  }

  template <bool kDepth>
  uint32_t draw_width(SurfelTile& local, const BlockGeometry& block, int64_t index,
                      uint32_t in_block, BlockEntry* entries) {
    if (image_.padded > 16) return draw<16, kDepth, true>(local, block, index, in_block, entries);
    if (image_.padded == 16) return draw<16, kDepth, false>(local, block, index, in_block, entries);
    if (image_.padded == 8) return draw<8, kDepth, false>(local, block, index, in_block, entries);
    return draw<4, kDepth, false>(local, block, index, in_block, entries);
  }

  template <int kWidth, bool kDepth, bool kKeepWeights>
  __attribute__((noinline)) uint32_t draw(SurfelTile& local, const BlockGeometry& block,
                                          int64_t index, uint32_t in_block, BlockEntry* entries) {
    const BlockResult<kWidth> r = composite<kWidth, kDepth, kKeepWeights>(
        local, in_block, block, image_.padded, entries);
    store(&image_.transmittance[index * kLanes], r.transmittance);
    write_alpha(block, r.transmittance);
    write_channels(block, r.transmittance, 0, r.sums);
    if (kDepth) write_depths(block, index, r.distortion, r.depth_sum, r.median);
    for (int first = kWidth; kKeepWeights && first < image_.padded;) {
      const int width = pass_width(image_.padded - first);
      if (width == 16) draw_more<16>(local, block, entries, r.num_entries, r.transmittance, first);
      if (width == 8) draw_more<8>(local, block, entries, r.num_entries, r.transmittance, first);
      if (width == 4) draw_more<4>(local, block, entries, r.num_entries, r.transmittance, first);
      first += width;
    }
    return r.num_entries;
  }

  template <int kWidth>
  void draw_more(const SurfelTile& local, const BlockGeometry& block, const BlockEntry* entries,
                 uint32_t num_entries, Floats transmittance, int first) {
    Floats sums[kWidth];
    composite_more(local, entries, num_entries, image_.padded, first, sums);
    write_channels(block, transmittance, first, sums);
  }

  void write_alpha(const BlockGeometry& block, Floats transmittance) {
    alignas(64) float lanes[kLanes];
    store(lanes, transmittance);
    for_each_pixel(block, image_.size.width, [&](int64_t lane, int64_t pixel) {
      out_.alpha[pixel] = 1.0f - lanes[lane];
      if (out_.transmittance != nullptr) out_.transmittance[pixel] = lanes[lane];
    });
  }

  template <int kWidth>
  void write_channels(const BlockGeometry& block, Floats transmittance, int first,
                      const Floats (&sums)[kWidth]) {
    alignas(64) float lanes[kWidth][kLanes];
    const int count = std::min(kWidth, image_.num_channels - first);
    for (int c = 0; c < count; ++c)
      store(lanes[c], sums[c] + transmittance * Floats(out_.background[first + c]));
    for_each_pixel(block, image_.size.width, [&](int64_t lane, int64_t pixel) {
      for (int c = 0; c < count; ++c) {
        const Strided<float>& channel = out_.channels[first + c];
        channel.start[pixel * channel.stride] = lanes[c][lane];
      }
    });
  }

  void write_depths(const BlockGeometry& block, int64_t index, Floats distortion,
                    Floats depth_sum, Ints median) {
    alignas(64) float lanes[kLanes];
    store(lanes, distortion);
    int32_t* medians = &image_.median[index * kLanes];
    store(medians, median);
    store(&image_.depth_sum[index * kLanes], depth_sum);
    const uint32_t* splats =
        image_.bins.pair_splat.data() + image_.bins.tile_begin[index / kBlocksPerTile];
    for_each_pixel(block, image_.size.width, [&](int64_t lane, int64_t pixel) {
      if (out_.distortion != nullptr) out_.distortion[pixel] = lanes[lane];
      if (out_.median_depth != nullptr)
        out_.median_depth[pixel] =
            medians[lane] < 0 ? 0.0f : image_.surfels[splats[medians[lane]]].depth;
    });
  }

  SurfelImage& image_;
  const SurfelOutputs& out_;
};

}  // namespace

void load_tile(const SurfelImage& image, int64_t tile, uint32_t count, SurfelTile& local) {
  const uint32_t* splats = image.bins.pair_splat.data() + image.bins.tile_begin[tile];
  const size_t stride = image.padded;
  Surfel* surfels = local.surfels.reserve(count);
  float* channels = local.channels.reserve(count * stride);
  for (uint32_t k = 0; k < count; ++k) {
    if (k + kPrefetchAhead < count) {
      const size_t later = splats[k + kPrefetchAhead];
      __builtin_prefetch(&image.surfels[later]);
      __builtin_prefetch(&image.channels[later * stride]);
    }
    surfels[k] = image.surfels[splats[k]];
    std::memcpy(channels + k * stride, &image.channels[splats[k] * stride],
                stride * sizeof(float));
  }
}

void composite_surfels(SurfelImage& image, int64_t num_threads, const SurfelOutputs& out) {
  const int64_t num_tiles = image.bins.num_tiles(), num_blocks = num_tiles * kBlocksPerTile;
  image.lists.start(num_threads, num_blocks);
  image.tile_used.reserve(num_tiles);
  image.transmittance.reserve(num_blocks * kLanes);
  if (image.has_depth_outputs) {
    image.depth_sum.reserve(num_blocks * kLanes);
    image.median.reserve(num_blocks * kLanes);
  }
  if (static_cast<int64_t>(image.scratch.size()) < num_threads) image.scratch.resize(num_threads);
  Forward forward(image, out);
  MemoryGuard guard;
  parallel_tasks(num_threads, num_tiles, [&](int thread, int64_t tile) {
    guard.run([&] { forward.draw_tile(thread, tile); });
  });
  guard.rethrow();
}

}  // namespace splatir
