// Three-vectors of sixteen lanes: directions, or colours.
#pragma once
#include "simd.h"

namespace splatir {

struct Vec3 {
  Floats x, y, z;
};

SPLATIR_INLINE Vec3 operator+(const Vec3& a, const Vec3& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z};
}
SPLATIR_INLINE Vec3 operator-(const Vec3& a, const Vec3& b) {
  return {a.x - b.x, a.y - b.y, a.z - b.z};
}
SPLATIR_INLINE Vec3 operator*(const Vec3& a, const Vec3& b) {
  return {a.x * b.x, a.y * b.y, a.z * b.z};
}
SPLATIR_INLINE Vec3 operator*(const Vec3& a, const Floats& s) {
  return {a.x * s, a.y * s, a.z * s};
}
SPLATIR_INLINE Floats dot(const Vec3& a, const Vec3& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

}  // namespace splatir
