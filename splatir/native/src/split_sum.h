// Sixteen points under split-sum shading: where their lookups fall, and the slopes of that.
//
// Follows the torch reference (shade/split_sum.py, shade/prefilter.py, shade/lobe_energy.py), whose
// conventions at poles, seams and ends of ranges it shares.
#pragma once
#include <cstdint>

#include "lane_vectors.h"

namespace splatir {

constexpr float kPi = 3.14159265358979f;
// Squared sine below which a direction is a pole.
constexpr float kPole = 1e-13f;
constexpr float kMinCosine = 1e-4f;
// Square of the length below which a vector has no direction.
constexpr float kMinSquared = 1e-20f;

SPLATIR_INLINE Mask is_within(const Floats& a, float low, float high) {
  return (a >= Floats(low)) & (a <= Floats(high));
}

// Angle of (x, y) from the x axis, to 5e-7; 0 for (0, 0).
SPLATIR_INLINE Floats atan2(const Floats& y, const Floats& x) {
  const Floats abs_x = abs(x), abs_y = abs(y);
  const Floats t = min(abs_x, abs_y) / max(max(abs_x, abs_y), Floats(1e-30f));
  const Floats s = t * t;
  // atan(t) / t by powers of t^2 for t in [0, 1]: Chebyshev fit, error 1.6e-8 before rounding.
  Floats p = Floats(2.834064299e-03f);
  p = p * s + Floats(-1.600503050e-02f);
  p = p * s + Floats(4.258760747e-02f);
  p = p * s + Floats(-7.495445443e-02f);
  p = p * s + Floats(1.063675410e-01f);
  p = p * s + Floats(-1.420257051e-01f);
  p = p * s + Floats(1.999248358e-01f);
  p = p * s + Floats(-3.333306678e-01f);
  p = p * s + Floats(9.999999842e-01f);
  Floats angle = p * t;
  angle = select(abs_x < abs_y, Floats(0.5f * kPi) - angle, angle);
  angle = select(x < Floats(0.0f), Floats(kPi) - angle, angle);
  return select(y < Floats(0.0f), -angle, angle);
}

// Largest whole number that is not above, for magnitudes below 2^22; `low` for what is outside of
// [low, high] or NaN, so that no index leaves its array.
SPLATIR_INLINE Floats cell_of(const Floats& a, float low, float high) {
  const Floats nearest = (a + Floats(12582912.0f)) - Floats(12582912.0f);
  const Floats below = nearest - keep(a < nearest, Floats(1.0f));
  return select(is_within(below, low, high), below, Floats(low));
}

// A latitude-longitude map of `levels` levels.
struct Map {
  const float* texels;
  int64_t levels, height, width;

  int64_t level_texels() const { return height * width; }
};

// Texel cells of sixteen directions: lower left corner and how far beyond it.
struct Place {
  float column[kLanes], row[kLanes], x_share[kLanes], y_share[kLanes];
};

SPLATIR_INLINE Place place_of(const Vec3& direction, const Map& map) {
  const Floats squared = direction.x * direction.x + direction.y * direction.y;
  const Mask is_off_pole = ~(squared < Floats(kPole));  // also NaN, which goes on
  const Floats sine = keep(is_off_pole, sqrt(squared));
  const Floats longitude = atan2(keep(is_off_pole, direction.y),
                                 select(is_off_pole, direction.x, Floats(1.0f)));
  const float width = static_cast<float>(map.width), height = static_cast<float>(map.height);
  const Floats x = Floats(0.5f * width - 0.5f) - longitude * Floats(0.5f * width / kPi);
  const Floats y = atan2(sine, direction.z) * Floats(height / kPi) - Floats(0.5f);
  const Floats column = cell_of(x, -1.0f, width - 1.0f);
  const Floats row = cell_of(y, -1.0f, height - 1.0f);
  Place place;
  store(place.column, column);
  store(place.row, row);
  store(place.x_share, x - column);
  store(place.y_share, y - row);
  return place;
}

// Gradient to a direction from the gradients to its place, in texels.
SPLATIR_INLINE Vec3 v_direction_of(const Vec3& direction, const Map& map, const Floats& v_x,
                                   const Floats& v_y) {
  const Floats squared = direction.x * direction.x + direction.y * direction.y;
  const Mask is_off_pole = ~(squared < Floats(kPole));  // also NaN, which goes on
  const Floats safe = select(is_off_pole, squared, Floats(1.0f));
  const Floats sine = sqrt(safe);
  const Floats around = v_x * Floats(0.5f * static_cast<float>(map.width) / kPi) / safe;
  const Floats down = v_y * Floats(static_cast<float>(map.height) / kPi) /
                      (safe + direction.z * direction.z);
  const Floats outwards = down * direction.z / sine;
  return {keep(is_off_pole, outwards * direction.x + around * direction.y),
          keep(is_off_pole, outwards * direction.y - around * direction.x),
          keep(is_off_pole, -(down * sine))};
}

// Texels around a place: (left, top), (right, top), (left, bottom), (right, bottom). Columns wrap
// around, and beyond the poles the map goes on at the other side.
struct Corners {
  int64_t at[4];
  float weight[4];
};

SPLATIR_INLINE Corners corners_of(const Place& place, int lane, const Map& map) {
  const auto wrap = [&](int64_t column) {
    return column < 0 ? column + map.width : column >= map.width ? column - map.width : column;
  };
  const int64_t top = static_cast<int64_t>(place.row[lane]);
  const int64_t left = static_cast<int64_t>(place.column[lane]), half = map.width / 2;
  const int64_t top_left = wrap(top < 0 ? left - half : left);
  const bool is_last = top + 1 >= map.height;
  const int64_t bottom_left = wrap(is_last ? left - half : left);
  const int64_t top_row = (top < 0 ? 0 : top) * map.width;
  const int64_t bottom_row = (is_last ? map.height - 1 : top + 1) * map.width;
  const float x = place.x_share[lane], y = place.y_share[lane];
  return {{top_row + top_left, top_row + wrap(top_left + 1), bottom_row + bottom_left,
           bottom_row + wrap(bottom_left + 1)},
          {(1.0f - x) * (1.0f - y), x * (1.0f - y), (1.0f - x) * y, x * y}};
}

// By columns and rows, of a blend of values at the corners.
struct Slope {
  float x, y;
};

SPLATIR_INLINE Slope slope_of(const float (&corners)[4], const Place& place, int lane) {
  const float top = corners[1] - corners[0], bottom = corners[3] - corners[2];
  const float left = corners[2] - corners[0], right = corners[3] - corners[1];
  return {top + place.y_share[lane] * (bottom - top), left + place.x_share[lane] * (right - left)};
}

// Cell of the roughness levels, and its slope.
struct Level {
  float index[kLanes], share[kLanes];
  Floats slope;  // of index + share, by roughness
};

SPLATIR_INLINE Level level_of(const Floats& roughness, const float* levels, int64_t count) {
  const Floats clamped = clamp(roughness, Floats(levels[0]), Floats(levels[count - 1]));
  Floats index = Floats(0.0f), low = Floats(levels[0]);
  Floats slope = Floats(1.0f / (levels[1] - levels[0]));
  for (int64_t k = 1; k + 1 < count; ++k) {
    const Mask is_above = clamped >= Floats(levels[k]);
    index = select(is_above, Floats(static_cast<float>(k)), index);
    low = select(is_above, Floats(levels[k]), low);
    slope = select(is_above, Floats(1.0f / (levels[k + 1] - levels[k])), slope);
  }
  Level level;
  store(level.index, index);
  store(level.share, (clamped - low) * slope);
  level.slope = keep(is_within(roughness, levels[0], levels[count - 1]), slope);
  return level;
}

// A and B, and their slopes.
struct Energy {
  Floats a, b, a_by_roughness, b_by_roughness, a_by_cosine, b_by_cosine;
};

// Bilinear in a table [roughness, n.v, 2] of nodes^2 nodes, uniform in roughness and sqrt(n.v).
SPLATIR_INLINE Energy energy_of(const Floats& roughness, const Floats& cosine, const float* table,
                                int64_t nodes) {
  const float steps = static_cast<float>(nodes - 1);
  const Floats y = clamp(roughness, Floats(0.0f), Floats(1.0f)) * Floats(steps);
  const Floats row = cell_of(y, 0.0f, steps - 1.0f);
  const Floats nearest = cell_of(sqrt(cosine) * Floats(steps), 0.0f, steps);
  const Floats column = min(nearest, Floats(steps - 1.0f));
  const Floats squares = cosine * Floats(steps * steps) - column * column;
  const Floats inverse = Floats(1.0f) / (Floats(2.0f) * column + Floats(1.0f));
  float rows[kLanes], columns[kLanes], y_share[kLanes], corners[8][kLanes];
  store(rows, select(y >= Floats(steps), Floats(steps - 1.0f), row));
  store(columns, column);
  store(y_share, y - load(rows));
  for (int lane = 0; lane < kLanes; ++lane) {
    const int64_t at = static_cast<int64_t>(rows[lane]) * nodes +
                       static_cast<int64_t>(columns[lane]);
    for (int i = 0; i < 4; ++i) {
      corners[i][lane] = table[2 * at + i];
      corners[4 + i][lane] = table[2 * (at + nodes) + i];
    }
  }
  const Floats x = squares * inverse, share = load(y_share);
  const auto corner = [&](int i) { return load(corners[i]); };
  const auto across = [&](int i) { return corner(i) + x * (corner(i + 2) - corner(i)); };
  const auto slope = [&](int i) {
    const Floats upper = corner(i + 2) - corner(i), lower = corner(i + 6) - corner(i + 4);
    return (upper + share * (lower - upper)) * inverse * Floats(steps * steps);
  };
  const Mask is_inside = is_within(roughness, 0.0f, 1.0f);
  const Floats a_down = across(4) - across(0), b_down = across(5) - across(1);
  return {across(0) + share * a_down,
          across(1) + share * b_down,
          keep(is_inside, a_down * Floats(steps)),
          keep(is_inside, b_down * Floats(steps)),
          slope(0),
          slope(1)};
}

// The direction that the specular lobe looks in.
struct Lean {
  Floats cosine;        // n.v, at least kMinCosine
  Mask is_cosine_free;  // where the cosine was not clamped
  Vec3 mirror, direction;
  Floats share, share_by_roughness, inverse_length;
};

SPLATIR_INLINE Lean lean_of(const Vec3& normal, const Vec3& view, const Floats& roughness) {
  Lean lean;
  const Floats cosine = dot(normal, view);
  lean.is_cosine_free = is_within(cosine, kMinCosine, 1.0f);
  lean.cosine = clamp(cosine, Floats(kMinCosine), Floats(1.0f));
  lean.mirror = normal * (Floats(2.0f) * lean.cosine) - view;
  const Floats alpha = roughness * roughness, rest = Floats(1.0f) - alpha;
  const Floats root = sqrt(max(rest, Floats(1e-6f)));
  lean.share = rest * (root + alpha);
  const Floats root_slope = keep(rest >= Floats(1e-6f), Floats(0.5f) / root);
  lean.share_by_roughness =
      Floats(2.0f) * roughness * (rest * (Floats(1.0f) - root_slope) - (root + alpha));
  const Vec3 leaning = normal + (lean.mirror - normal) * lean.share;
  const Floats squared = dot(leaning, leaning);
  const Mask has_direction = squared > Floats(kMinSquared);
  lean.inverse_length =
      keep(has_direction, Floats(1.0f) / sqrt(select(has_direction, squared, Floats(1.0f))));
  lean.direction = leaning * lean.inverse_length;
  return lean;
}

}  // namespace splatir
