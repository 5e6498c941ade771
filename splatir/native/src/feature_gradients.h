// What do the splats' features learn from their image, where nothing else learns?
//
// d loss / d f_k = sum over pixels of w_k v with v the image's gradient. Without gradients of alpha
// one walk from front to back suffices, and no channel of a splat is read.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "block_sums.h"
#include "blocks.h"
#include "buffers.h"
#include "channels.h"
#include "pair_rows.h"
#include "threads.h"
#include "tiles.h"

namespace splatir {

// What the forward pass found, and the gradients of image and features.
struct FeatureImage {
  int64_t num_splats, num_features, width, height;
  const TileBins& bins;
  const TileRect* rects;
  const BlockLists& lists;
  const uint32_t* tile_used;  // Pairs of each tile up to the last that contributed.
  const float* v_image;       // [height, width, num_features]
  float* v_features;          // [num_splats, num_features]
};

// `Record` is what alpha of one splat is computed from.
template <class Record>
struct FeatureScratch {
  struct Tile {
    Buffer<Record> records;
    Buffer<float> gradients;  // [pixel][channel] of the current block, a pass after the other.
    Buffer<float> spare_row;  // Where sums of entries that are not there go.
  };
  std::vector<Tile> threads;
  Buffer<float> partials;  // [pair][padded channels]
};

// `AlphaOf` gives a record's alpha at sixteen pixels.
template <class Record, class AlphaOf>
class FeatureBackward {
 public:
  FeatureBackward(const FeatureImage& image, const Record* records, FeatureScratch<Record>& scratch,
                  int64_t padded)
      : image_(image), records_(records), scratch_(scratch), padded_(padded),
        rows_(image.bins, image.rects, image.tile_used, scratch.partials.data(), padded) {}

  void differentiate_tile(int thread, int64_t tile) {
    const uint32_t used = image_.tile_used[tile];
    if (used == 0) return;
    typename FeatureScratch<Record>::Tile& local = scratch_.threads[thread];
    gather(tile, used, local.records.reserve(used));
    local.gradients.reserve(padded_ * kLanes);
    std::memset(local.spare_row.reserve(padded_), 0, padded_ * sizeof(float));
    float* rows = rows_.clear(tile);
    for (int b = 0; b < kBlocksPerTile; ++b) {
      const int64_t index = tile * kBlocksPerTile + b;
      if (image_.lists.count(index) == 0) continue;
      const BlockGeometry block(tile % image_.bins.tiles_x, tile / image_.bins.tiles_x, b,
                                image_.width, image_.height);
      read_gradients(block, local.gradients.data());
      if (padded_ == 4) add_block<4>(block, index, local, rows);
      if (padded_ == 8) add_block<8>(block, index, local, rows);
      if (padded_ >= 16) add_block<16>(block, index, local, rows);
    }
  }

  void add_up(int64_t begin, int64_t end) const {
    Buffer<float> total;
    float* sums = total.reserve(padded_);
    for (int64_t splat = begin; splat < end; ++splat) {
      rows_.add_up(splat, sums);
      std::memcpy(image_.v_features + splat * image_.num_features, sums,
                  image_.num_features * sizeof(float));
    }
  }

 private:
  static constexpr uint32_t kRecordsAhead = 16;

  void gather(int64_t tile, uint32_t used, Record* to) const {
    const uint32_t begin = image_.bins.tile_begin[tile];
    const uint32_t* splats = image_.bins.pair_splat.data() + begin;
    // Beyond the end of the tile, too: the next one is likely to come next.
    const uint32_t fetchable = image_.bins.num_pairs() - begin;
    for (uint32_t k = 0; k < used; ++k) {
      if (k + kRecordsAhead < fetchable) __builtin_prefetch(&records_[splats[k + kRecordsAhead]]);
      to[k] = records_[splats[k]];
    }
  }

  void read_gradients(const BlockGeometry& block, float* to) const {
    if (block.rows < kBlockSize || block.columns < kBlockSize)
      std::memset(to, 0, padded_ * kLanes * sizeof(float));
    for (int64_t first = 0; first < padded_;) {
      const Channels pass(std::min<int64_t>(16, image_.num_features - first), false);
      for (int64_t y = 0; y < block.rows; ++y) {
        for (int64_t x = 0; x < block.columns; ++x) {
          const int64_t pixel = (block.y + y) * image_.width + block.x + x;
          fill_row(pass, image_.v_image + pixel * image_.num_features + first, nullptr,
                   to + first * kLanes + (4 * y + x) * pass.padded);
        }
      }
      first += pass.padded;
    }
  }

  template <int kWidth>
  __attribute__((noinline)) void add_block(const BlockGeometry& block, int64_t index,
                                           typename FeatureScratch<Record>::Tile& local,
                                           float* rows) const {
    const Floats px = load(kLaneX) + Floats(static_cast<float>(block.x));
    const Floats py = load(kLaneY) + Floats(static_cast<float>(block.y));
    const BlockEntry* entries = image_.lists.entries(index);
    const uint32_t count = image_.lists.count(index);
    Floats transmittance(1.0f);
    for (uint32_t i = 0; i < count; i += kGroup) {
      alignas(64) float weights[kGroup][kLanes];
      float* to[kGroup];
#pragma GCC unroll 4
      for (int j = 0; j < kGroup; ++j) {
        const BlockEntry entry = entries[i + j];
        const Floats alpha =
            keep(mask_from_bits(entry.pixels), AlphaOf()(local.records[entry.pair], px, py));
        store(weights[j], alpha * transmittance);
        transmittance = transmittance - transmittance * alpha;
        to[j] = i + j < count ? rows + entry.pair * padded_ : local.spare_row.data();
      }
      add_weighted_rows<kWidth>(weights, local.gradients.data(), to, 0);
      for (int64_t first = kWidth; first < padded_;) {
        const int64_t width = Channels::next_width(padded_ - first);
        const float* gradients = local.gradients.data() + first * kLanes;
        if (width == 16) add_weighted_rows<16>(weights, gradients, to, first);
        if (width == 8) add_weighted_rows<8>(weights, gradients, to, first);
        if (width == 4) add_weighted_rows<4>(weights, gradients, to, first);
        first += width;
      }
    }
  }

  const FeatureImage& image_;
  const Record* records_;
  FeatureScratch<Record>& scratch_;
  const int64_t padded_;
  const PairRows rows_;
};

// Fills `image.v_features`. Throws std::bad_alloc.
template <class AlphaOf, class Record>
void differentiate_features(const FeatureImage& image, const Record* records, int64_t num_threads) {
  // Never destroyed: threads may still run when static objects are.
  static auto* pool = new ObjectPool<FeatureScratch<Record>>;
  std::unique_ptr<FeatureScratch<Record>> scratch(pool->acquire());
  if (scratch->threads.size() < static_cast<size_t>(num_threads))
    scratch->threads.resize(num_threads);
  const int64_t padded = Channels(image.num_features, false).padded;
  scratch->partials.reserve(static_cast<uint64_t>(image.bins.num_pairs()) * padded);
  FeatureBackward<Record, AlphaOf> backward(image, records, *scratch, padded);
  MemoryGuard guard;
  parallel_tasks(num_threads, image.bins.num_tiles(), [&](int thread, int64_t tile) {
    guard.run([&] { backward.differentiate_tile(thread, tile); });
  });
  guard.rethrow();
  parallel_ranges(num_threads, image.num_splats, [&](int, int64_t begin, int64_t end) {
    guard.run([&] { backward.add_up(begin, end); });
  });
  guard.rethrow();
  pool->release(scratch.release());
}

}  // namespace splatir
