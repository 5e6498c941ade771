// The sRGB curve (IEC 61966-2-1) and its inverse, as splatir/maths/colour.py defines them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace splatir {
namespace {

// Fewer values than this are not worth a second thread.
constexpr int64_t kWorthThreads = 1 << 14;

// log2(x) to 1e-7 absolute or relative, for positive normal numbers.
SPLATIR_INLINE Floats log2(const Floats& x) {
  // x = 2^e m with m in [sqrt(1/2), sqrt(2)), whose logarithm is 2 artanh((m - 1) / (m + 1)).
  const Ints exponent = shift_right<23>(reinterpret_as_ints(x) - Ints(0x3f3504f3));
  const Floats m = reinterpret_as_floats(reinterpret_as_ints(x) - shift_left<23>(exponent));
  const Floats t = (m - Floats(1.f)) / (m + Floats(1.f)), t2 = t * t;
  // 2 / (k ln 2) for odd k.
  Floats p = Floats(0.320598898f);
  p = p * t2 + Floats(0.412198583f);
  p = p * t2 + Floats(0.577078016f);
  p = p * t2 + Floats(0.961796694f);
  p = p * t2 + Floats(2.885390082f);
  // Integers below 2^22 are exact in the low mantissa bits of 1.5 * 2^23.
  const Floats shifted = reinterpret_as_floats(exponent + Ints(0x4b400000));
  return (shifted - Floats(12582912.f)) + p * t;
}

// x^power for positive normal numbers; NaN and infinity stay, what is too large becomes infinity.
SPLATIR_INLINE Floats power_of(const Floats& x, float power) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Floats exponent = log2(x) * Floats(power);
  const Floats finite = select(exponent < Floats(127.f), exp2(exponent), Floats(kInfinity));
  return select(x < Floats(kInfinity), finite, x);
}

constexpr float kToeLinear = 0.0031308f, kToeSrgb = 0.04045f, kToeSlope = 12.92f;
constexpr float kScale = 1.055f, kOffset = 0.055f, kGamma = 2.4f;

struct SrgbFromLinear {
  SPLATIR_INLINE static Floats value(const Floats& x) {
    const Floats power = power_of(max(Floats(kToeLinear), x), 1.f / kGamma);
    return select(x <= Floats(kToeLinear), Floats(kToeSlope) * x,
                  Floats(kScale) * power - Floats(kOffset));
  }
  SPLATIR_INLINE static Floats slope(const Floats& x) {
    const Floats power = power_of(max(Floats(kToeLinear), x), 1.f / kGamma - 1.f);
    return select(x <= Floats(kToeLinear), Floats(kToeSlope), Floats(kScale / kGamma) * power);
  }
};

struct LinearFromSrgb {
  SPLATIR_INLINE static Floats base(const Floats& x) {
    return (max(Floats(kToeSrgb), x) + Floats(kOffset)) / Floats(kScale);
  }
  SPLATIR_INLINE static Floats value(const Floats& x) {
    return select(x <= Floats(kToeSrgb), Floats(1.f / kToeSlope) * x, power_of(base(x), kGamma));
  }
  SPLATIR_INLINE static Floats slope(const Floats& x) {
    return select(x <= Floats(kToeSrgb), Floats(1.f / kToeSlope),
                  Floats(kGamma / kScale) * power_of(base(x), kGamma - 1.f));
  }
};

// out[i] = body(block of inputs), sixteen at a time.
template <class Body>
void for_lanes(int64_t num_threads, int64_t count, const float* first, const float* second,
               float* out, const Body& body) {
  const int64_t threads = count < kWorthThreads ? 1 : num_threads;
  parallel_ranges(threads, count, [&](int, int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) store(out + i, body(load(first + i), load(second + i)));
    if (i == end) return;
    alignas(64) float rest[2][kLanes] = {};
    std::copy(first + i, first + end, rest[0]);
    std::copy(second + i, second + end, rest[1]);
    store(rest[0], body(load(rest[0]), load(rest[1])));
    std::copy(rest[0], rest[0] + (end - i), out + i);
  });
}

template <class Curve>
void apply(int64_t num_threads, int64_t count, const float* x, float* out) {
  for_lanes(num_threads, count, x, x, out,
            [](const Floats& a, const Floats&) { return Curve::value(a); });
}

template <class Curve>
void apply_backward(int64_t num_threads, int64_t count, const float* x, const float* v_out,
                    float* v_x) {
  for_lanes(num_threads, count, x, v_out, v_x,
            [](const Floats& a, const Floats& v) { return v * Curve::slope(a); });
}

}  // namespace
}  // namespace splatir

using namespace splatir;

SPLATIR_EXPORT void splatir_srgb_from_linear(int64_t num_threads, int64_t count, const float* x,
                                             float* out) {
  apply<SrgbFromLinear>(num_threads, count, x, out);
}

SPLATIR_EXPORT void splatir_srgb_from_linear_backward(int64_t num_threads, int64_t count,
                                                      const float* x, const float* v_out,
                                                      float* v_x) {
  apply_backward<SrgbFromLinear>(num_threads, count, x, v_out, v_x);
}

SPLATIR_EXPORT void splatir_linear_from_srgb(int64_t num_threads, int64_t count, const float* x,
                                             float* out) {
  apply<LinearFromSrgb>(num_threads, count, x, out);
}

SPLATIR_EXPORT void splatir_linear_from_srgb_backward(int64_t num_threads, int64_t count,
                                                      const float* x, const float* v_out,
                                                      float* v_x) {
  apply_backward<LinearFromSrgb>(num_threads, count, x, v_out, v_x);
}
