// The entropy of a scene's paints: how few colours do many pixels share?
#include <algorithm>
#include <cmath>

#include "abi.h"
#include "buffers.h"
#include "simd.h"
#include "threads.h"

namespace splatir {
namespace {

constexpr float kLog2E = 1.44269504f;
// No colour is near this logarithm.
constexpr float kNowhere = 1e4f;

struct Scratch {
  Buffer<float> paints;  // [3, whole blocks]
  Buffer<double> logs;
};

struct Paints {
  int64_t count, stride;
  const float* channel[3];
};

// Channel by channel, in whole blocks.
Paints arrange(const float* colours, int64_t count, Scratch& scratch) {
  const int64_t stride = (count + kLanes - 1) / kLanes * kLanes;
  float* out = scratch.paints.reserve(3 * stride);
  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t i = 0; i < stride; ++i)
      out[c * stride + i] = i < count ? colours[3 * i + c] : kNowhere;
  }
  return {count, stride, {out, out + stride, out + 2 * stride}};
}

// log(share of the paints like a colour + alone), and its gradient.
double log_share(const Paints& paints, const float* colour, float width, float alone,
                 float* gradient) {
  const Floats scale(-0.5f * kLog2E / (width * width));
  const Floats own[3] = {Floats(colour[0]), Floats(colour[1]), Floats(colour[2])};
  Floats alike(0.f), pull[3] = {Floats(0.f), Floats(0.f), Floats(0.f)};
  for (int64_t i = 0; i < paints.stride; i += kLanes) {
    Floats away[3], squared(0.f);
    for (int c = 0; c < 3; ++c) {
      away[c] = load(paints.channel[c] + i) - own[c];
      squared = squared + away[c] * away[c];
    }
    const Floats likeness = exp2(scale * squared);
    alike += likeness;
    for (int c = 0; c < 3; ++c) pull[c] += likeness * away[c];
  }
  // What is no number is like nothing, and must not pass for a colour of its own.
  const float broken = 0.f * (colour[0] + colour[1] + colour[2]);
  const float share = sum(alike) / static_cast<float>(paints.count) + alone + broken;
  const float factor = 1.f / (share * width * width * static_cast<float>(paints.count));
  for (int c = 0; c < 3; ++c) gradient[c] = factor * sum(pull[c]);
  return std::log(static_cast<double>(share));
}

ObjectPool<Scratch>& scratches() {
  static auto* pool = new ObjectPool<Scratch>;
  return *pool;
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// Mean over colours [count, 3] of -log(mean_j exp(-|colour - paint_j|^2 / (2 width^2)) + alone)
// for paints [num_paints, 3]; gradient [count, 3] receives its gradient by the colours. Returns 1,
// or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_paint_entropy(int64_t num_threads, int64_t count,
                                             int64_t num_paints, const float* colours,
                                             const float* paints, float width, float alone,
                                             double* value, float* gradient) {
  Scratch* scratch = nullptr;
  try {
    scratch = scratches().acquire();
    const Paints arranged = arrange(paints, num_paints, *scratch);
    double* logs = scratch->logs.reserve(count);
    parallel_ranges(num_threads, count, [&](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float* own = gradient + 3 * i;
        logs[i] = log_share(arranged, colours + 3 * i, width, alone, own);
        for (int c = 0; c < 3; ++c) own[c] *= -1.f / static_cast<float>(count);
      }
    });
    double total = 0.0;
    for (int64_t i = 0; i < count; ++i) total -= logs[i];
    *value = total / static_cast<double>(count);
    scratches().release(scratch);
    return 1;
  } catch (const std::bad_alloc&) {
    delete scratch;
    return 0;
  }
}
