// Sixteen float lanes and their masks, on AVX-512, AVX2, SSE2 and whatever else GCC or clang know.
//
// AVX-512 has one 64-byte register per value and real mask registers. Elsewhere a value is an array
// of registers of the machine's own width: GCC 12 lowers 64-byte generic vectors on AVX2 to code
// that is 3 to 6 times slower than two 32-byte ones.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
// GCC 12 warns about the deliberately uninitialised registers of its own header.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#define SPLATIR_INLINE inline __attribute__((always_inline))

namespace splatir {

constexpr int kLanes = 16;

// Four floats: one register on every instruction set.
typedef float Quad __attribute__((vector_size(16)));

SPLATIR_INLINE Quad load_quad(const float* from) {
  Quad r;
  std::memcpy(&r, from, sizeof r);
  return r;
}
SPLATIR_INLINE void store_quad(float* to, Quad a) { std::memcpy(to, &a, sizeof a); }

}  // namespace splatir

#if defined(__AVX512F__)
#include "simd_avx512.h"
#else
#include "simd_parts.h"
#endif

namespace splatir {

SPLATIR_INLINE void transpose(Quad (&rows)[4]) {
  const Quad a = rows[0], b = rows[1], c = rows[2], d = rows[3];
#if defined(__SSE2__)
  const __m128 ab_low = _mm_unpacklo_ps(a, b), ab_high = _mm_unpackhi_ps(a, b);
  const __m128 cd_low = _mm_unpacklo_ps(c, d), cd_high = _mm_unpackhi_ps(c, d);
  rows[0] = _mm_movelh_ps(ab_low, cd_low);
  rows[1] = _mm_movehl_ps(cd_low, ab_low);
  rows[2] = _mm_movelh_ps(ab_high, cd_high);
  rows[3] = _mm_movehl_ps(cd_high, ab_high);
#else
  for (int i = 0; i < 4; ++i) rows[i] = Quad{a[i], b[i], c[i], d[i]};
#endif
}

SPLATIR_INLINE Mask operator>(const Floats& a, const Floats& b) { return b < a; }
SPLATIR_INLINE Mask operator>=(const Floats& a, const Floats& b) { return b <= a; }
SPLATIR_INLINE Floats operator-(const Floats& a) { return Floats(0.0f) - a; }
SPLATIR_INLINE Floats& operator+=(Floats& a, const Floats& b) { return a = a + b; }
SPLATIR_INLINE bool any(const Mask& a) { return bits(a) != 0; }
SPLATIR_INLINE Floats clamp(const Floats& a, const Floats& low, const Floats& high) {
  return min(max(a, low), high);
}

// 2^x to 1.7e-7 relative, for x <= 127; 2^-126 below -126. Exact at integers.
SPLATIR_INLINE Floats exp2(Floats x) {
  x = max(x, Floats(-126.0f));
  // Adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits.
  const Floats shifted = x + Floats(12582912.0f);
  const Floats f = x - (shifted - Floats(12582912.0f));
  // Minimax polynomial of 2^f on [-1/2, 1/2], relative error 9.1e-8 before rounding.
  Floats p = Floats(1.3264727e-3f);
  p = p * f + Floats(9.6715130e-3f);
  p = p * f + Floats(5.5507336e-2f);
  p = p * f + Floats(2.4022242e-1f);
  p = p * f + Floats(6.9314700e-1f);
  p = p * f + Floats(1.0f);
  return reinterpret_as_floats(shift_left<23>(reinterpret_as_ints(shifted)) +
                               reinterpret_as_ints(p));
}

// Appends the indices i in [0, count) whose masks[i] has the given bit to out; returns how many.
// Both arrays must have room for 16 elements more than count.
SPLATIR_INLINE uint32_t indices_with_bit(const uint16_t* masks, uint32_t count, int bit,
                                         uint32_t* out) {
  uint32_t found = 0;
#if defined(__AVX512F__)
  const __m512i wanted = _mm512_set1_epi32(1 << bit);
  __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (uint32_t i = 0; i < count; i += 16) {
    const __m512i block =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(masks + i)));
    __mmask16 has = _mm512_test_epi32_mask(block, wanted);
    if (count - i < 16) has &= static_cast<__mmask16>((1u << (count - i)) - 1);
    // Compressing in a register and storing it whole: vpcompressd to memory is microcoded on Zen 4.
    _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(has, index));
    found += static_cast<uint32_t>(__builtin_popcount(has));
    index = _mm512_add_epi32(index, _mm512_set1_epi32(16));
  }
#else
  for (uint32_t i = 0; i < count; ++i) {
    out[found] = i;
    found += (masks[i] >> bit) & 1u;
  }
#endif
  return found;
}

}  // namespace splatir
