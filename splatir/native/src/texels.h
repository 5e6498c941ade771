// Texels of three channels, and gradients to them, summed over points.
//
// Gradients are summed in a fixed number of parts of the points, then over the parts in order, so
// that they do not depend on the number of threads.
#pragma once
#include <algorithm>
#include <cstdint>

#include "buffers.h"
#include "simd.h"
#include "threads.h"

namespace splatir {

// Without reading beyond the third number.
SPLATIR_INLINE Quad load_texel(const float* from) { return Quad{from[0], from[1], from[2], 0.0f}; }

SPLATIR_INLINE float sum_three(Quad a) { return a[0] + a[1] + a[2]; }

struct TexelGradients {
  Buffer<float> sums;  // of each part
};

inline ObjectPool<TexelGradients>& texel_gradients() {
  static auto* pool = new ObjectPool<TexelGradients>;
  return *pool;
}

// Sums the parts in order and drops the fourth channel.
inline void sum_parts(int64_t num_threads, const float* parts, int64_t count, int64_t num_texels,
                      float* __restrict to) {
  parallel_ranges(num_threads, num_texels, [&](int, int64_t begin, int64_t end) {
    for (int64_t texel = begin; texel < end; ++texel) {
      Quad total = load_quad(parts + 4 * texel);
      for (int64_t part = 1; part < count; ++part)
        total += load_quad(parts + 4 * (part * num_texels + texel));
      for (int c = 0; c < 3; ++c) to[3 * texel + c] = total[c];
    }
  });
}

// Calls add(block, own) for every block of points. It adds gradients to the texels to `own`
// [num_texels, 4]; `to` [num_texels, 3] receives their sum. Where `to` is null, so is `own`.
// Throws std::bad_alloc.
template <class Add>
void sum_texel_gradients(int64_t num_threads, int64_t blocks, int64_t num_texels, float* to,
                         const Add& add) {
  // At most so many parts, with at most so many texels together.
  constexpr int64_t kMaxParts = 8, kMaxPartTexels = 1 << 22;
  if (to == nullptr) {
    parallel_ranges(num_threads, blocks, [&](int, int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) add(block, static_cast<float*>(nullptr));
    });
    return;
  }
  const int64_t affordable = std::max<int64_t>(kMaxPartTexels / num_texels, 1);
  const int64_t parts = std::min({kMaxParts, affordable, std::max<int64_t>(blocks, 1)});
  const int64_t size = 4 * num_texels;
  TexelGradients* kept = texel_gradients().acquire();
  float* sums;
  try {
    sums = kept->sums.reserve(parts * size);
  } catch (...) {
    delete kept;
    throw;
  }
  parallel_tasks(num_threads, parts, [&](int, int64_t part) {
    float* own = sums + part * size;
    std::fill_n(own, size, 0.0f);
    for (int64_t block = blocks * part / parts; block < blocks * (part + 1) / parts; ++block)
      add(block, own);
  });
  sum_parts(num_threads, sums, parts, num_texels, to);
  texel_gradients().release(kept);
}

}  // namespace splatir
