// Rows of channels, padded to whole vectors: features, then depth where wanted, then zeros.
#pragma once
#include <cstdint>

#include "simd.h"

namespace splatir {

struct Channels {
  int64_t features = 0;
  bool has_depth = false;
  int64_t padded = 0;  // Multiple of 4, at least 4.

  Channels() = default;
  Channels(int64_t num_features, bool with_depth)
      : features(num_features), has_depth(with_depth), padded(pad(num_features + with_depth)) {}

  // Widths of the passes over channels that make up `padded`: sixteens, then an 8 or a 4.
  static int64_t next_width(int64_t remaining) {
    return remaining > 8 ? 16 : remaining > 4 ? 8 : 4;
  }

 private:
  static int64_t pad(int64_t count) {
    int64_t total = 0;
    do total += next_width(count - total);
    while (total < count);
    return total;
  }
};

// Fills a padded row. `depth` may be null, for zero, and is read only where depth is a channel.
SPLATIR_INLINE void fill_row(const Channels& channels, const float* features, const float* depth,
                             float* row) {
  int64_t c = 0;
  for (; c + 4 <= channels.features; c += 4) store_quad(row + c, load_quad(features + c));
  if (c == channels.padded) return;
  // Written out: compilers turn such short loops into calls of memcpy and memset.
  const int64_t rest = channels.features - c;
  Quad tail = {rest > 0 ? features[c] : 0.0f, rest > 1 ? features[c + 1] : 0.0f,
               rest > 2 ? features[c + 2] : 0.0f, 0.0f};
  if (channels.has_depth && depth != nullptr) tail[rest] = *depth;
  store_quad(row + c, tail);
  for (c += 4; c < channels.padded; c += 4) store_quad(row + c, Quad{});
}

// Writes the first `count` (at most 4) of four floats.
SPLATIR_INLINE void store_some(float* to, Quad values, int64_t count) {
  if (count >= 4) return store_quad(to, values);
  if (count > 0) to[0] = values[0];
  if (count > 1) to[1] = values[1];
  if (count > 2) to[2] = values[2];
}

}  // namespace splatir
