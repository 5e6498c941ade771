// Which splats contributed to which pixels of each 4x4 block: what the backward pass replays.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "buffers.h"
#include "simd.h"
#include "tiles.h"

namespace splatir {

// Lane l of a block is pixel (l % 4, l / 4); block b of a tile has its corner at 4 (b % 4, b / 4).
struct BlockGeometry {
  int64_t x, y;           // First pixel of the block.
  int64_t columns, rows;  // Pixels inside the image, at most 4 each, <= 0 outside.

  BlockGeometry(int64_t tile_x, int64_t tile_y, int block, int64_t width, int64_t height)
      : x(tile_x * kTileSize + kBlockSize * (block % 4)),
        y(tile_y * kTileSize + kBlockSize * (block / 4)),
        columns(width - x < kBlockSize ? width - x : kBlockSize),
        rows(height - y < kBlockSize ? height - y : kBlockSize) {}

  bool is_empty() const { return columns <= 0 || rows <= 0; }
  // Bit l is set where lane l is a pixel of the image.
  uint32_t pixels_inside() const {
    const uint32_t row = (1u << columns) - 1;
    return (row * 0x1111u) & static_cast<uint32_t>((1u << (4 * rows)) - 1);
  }
};

// Per lane: pixel centres relative to the block's first pixel's corner.
alignas(64) inline constexpr float kLaneX[kLanes] = {
    0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f};
alignas(64) inline constexpr float kLaneY[kLanes] = {
    0.5f, 0.5f, 0.5f, 0.5f, 1.5f, 1.5f, 1.5f, 1.5f, 2.5f, 2.5f, 2.5f, 2.5f, 3.5f, 3.5f, 3.5f, 3.5f};
// Per block of a tile: its first pixel's centre relative to the tile's corner.
alignas(64) inline constexpr float kBlockX[kLanes] = {0.5f, 4.5f, 8.5f, 12.5f, 0.5f, 4.5f,
                                                      8.5f, 12.5f, 0.5f, 4.5f, 8.5f, 12.5f,
                                                      0.5f, 4.5f, 8.5f, 12.5f};
alignas(64) inline constexpr float kBlockY[kLanes] = {0.5f, 0.5f, 0.5f, 0.5f, 4.5f, 4.5f,
                                                      4.5f, 4.5f, 8.5f, 8.5f, 8.5f, 8.5f,
                                                      12.5f, 12.5f, 12.5f, 12.5f};

struct BlockEntry {
  uint32_t pair;    // Index within the tile's pairs.
  uint32_t pixels;  // Lanes that the splat contributed to.
};

// The backward pass takes entries in groups of this many.
constexpr uint32_t kEntryGroup = 4;
constexpr uint32_t round_up(uint32_t count) {
  return (count + kEntryGroup - 1) / kEntryGroup * kEntryGroup;
}

// Lists of entries, one per block, written by several threads. Each list is followed by entries
// without pixels up to a whole group.
class BlockLists {
 public:
  // Throws std::bad_alloc.
  void start(int64_t num_threads, int64_t num_blocks) {
    if (static_cast<int64_t>(threads_.size()) < num_threads) threads_.resize(num_threads);
    for (Thread& thread : threads_) thread.used = 0;
    std::memset(runs_.reserve(num_blocks), 0, num_blocks * sizeof(Run));
  }

  // Where a thread may write up to `count` entries of its next block. Throws std::bad_alloc.
  BlockEntry* room(int thread, size_t count) {
    Thread& own = threads_[thread];
    return own.entries.extend(own.used, own.used + count + kEntryGroup) + own.used;
  }

  // Says that the thread wrote `count` entries of a block to its room.
  void finish(int thread, int64_t block, uint32_t count) {
    Thread& own = threads_[thread];
    runs_[block] = Run{own.used, static_cast<uint32_t>(thread), count};
    BlockEntry* entries = own.entries.data() + own.used;
    for (uint32_t i = count; i < round_up(count); ++i)
      entries[i] = BlockEntry{entries[count - 1].pair, 0};
    own.used += round_up(count);
  }

  uint32_t count(int64_t block) const { return runs_[block].count; }
  const BlockEntry* entries(int64_t block) const {
    return threads_[runs_[block].thread].entries.data() + runs_[block].begin;
  }

 private:
  struct Run {
    uint64_t begin;
    uint32_t thread, count;
  };
  struct Thread {
    Buffer<BlockEntry> entries;
    uint64_t used = 0;
  };
  std::vector<Thread> threads_;
  Buffer<Run> runs_;
};

// Runs a body on a pool thread, where an exception would end the process: remembers the failure.
class MemoryGuard {
 public:
  template <class Body>
  void run(const Body& body) {
    if (failed_) return;
    try {
      body();
    } catch (const std::bad_alloc&) {
      failed_ = true;
    }
  }
  // Throws std::bad_alloc, on the calling thread, if a body did.
  void rethrow() const {
    if (failed_) throw std::bad_alloc();
  }

 private:
  std::atomic<bool> failed_{false};
};

}  // namespace splatir
