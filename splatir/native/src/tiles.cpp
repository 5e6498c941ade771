// Depth sort and binning: one radix sort of the splats, then a stable counting sort into tiles.
#include "tiles.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "threads.h"

namespace splatir {
namespace {

// Rectangles and counters are read in depth order, that is at random: fetch this many ahead.
constexpr int64_t kPrefetchAhead = 16;

// Least significant digit first, 11 + 11 + 10 bits of the low half of the keys. The sorted keys end
// in `scratch`, because the number of passes is odd.
void radix_sort_low_half(uint64_t* keys, uint64_t* scratch, int64_t count) {
  constexpr int kDigits = 2048;
  constexpr int kShifts[3] = {0, 11, 22};
  uint32_t next[3][kDigits] = {};
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t key = static_cast<uint32_t>(keys[i]);
    for (int pass = 0; pass < 3; ++pass) ++next[pass][(key >> kShifts[pass]) & (kDigits - 1)];
  }
  for (auto& digits : next) {
    uint32_t total = 0;
    for (uint32_t& digit : digits) {
      const uint32_t here = digit;
      digit = total;
      total += here;
    }
  }
  for (int pass = 0; pass < 3; ++pass) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t key = static_cast<uint32_t>(keys[i]);
      scratch[next[pass][(key >> kShifts[pass]) & (kDigits - 1)]++] = keys[i];
    }
    std::swap(keys, scratch);
  }
}

uint32_t splat_of(uint64_t key) { return static_cast<uint32_t>(key >> 32); }

}  // namespace

TileRect tiles_of_pixel_centres(float x_low, float x_high, float y_low, float y_high,
                                int64_t tiles_x, int64_t tiles_y) {
  // Pixel i has its centre at i + 0.5. Clamped as floats: casting a huge float is undefined.
  const auto tile = [](float coordinate, int64_t tiles) {
    const float index = std::floor((coordinate - 0.5f) * (1.0f / kTileSize));
    return static_cast<int64_t>(std::min(std::max(index, -1.0f), static_cast<float>(tiles)));
  };
  if (!(x_low <= x_high && y_low <= y_high)) return TileRect{0, 0, 0, 0};
  const int64_t x0 = std::max<int64_t>(tile(x_low, tiles_x), 0);
  const int64_t y0 = std::max<int64_t>(tile(y_low, tiles_y), 0);
  const int64_t x1 = std::min(tile(x_high, tiles_x) + 1, tiles_x);
  const int64_t y1 = std::min(tile(y_high, tiles_y) + 1, tiles_y);
  if (x1 <= x0 || y1 <= y0) return TileRect{0, 0, 0, 0};
  return TileRect{static_cast<uint16_t>(x0), static_cast<uint16_t>(y0), static_cast<uint16_t>(x1),
                  static_cast<uint16_t>(y1)};
}

bool TileBins::build(int64_t num_threads, int64_t num_splats, const float* depths,
                     const TileRect* rects, int64_t width, int64_t height) {
  tiles_x = (width + kTileSize - 1) / kTileSize;
  tiles_y = (height + kTileSize - 1) / kTileSize;
  uint32_t* begin = splat_begin.reserve(num_splats + 1);
  uint64_t num_pairs = 0;
  for (int64_t i = 0; i < num_splats; ++i) {
    begin[i] = static_cast<uint32_t>(num_pairs);
    num_pairs += rects[i].count();
    if (num_pairs > UINT32_MAX) return false;
  }
  begin[num_splats] = static_cast<uint32_t>(num_pairs);
  pair_splat.reserve(num_pairs);
  pair_of_splat.reserve(num_pairs);
  sort_visible_by_depth(num_splats, depths, rects);
  num_threads = std::max<int64_t>(1, std::min(num_threads, num_visible_));
  count_pairs_per_tile(num_threads, rects);
  place_pairs(num_threads, rects);
  return true;
}

void TileBins::sort_visible_by_depth(int64_t num_splats, const float* depths,
                                     const TileRect* rects) {
  uint64_t* unsorted = keys_scratch_.reserve(num_splats);
  uint64_t* sorted = keys_.reserve(num_splats);
  num_visible_ = 0;
  for (int64_t i = 0; i < num_splats; ++i) {
    uint32_t depth_bits;
    std::memcpy(&depth_bits, &depths[i], sizeof depth_bits);
    unsorted[num_visible_] = (static_cast<uint64_t>(i) << 32) | depth_bits;
    num_visible_ += rects[i].count() > 0;
  }
  radix_sort_low_half(unsorted, sorted, num_visible_);
}

void TileBins::count_pairs_per_tile(int64_t num_threads, const TileRect* rects) {
  const uint64_t* keys = keys_.data();
  uint32_t* counts = thread_tile_.reserve(num_threads * num_tiles());
  std::memset(counts, 0, num_threads * num_tiles() * sizeof(uint32_t));
  parallel_ranges(num_threads, num_visible_, [&](int thread, int64_t begin, int64_t end) {
    uint32_t* count = counts + thread * num_tiles();
    for (int64_t j = begin; j < end; ++j) {
      if (j + kPrefetchAhead < end) __builtin_prefetch(&rects[splat_of(keys[j + kPrefetchAhead])]);
      const TileRect rect = rects[splat_of(keys[j])];
      for (int64_t y = rect.y0; y < rect.y1; ++y)
        for (int64_t x = rect.x0; x < rect.x1; ++x) ++count[y * tiles_x + x];
    }
  });
  uint32_t* begin = tile_begin.reserve(num_tiles() + 1);
  uint32_t total = 0;
  for (int64_t tile = 0; tile < num_tiles(); ++tile) {
    begin[tile] = total;
    for (int64_t thread = 0; thread < num_threads; ++thread) {
      uint32_t& slot = counts[thread * num_tiles() + tile];
      const uint32_t count = slot;
      slot = total;
      total += count;
    }
  }
  begin[num_tiles()] = total;
}

void TileBins::place_pairs(int64_t num_threads, const TileRect* rects) {
  const uint64_t* keys = keys_.data();
  parallel_ranges(num_threads, num_visible_, [&](int thread, int64_t begin, int64_t end) {
    uint32_t* next = thread_tile_.data() + thread * num_tiles();
    for (int64_t j = begin; j < end; ++j) {
      if (j + kPrefetchAhead < end) {
        const uint32_t later = splat_of(keys[j + kPrefetchAhead]);
        __builtin_prefetch(&rects[later]);
        __builtin_prefetch(&splat_begin[later]);
      }
      const uint32_t splat = splat_of(keys[j]);
      const TileRect rect = rects[splat];
      uint32_t* own_pair = &pair_of_splat[splat_begin[splat]];
      for (int64_t y = rect.y0; y < rect.y1; ++y) {
        for (int64_t x = rect.x0; x < rect.x1; ++x) {
          const uint32_t position = next[y * tiles_x + x]++;
          pair_splat[position] = splat;
          *own_pair++ = position;
        }
      }
    }
  });
}

}  // namespace splatir
