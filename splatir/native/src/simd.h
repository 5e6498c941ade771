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

#if defined(__AVX512F__)

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

#else  // An array of the machine's own vectors.

#if defined(__AVX2__)
constexpr int kPartBytes = 32;
#else
constexpr int kPartBytes = 16;
#endif
constexpr int kParts = 64 / kPartBytes;
constexpr int kPartLanes = kPartBytes / 4;
typedef float FloatPart __attribute__((vector_size(kPartBytes)));
typedef int32_t IntPart __attribute__((vector_size(kPartBytes)));

// Written out: GCC 12 turns lane-by-lane initialisation into a chain of inserts.
SPLATIR_INLINE FloatPart broadcast_part(float value) {
#if defined(__AVX2__)
  return _mm256_set1_ps(value);
#else
  return FloatPart{value, value, value, value};
#endif
}
SPLATIR_INLINE IntPart broadcast_part(int32_t value) { return IntPart{} + value; }

struct Ints {
  IntPart v[kParts];
  Ints() = default;
  SPLATIR_INLINE Ints(int32_t value) {
    for (int p = 0; p < kParts; ++p) v[p] = broadcast_part(value);
  }
};

struct Floats {
  FloatPart v[kParts];
  Floats() = default;
  SPLATIR_INLINE Floats(float value) {
    for (int p = 0; p < kParts; ++p) v[p] = broadcast_part(value);
  }
};

// All bits of a lane set or none.
struct Mask {
  IntPart v[kParts];
  Mask() = default;
};

#define SPLATIR_LANEWISE(Result, name, A, B, expression)          \
  SPLATIR_INLINE Result name(const A& a, const B& b) {            \
    Result r;                                                     \
    for (int p = 0; p < kParts; ++p) r.v[p] = expression;         \
    return r;                                                     \
  }
SPLATIR_LANEWISE(Floats, operator+, Floats, Floats, a.v[p] + b.v[p])
SPLATIR_LANEWISE(Floats, operator-, Floats, Floats, a.v[p] - b.v[p])
SPLATIR_LANEWISE(Floats, operator*, Floats, Floats, a.v[p] * b.v[p])
SPLATIR_LANEWISE(Floats, operator/, Floats, Floats, a.v[p] / b.v[p])
SPLATIR_LANEWISE(Mask, operator<, Floats, Floats, a.v[p] < b.v[p])
SPLATIR_LANEWISE(Mask, operator<=, Floats, Floats, a.v[p] <= b.v[p])
SPLATIR_LANEWISE(Mask, operator!=, Floats, Floats, a.v[p] != b.v[p])
SPLATIR_LANEWISE(Ints, operator+, Ints, Ints, a.v[p] + b.v[p])
SPLATIR_LANEWISE(Ints, operator-, Ints, Ints, a.v[p] - b.v[p])
SPLATIR_LANEWISE(Ints, operator&, Ints, Ints, a.v[p] & b.v[p])
SPLATIR_LANEWISE(Ints, operator|, Ints, Ints, a.v[p] | b.v[p])
SPLATIR_LANEWISE(Mask, operator&, Mask, Mask, a.v[p] & b.v[p])
SPLATIR_LANEWISE(Mask, operator|, Mask, Mask, a.v[p] | b.v[p])
// As the x86 instructions: the second operand where one is NaN.
#if defined(__AVX2__)
SPLATIR_LANEWISE(Floats, min, Floats, Floats, _mm256_min_ps(a.v[p], b.v[p]))
SPLATIR_LANEWISE(Floats, max, Floats, Floats, _mm256_max_ps(a.v[p], b.v[p]))
#elif defined(__SSE2__)
SPLATIR_LANEWISE(Floats, min, Floats, Floats, _mm_min_ps(a.v[p], b.v[p]))
SPLATIR_LANEWISE(Floats, max, Floats, Floats, _mm_max_ps(a.v[p], b.v[p]))
#else
SPLATIR_LANEWISE(Floats, min, Floats, Floats, a.v[p] < b.v[p] ? a.v[p] : b.v[p])
SPLATIR_LANEWISE(Floats, max, Floats, Floats, a.v[p] > b.v[p] ? a.v[p] : b.v[p])
#endif
#undef SPLATIR_LANEWISE

template <int kBits>
SPLATIR_INLINE Ints shift_left(const Ints& a) {
  Ints r;
  for (int p = 0; p < kParts; ++p) r.v[p] = a.v[p] << kBits;
  return r;
}

template <int kBits>
SPLATIR_INLINE Ints shift_right(const Ints& a) {
  Ints r;
  for (int p = 0; p < kParts; ++p) r.v[p] = a.v[p] >> kBits;
  return r;
}

SPLATIR_INLINE Mask operator~(const Mask& a) {
  Mask r;
  for (int p = 0; p < kParts; ++p) r.v[p] = ~a.v[p];
  return r;
}

SPLATIR_INLINE Mask and_less_equal(const Mask& within, const Floats& a, const Floats& b) {
  return within & (a <= b);
}

SPLATIR_INLINE uint32_t bits(const Mask& a) {
  uint32_t r = 0;
  for (int p = 0; p < kParts; ++p) {
#if defined(__AVX2__)
    const uint32_t part = _mm256_movemask_ps((__m256)a.v[p]);
#elif defined(__SSE2__)
    const uint32_t part = _mm_movemask_ps((__m128)a.v[p]);
#else
    uint32_t part = 0;
    for (int lane = 0; lane < kPartLanes; ++lane) part |= (a.v[p][lane] & 1u) << lane;
#endif
    r |= part << (p * kPartLanes);
  }
  return r;
}

SPLATIR_INLINE Mask mask_from_bits(uint32_t bits) {
  Mask r;
  for (int p = 0; p < kParts; ++p) {
#if defined(__AVX2__)
    const IntPart first_bits = {1, 2, 4, 8, 16, 32, 64, 128};
#else
    const IntPart first_bits = {1, 2, 4, 8};
#endif
    r.v[p] = (broadcast_part(static_cast<int32_t>(bits)) & (first_bits << (p * kPartLanes))) != 0;
  }
  return r;
}

SPLATIR_INLINE Floats select(const Mask& mask, const Floats& a, const Floats& b) {
  Floats r;
  for (int p = 0; p < kParts; ++p) r.v[p] = mask.v[p] ? a.v[p] : b.v[p];
  return r;
}
SPLATIR_INLINE Ints select(const Mask& mask, const Ints& a, const Ints& b) {
  Ints r;
  for (int p = 0; p < kParts; ++p) r.v[p] = mask.v[p] ? a.v[p] : b.v[p];
  return r;
}
SPLATIR_INLINE Floats keep(const Mask& mask, const Floats& a) {
  Floats r;
  for (int p = 0; p < kParts; ++p) r.v[p] = (FloatPart)((IntPart)a.v[p] & mask.v[p]);
  return r;
}

SPLATIR_INLINE Ints reinterpret_as_ints(const Floats& a) {
  Ints r;
  for (int p = 0; p < kParts; ++p) r.v[p] = (IntPart)a.v[p];
  return r;
}
SPLATIR_INLINE Floats reinterpret_as_floats(const Ints& a) {
  Floats r;
  for (int p = 0; p < kParts; ++p) r.v[p] = (FloatPart)a.v[p];
  return r;
}

SPLATIR_INLINE Floats load(const float* from) {
  Floats r;
  for (int p = 0; p < kParts; ++p) std::memcpy(&r.v[p], from + p * kPartLanes, kPartBytes);
  return r;
}
SPLATIR_INLINE Ints load(const int32_t* from) {
  Ints r;
  for (int p = 0; p < kParts; ++p) std::memcpy(&r.v[p], from + p * kPartLanes, kPartBytes);
  return r;
}
SPLATIR_INLINE void store(float* to, const Floats& a) {
  for (int p = 0; p < kParts; ++p) std::memcpy(to + p * kPartLanes, &a.v[p], kPartBytes);
}
SPLATIR_INLINE void store(int32_t* to, const Ints& a) {
  for (int p = 0; p < kParts; ++p) std::memcpy(to + p * kPartLanes, &a.v[p], kPartBytes);
}

SPLATIR_INLINE Floats abs(const Floats& a) {
  return reinterpret_as_floats(reinterpret_as_ints(a) & Ints(0x7fffffff));
}

SPLATIR_INLINE Floats sqrt(const Floats& a) {
  Floats r;
  for (int p = 0; p < kParts; ++p) {
#if defined(__AVX2__)
    r.v[p] = _mm256_sqrt_ps(a.v[p]);
#elif defined(__SSE2__)
    r.v[p] = _mm_sqrt_ps(a.v[p]);
#else
    for (int lane = 0; lane < kPartLanes; ++lane) r.v[p][lane] = std::sqrt(a.v[p][lane]);
#endif
  }
  return r;
}

SPLATIR_INLINE float sum(const Floats& a) {
  FloatPart total = a.v[0];
  for (int p = 1; p < kParts; ++p) total = total + a.v[p];
  float lanes[kPartLanes];
  std::memcpy(lanes, &total, kPartBytes);
  for (int width = kPartLanes / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  return lanes[0];
}

SPLATIR_INLINE Quad sum_quads(const Floats& a) {
  FloatPart total = a.v[0];
  for (int p = 1; p < kParts; ++p) total = total + a.v[p];
#if defined(__AVX2__)
  return (Quad)_mm_add_ps(_mm256_castps256_ps128(total), _mm256_extractf128_ps(total, 1));
#else
  return total;
#endif
}

SPLATIR_INLINE void transpose_quads(Floats (&rows)[4]) {
  for (int p = 0; p < kParts; ++p) {
#if defined(__AVX2__)
    const __m256 ab_low = _mm256_unpacklo_ps(rows[0].v[p], rows[1].v[p]);
    const __m256 ab_high = _mm256_unpackhi_ps(rows[0].v[p], rows[1].v[p]);
    const __m256 cd_low = _mm256_unpacklo_ps(rows[2].v[p], rows[3].v[p]);
    const __m256 cd_high = _mm256_unpackhi_ps(rows[2].v[p], rows[3].v[p]);
    rows[0].v[p] = _mm256_shuffle_ps(ab_low, cd_low, 0x44);
    rows[1].v[p] = _mm256_shuffle_ps(ab_low, cd_low, 0xEE);
    rows[2].v[p] = _mm256_shuffle_ps(ab_high, cd_high, 0x44);
    rows[3].v[p] = _mm256_shuffle_ps(ab_high, cd_high, 0xEE);
#else
    FloatPart columns[4];
    for (int i = 0; i < 4; ++i)
      columns[i] = FloatPart{rows[0].v[p][i], rows[1].v[p][i], rows[2].v[p][i], rows[3].v[p][i]};
    for (int i = 0; i < 4; ++i) rows[i].v[p] = columns[i];
#endif
  }
}

#endif

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
