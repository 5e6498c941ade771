// Which splats each 16x16 tile of the image meets, front to back.
#pragma once
#include <cstdint>

#include "buffers.h"

namespace splatir {

constexpr int kTileSize = 16;
// Tiles are made of 4x4-pixel blocks: one block is one vector of pixels.
constexpr int kBlockSize = 4;
constexpr int kBlocksPerTile = 16;

// Tiles [x0, x1) x [y0, y1) that a splat may touch; {0, 0, 0, 0} for a culled splat.
struct TileRect {
  uint16_t x0, y0, x1, y1;
  uint32_t count() const { return static_cast<uint32_t>(x1 - x0) * (y1 - y0); }
};

// The rectangle of tiles that hold pixels whose centres lie in [x_low, x_high] x [y_low, y_high].
// Not-a-number gives no tiles.
TileRect tiles_of_pixel_centres(float x_low, float x_high, float y_low, float y_high,
                                int64_t tiles_x, int64_t tiles_y);

// (splat, tile) pairs in two orders: by tile and depth, and by splat.
//
// The second order makes per-splat sums deterministic: a kernel writes one partial row per pair and
// then adds each splat's rows in the order of its tiles, whatever thread wrote them.
struct TileBins {
  int64_t tiles_x = 0, tiles_y = 0;
  // Tile t (row-major) has the pairs [tile_begin[t], tile_begin[t + 1]).
  Buffer<uint32_t> tile_begin;
  // Splat of each pair; within a tile sorted by depth, ties by splat index.
  Buffer<uint32_t> pair_splat;
  // Splat i owns pair_of_splat[splat_begin[i] .. splat_begin[i + 1]): positions in pair_splat, in
  // row-major order of its rectangle's tiles.
  Buffer<uint32_t> splat_begin;
  Buffer<uint32_t> pair_of_splat;

  int64_t num_tiles() const { return tiles_x * tiles_y; }
  uint32_t num_pairs() const { return tile_begin[num_tiles()]; }

  // Sorts and bins. `depths` are positive and ordered by their float32 bits. Returns false, with
  // nothing binned, when there are 2^32 or more pairs. Throws std::bad_alloc.
  bool build(int64_t num_threads, int64_t num_splats, const float* depths, const TileRect* rects,
             int64_t width, int64_t height);

 private:
  void sort_visible_by_depth(int64_t num_splats, const float* depths, const TileRect* rects);
  void count_pairs_per_tile(int64_t num_threads, const TileRect* rects);
  void place_pairs(int64_t num_threads, const TileRect* rects);

  int64_t num_visible_ = 0;
  // Depth bits in the low half, splat index in the high half.
  Buffer<uint64_t> keys_, keys_scratch_;
  // [thread][tile]: first the number of pairs, then where the thread's next pair goes.
  Buffer<uint32_t> thread_tile_;
};

}  // namespace splatir
