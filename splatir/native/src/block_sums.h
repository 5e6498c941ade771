// Sums over the sixteen pixels of a 4x4 block, without reducing one vector at a time.
//
// Lane l of a vector is pixel (l % 4, l / 4): a vector is four rows of four pixels.
#pragma once
#include "simd.h"

namespace splatir {

// 1 / a to a few ulp. Zero, infinity and denormals give infinity or NaN.
SPLATIR_INLINE Floats reciprocal(const Floats& a) {
#if defined(__AVX512F__)
  const Floats r = _mm512_rcp14_ps(a.v);
  return r * (Floats(2.0f) - a * r);
#elif defined(__SSE2__)
  // Twelve good bits, twice that after one Newton step.
  Floats r;
  for (int p = 0; p < kParts; ++p) {
#if defined(__AVX2__)
    r.v[p] = _mm256_rcp_ps(a.v[p]);
#else
    r.v[p] = _mm_rcp_ps(a.v[p]);
#endif
  }
  return r * (Floats(2.0f) - a * r);
#else
  return Floats(1.0f) / a;
#endif
}

SPLATIR_INLINE Mask equals(const Ints& a, const Ints& b) {
#if defined(__AVX512F__)
  return Mask(_mm512_cmpeq_epi32_mask(a.v, b.v));
#else
  Mask r;
  for (int p = 0; p < kParts; ++p) r.v[p] = a.v[p] == b.v[p];
  return r;
#endif
}

// [channel][lane] to [lane][channel]; the number of channels is a multiple of four.
inline void transpose_lanes(const float* lanes, int num_channels, float* rows) {
  for (int c = 0; c < num_channels; c += 4) {
    for (int lane = 0; lane < kLanes; lane += 4) {
      Quad quads[4];
      for (int i = 0; i < 4; ++i) quads[i] = load_quad(lanes + (c + i) * kLanes + lane);
      transpose(quads);
      for (int i = 0; i < 4; ++i) store_quad(rows + (lane + i) * num_channels + c, quads[i]);
    }
  }
}

// Entries of a block that are summed together: they share loads, and hide each other's latency.
constexpr int kGroup = 4;

#if defined(__AVX512F__)
constexpr int kRegisterLanes = 16;
#else
constexpr int kRegisterLanes = kPartLanes;
#endif

// to[j][0..kWidth) += sum over pixels of weights[j][pixel] * rows[pixel][0..kWidth), where the
// kGroup targets are apart.
template <int kWidth>
SPLATIR_INLINE void add_weighted_rows(const float (&weights)[kGroup][kLanes], const float* rows,
                                      float* const (&to)[kGroup], int offset) {
  constexpr int kPart = kWidth < kRegisterLanes ? kWidth : kRegisterLanes;
  typedef float Part __attribute__((vector_size(kPart * 4)));
  // Weights are to be read from memory, by broadcasting loads: compilers that know what was stored
  // there permute registers instead, until these run out.
  asm volatile("" : : "r"(&weights) : "memory");
  for (int begin = 0; begin < kWidth; begin += kPart) {
    Part sums[kGroup];
    for (int j = 0; j < kGroup; ++j) std::memcpy(&sums[j], to[j] + offset + begin, sizeof(Part));
#pragma GCC unroll 16
    for (int pixel = 0; pixel < kLanes; ++pixel) {
      Part row;
      std::memcpy(&row, rows + pixel * kWidth + begin, sizeof(Part));
      for (int j = 0; j < kGroup; ++j) sums[j] += weights[j][pixel] * row;
    }
    for (int j = 0; j < kGroup; ++j) std::memcpy(to[j] + offset + begin, &sums[j], sizeof(Part));
  }
}

// Four per-pixel quantities.
struct FourFloats {
  Floats q[4];
};

#if defined(__AVX512F__)

// Lane group i of the result: the columns of q[i] summed over rows.
SPLATIR_INLINE Floats fold_rows(const FourFloats& a) {
  const __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(a.q[0].v, a.q[1].v, 0x44),
                                   _mm512_shuffle_f32x4(a.q[0].v, a.q[1].v, 0xEE));
  const __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(a.q[2].v, a.q[3].v, 0x44),
                                    _mm512_shuffle_f32x4(a.q[2].v, a.q[3].v, 0xEE));
  return _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88),
                       _mm512_shuffle_f32x4(low, high, 0xDD));
}

// The columns of one vector summed over rows in lane group 0, zeros in the others.
SPLATIR_INLINE Floats fold_rows(const Floats& a) {
  __m512 t = _mm512_add_ps(a.v, _mm512_shuffle_f32x4(a.v, a.v, 0x4E));
  return _mm512_maskz_add_ps(0x000F, t, _mm512_shuffle_f32x4(t, t, 0xB1));
}

// to[i][0..4) += sums over pixels of q[i] * (1, dx, dy) and the lanes of group i of `others`.
// dx is each pixel's, dy the first row's.
SPLATIR_INLINE void add_moments(const FourFloats& a, const Floats& dx, float dy,
                                const Floats& others, float* to) {
  const __m512 a01 = _mm512_shuffle_f32x4(a.q[0].v, a.q[1].v, 0x44);
  const __m512 b01 = _mm512_shuffle_f32x4(a.q[0].v, a.q[1].v, 0xEE);
  const __m512 a23 = _mm512_shuffle_f32x4(a.q[2].v, a.q[3].v, 0x44);
  const __m512 b23 = _mm512_shuffle_f32x4(a.q[2].v, a.q[3].v, 0xEE);
  const Floats row0 = _mm512_shuffle_f32x4(a01, a23, 0x88);
  const Floats row1 = _mm512_shuffle_f32x4(a01, a23, 0xDD);
  const Floats row2 = _mm512_shuffle_f32x4(b01, b23, 0x88);
  const Floats row3 = _mm512_shuffle_f32x4(b01, b23, 0xDD);
  const Floats one = (row0 + row1) + (row2 + row3);
  const Floats x = one * dx;
  const Floats y = one * Floats(dy) + (row1 + Floats(2.0f) * row2 + Floats(3.0f) * row3);
  // Transpose and add inside each group of four lanes.
  const __m512 one_x =
      _mm512_add_ps(_mm512_unpacklo_ps(one.v, x.v), _mm512_unpackhi_ps(one.v, x.v));
  const __m512 y_o =
      _mm512_add_ps(_mm512_unpacklo_ps(y.v, others.v), _mm512_unpackhi_ps(y.v, others.v));
  const __m512 sums = _mm512_add_ps(_mm512_shuffle_ps(one_x, y_o, 0x44),
                                    _mm512_shuffle_ps(one_x, y_o, 0xEE));
  store(to, load(to) + Floats(sums));
}

#else

SPLATIR_INLINE Quad row_of(const Floats& a, int row) {
  Quad r;
  std::memcpy(&r, reinterpret_cast<const char*>(&a) + row * sizeof r, sizeof r);
  return r;
}

SPLATIR_INLINE Floats fold_rows(const FourFloats& a) {
  Floats r;
  for (int i = 0; i < 4; ++i) {
    const Quad sum = sum_quads(a.q[i]);
    std::memcpy(reinterpret_cast<char*>(&r) + i * sizeof sum, &sum, sizeof sum);
  }
  return r;
}

SPLATIR_INLINE Floats fold_rows(const Floats& a) {
  Floats r = 0.0f;
  const Quad sum = sum_quads(a);
  std::memcpy(reinterpret_cast<char*>(&r), &sum, sizeof sum);
  return r;
}

// (sum a, sum b, sum c, sum d).
SPLATIR_INLINE Quad sum_each(Quad a, Quad b, Quad c, Quad d) {
#if defined(__SSE2__)
  const __m128 ab = _mm_unpacklo_ps((__m128)a, (__m128)b) + _mm_unpackhi_ps((__m128)a, (__m128)b);
  const __m128 cd = _mm_unpacklo_ps((__m128)c, (__m128)d) + _mm_unpackhi_ps((__m128)c, (__m128)d);
  return (Quad)(_mm_movelh_ps(ab, cd) + _mm_movehl_ps(cd, ab));
#else
  return Quad{a[0] + a[2] + (a[1] + a[3]), b[0] + b[2] + (b[1] + b[3]),
              c[0] + c[2] + (c[1] + c[3]), d[0] + d[2] + (d[1] + d[3])};
#endif
}

SPLATIR_INLINE void add_moments(const FourFloats& a, const Floats& dx, float dy,
                                const Floats& others, float* to) {
  const Quad dx_row = row_of(dx, 0);
  for (int i = 0; i < 4; ++i) {
    const Quad row1 = row_of(a.q[i], 1), row2 = row_of(a.q[i], 2), row3 = row_of(a.q[i], 3);
    const Quad one = (row_of(a.q[i], 0) + row1) + (row2 + row3);
    const Quad y = one * dy + (row1 + 2.0f * row2 + 3.0f * row3);
    Quad total;
    std::memcpy(&total, to + 4 * i, sizeof total);
    total += sum_each(one, one * dx_row, y, row_of(others, i));
    std::memcpy(to + 4 * i, &total, sizeof total);
  }
}

#endif

}  // namespace splatir
