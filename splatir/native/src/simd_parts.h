// Sixteen lanes as an array of the machine's own vectors, as simd_avx512.h has them in one; that
// file's comments apply. Included by simd.h only.
#pragma once

namespace splatir {

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

}  // namespace splatir
