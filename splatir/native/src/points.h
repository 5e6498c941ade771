// Points in arrays, sixteen at a time.
#pragma once
#include <algorithm>
#include <cstdint>

#include "lane_vectors.h"

namespace splatir {

inline int64_t blocks_of(int64_t count) { return (count + kLanes - 1) / kLanes; }

// Lanes beyond the last point repeat it.
inline int64_t point_of(int64_t block, int lane, int64_t count) {
  return std::min(block * kLanes + lane, count - 1);
}

inline Floats load_ones(const float* from, int64_t block, int64_t count) {
  if ((block + 1) * kLanes <= count) return load(from + block * kLanes);
  float lanes[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = from[point_of(block, lane, count)];
  return load(lanes);
}

inline Vec3 load_threes(const float* from, int64_t block, int64_t count) {
  float lanes[3][kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const float* at = from + 3 * point_of(block, lane, count);
    for (int c = 0; c < 3; ++c) lanes[c][lane] = at[c];
  }
  return {load(lanes[0]), load(lanes[1]), load(lanes[2])};
}

inline void store_ones(float* to, const Floats& values, int64_t block, int64_t count) {
  float lanes[kLanes];
  store(lanes, values);
  std::copy_n(lanes, std::min<int64_t>(kLanes, count - block * kLanes), to + block * kLanes);
}

inline void store_threes(float* to, const Vec3& values, int64_t block, int64_t count) {
  float lanes[3][kLanes];
  store(lanes[0], values.x);
  store(lanes[1], values.y);
  store(lanes[2], values.z);
  const int64_t filled = std::min<int64_t>(kLanes, count - block * kLanes);
  float* start = to + 3 * block * kLanes;
  for (int64_t lane = 0; lane < filled; ++lane)
    for (int c = 0; c < 3; ++c) start[3 * lane + c] = lanes[c][lane];
}

}  // namespace splatir
