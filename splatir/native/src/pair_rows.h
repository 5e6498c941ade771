// How per-pixel sums become per-splat sums: one row of floats per pair of splat and tile.
//
// Each tile writes the rows of its own pairs; a splat's rows are then added in the order of its
// tiles, whatever threads wrote them.
#pragma once
#include <cstdint>
#include <cstring>

#include "simd.h"
#include "tiles.h"

namespace splatir {

class PairRows {
 public:
  // `rows` is [pair][width], width a multiple of 4. Only the first `tile_used[t]` pairs of tile t
  // have rows; the others are never read.
  PairRows(const TileBins& bins, const TileRect* rects, const uint32_t* tile_used, float* rows,
           int64_t width)
      : bins_(bins), rects_(rects), tile_used_(tile_used), rows_(rows), width_(width) {}

  int64_t width() const { return width_; }

  // The rows of a tile, zeroed.
  float* clear(int64_t tile) const {
    float* rows = rows_ + static_cast<uint64_t>(bins_.tile_begin[tile]) * width_;
    std::memset(rows, 0, tile_used_[tile] * width_ * sizeof(float));
    return rows;
  }

  // The sum of a splat's rows, zero where it has none.
  void add_up(int64_t splat, float* sums) const {
    const TileRect rect = rects_[splat];
    const uint32_t *pair = bins_.pair_of_splat.data() + bins_.splat_begin[splat],
                   *last_pair = bins_.pair_of_splat.data() + bins_.num_pairs();
    std::memset(sums, 0, width_ * sizeof(float));
    for (int64_t y = rect.y0; y < rect.y1; ++y) {
      for (int64_t x = rect.x0; x < rect.x1; ++x, ++pair) {
        if (last_pair - pair > kPrefetchAhead) prefetch(pair[kPrefetchAhead]);
        const int64_t tile = y * bins_.tiles_x + x;
        if (*pair - bins_.tile_begin[tile] >= tile_used_[tile]) continue;
        const float* row = row_of(*pair);
        for (int64_t c = 0; c < width_; c += 4)
          store_quad(sums + c, load_quad(sums + c) + load_quad(row + c));
      }
    }
  }

 private:
  // The rows of one splat lie far apart: without this, adding them takes longer than making them.
  static constexpr int64_t kPrefetchAhead = 24;
  void prefetch(uint32_t pair) const {
    const float* row = row_of(pair);
    for (int64_t c = 0; c < width_; c += 16) __builtin_prefetch(row + c);
  }

  const float* row_of(uint32_t pair) const { return rows_ + pair * static_cast<uint64_t>(width_); }

  const TileBins& bins_;
  const TileRect* rects_;
  const uint32_t* tile_used_;
  float* rows_;
  int64_t width_;
};

}  // namespace splatir
