// Sixteen lanes in one register, with mask registers. Included by simd.h only.
#pragma once

namespace splatir {

struct Ints {
  __m512i v;
  Ints() = default;
  SPLATIR_INLINE Ints(__m512i value) : v(value) {}
  SPLATIR_INLINE Ints(int32_t value) : v(_mm512_set1_epi32(value)) {}
};

struct Floats {
  __m512 v;
  Floats() = default;
  SPLATIR_INLINE Floats(__m512 value) : v(value) {}
  SPLATIR_INLINE Floats(float value) : v(_mm512_set1_ps(value)) {}
};

struct Mask {
  __mmask16 v;
  Mask() = default;
  SPLATIR_INLINE explicit Mask(__mmask16 value) : v(value) {}
};

SPLATIR_INLINE Floats operator+(Floats a, Floats b) { return _mm512_add_ps(a.v, b.v); }
SPLATIR_INLINE Floats operator-(Floats a, Floats b) { return _mm512_sub_ps(a.v, b.v); }
SPLATIR_INLINE Floats operator*(Floats a, Floats b) { return _mm512_mul_ps(a.v, b.v); }
SPLATIR_INLINE Floats operator/(Floats a, Floats b) { return _mm512_div_ps(a.v, b.v); }
SPLATIR_INLINE Floats min(Floats a, Floats b) { return _mm512_min_ps(a.v, b.v); }
SPLATIR_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a.v, b.v); }
SPLATIR_INLINE Floats sqrt(Floats a) { return _mm512_sqrt_ps(a.v); }
SPLATIR_INLINE Floats abs(Floats a) { return _mm512_abs_ps(a.v); }

SPLATIR_INLINE Mask operator<(Floats a, Floats b) {
  return Mask(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ));
}
SPLATIR_INLINE Mask operator<=(Floats a, Floats b) {
  return Mask(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ));
}
SPLATIR_INLINE Mask operator!=(Floats a, Floats b) {
  return Mask(_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ));
}

SPLATIR_INLINE Ints operator+(Ints a, Ints b) { return _mm512_add_epi32(a.v, b.v); }
SPLATIR_INLINE Ints operator-(Ints a, Ints b) { return _mm512_sub_epi32(a.v, b.v); }
SPLATIR_INLINE Ints operator&(Ints a, Ints b) { return _mm512_and_si512(a.v, b.v); }
SPLATIR_INLINE Ints operator|(Ints a, Ints b) { return _mm512_or_si512(a.v, b.v); }
template <int kBits>
SPLATIR_INLINE Ints shift_left(Ints a) { return _mm512_slli_epi32(a.v, kBits); }
// Logical for non-negative numbers, arithmetic otherwise.
template <int kBits>
SPLATIR_INLINE Ints shift_right(Ints a) { return _mm512_srai_epi32(a.v, kBits); }

SPLATIR_INLINE Mask operator&(Mask a, Mask b) { return Mask(static_cast<__mmask16>(a.v & b.v)); }
SPLATIR_INLINE Mask operator|(Mask a, Mask b) { return Mask(static_cast<__mmask16>(a.v | b.v)); }
SPLATIR_INLINE Mask operator~(Mask a) { return Mask(static_cast<__mmask16>(~a.v)); }
// within & (a <= b)
SPLATIR_INLINE Mask and_less_equal(Mask within, Floats a, Floats b) {
  return Mask(_mm512_mask_cmp_ps_mask(within.v, a.v, b.v, _CMP_LE_OQ));
}
// Bit l is lane l.
SPLATIR_INLINE uint32_t bits(Mask a) { return a.v; }
SPLATIR_INLINE Mask mask_from_bits(uint32_t bits) { return Mask(static_cast<__mmask16>(bits)); }

// Lane-wise mask ? a : b.
SPLATIR_INLINE Floats select(Mask mask, Floats a, Floats b) {
  return _mm512_mask_mov_ps(b.v, mask.v, a.v);
}
SPLATIR_INLINE Ints select(Mask mask, Ints a, Ints b) {
  return _mm512_mask_mov_epi32(b.v, mask.v, a.v);
}
// Lane-wise mask ? a : 0.
SPLATIR_INLINE Floats keep(Mask mask, Floats a) { return _mm512_maskz_mov_ps(mask.v, a.v); }

SPLATIR_INLINE Ints reinterpret_as_ints(Floats a) { return _mm512_castps_si512(a.v); }
SPLATIR_INLINE Floats reinterpret_as_floats(Ints a) { return _mm512_castsi512_ps(a.v); }

// Pointers need no alignment beyond their type's.
SPLATIR_INLINE Floats load(const float* from) { return _mm512_loadu_ps(from); }
SPLATIR_INLINE Ints load(const int32_t* from) { return _mm512_loadu_si512(from); }
SPLATIR_INLINE void store(float* to, Floats a) { _mm512_storeu_ps(to, a.v); }
SPLATIR_INLINE void store(int32_t* to, Ints a) { _mm512_storeu_si512(to, a.v); }

SPLATIR_INLINE float sum(Floats a) { return _mm512_reduce_add_ps(a.v); }

// Lane j of the result is the sum of lanes j, j + 4, j + 8 and j + 12.
SPLATIR_INLINE Quad sum_quads(Floats a) {
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a.v), high);
  return (Quad)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// Transposes the 4x4 matrices that lanes 4j .. 4j + 3 of four vectors make, for each j.
SPLATIR_INLINE void transpose_quads(Floats (&rows)[4]) {
  const __m512 ab_low = _mm512_unpacklo_ps(rows[0].v, rows[1].v);
  const __m512 ab_high = _mm512_unpackhi_ps(rows[0].v, rows[1].v);
  const __m512 cd_low = _mm512_unpacklo_ps(rows[2].v, rows[3].v);
  const __m512 cd_high = _mm512_unpackhi_ps(rows[2].v, rows[3].v);
  rows[0] = _mm512_shuffle_ps(ab_low, cd_low, 0x44);
  rows[1] = _mm512_shuffle_ps(ab_low, cd_low, 0xEE);
  rows[2] = _mm512_shuffle_ps(ab_high, cd_high, 0x44);
  rows[3] = _mm512_shuffle_ps(ab_high, cd_high, 0xEE);
}

}  // namespace splatir
