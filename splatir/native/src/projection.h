// What both projections share: three-vectors, rotations by quaternions, the view, blocks of splats.
//
// Kernels gather 16 splats into columns and run one straight-line body per lane, which compilers
// turn into vector code for any instruction set; bodies therefore branch by selection only.
#pragma once
#include <cstdint>
#include <cstring>

namespace splatir {

constexpr int kBlock = 16;

struct Vec3 {
  float x, y, z;
};

inline Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline Vec3 operator*(float s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
inline float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Vec3 cross(Vec3 a, Vec3 b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

struct Quat {
  float w, x, y, z;
};

// A rotation by its columns: the images of the own axes.
struct Axes {
  Vec3 x, y, z;
};

inline float inverse_norm(Quat q) {
  return 1.f / __builtin_sqrtf(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z);
}

inline Quat scaled(Quat q, float s) { return {q.w * s, q.x * s, q.y * s, q.z * s}; }

// Columns of the rotation matrix of a unit quaternion.
inline Axes axes_of(Quat q) {
  return {{1.f - 2.f * (q.y * q.y + q.z * q.z), 2.f * (q.x * q.y + q.w * q.z),
           2.f * (q.x * q.z - q.w * q.y)},
          {2.f * (q.x * q.y - q.w * q.z), 1.f - 2.f * (q.x * q.x + q.z * q.z),
           2.f * (q.y * q.z + q.w * q.x)},
          {2.f * (q.x * q.z + q.w * q.y), 2.f * (q.y * q.z - q.w * q.x),
           1.f - 2.f * (q.x * q.x + q.y * q.y)}};
}

// Gradient to a quaternion of any length from the gradient to the columns of its rotation.
inline Quat quat_gradient(Quat unit, float inverse_length, Axes v) {
  const float w = unit.w, x = unit.x, y = unit.y, z = unit.z;
  const float gw = 2.f * (x * (v.y.z - v.z.y) + y * (v.z.x - v.x.z) + z * (v.x.y - v.y.x));
  const float gx = 2.f * (w * (v.y.z - v.z.y) + y * (v.x.y + v.y.x) + z * (v.x.z + v.z.x) -
                          2.f * x * (v.y.y + v.z.z));
  const float gy = 2.f * (w * (v.z.x - v.x.z) + x * (v.x.y + v.y.x) + z * (v.y.z + v.z.y) -
                          2.f * y * (v.x.x + v.z.z));
  const float gz = 2.f * (w * (v.x.y - v.y.x) + x * (v.x.z + v.z.x) + y * (v.y.z + v.z.y) -
                          2.f * z * (v.x.x + v.y.y));
  // Only the part across the quaternion turns it; the part along it changes its length.
  const float along = gw * w + gx * x + gy * y + gz * z;
  return scaled({gw - along * w, gx - along * x, gy - along * y, gz - along * z}, inverse_length);
}

// A pinhole view: world to camera by rows, focal lengths and principal point in pixels.
struct View {
  Vec3 row_x, row_y, row_z, translation;
  float fx, fy, cx, cy, width, height;

  View(const float* T_camera_world, const float* K, int64_t image_width, int64_t image_height)
      : row_x{T_camera_world[0], T_camera_world[1], T_camera_world[2]},
        row_y{T_camera_world[4], T_camera_world[5], T_camera_world[6]},
        row_z{T_camera_world[8], T_camera_world[9], T_camera_world[10]},
        translation{T_camera_world[3], T_camera_world[7], T_camera_world[11]},
        fx(K[0]), fy(K[4]), cx(K[2]), cy(K[5]),
        width(static_cast<float>(image_width)), height(static_cast<float>(image_height)) {}

  Vec3 rotate(Vec3 world) const {
    return {dot(row_x, world), dot(row_y, world), dot(row_z, world)};
  }
  Vec3 rotate_back(Vec3 camera) const {
    return camera.x * row_x + camera.y * row_y + camera.z * row_z;
  }
  Vec3 to_camera(Vec3 world) const { return rotate(world) + translation; }
};

// Larger radii are this one: they must fit an int32.
constexpr float kMaxRadius = 1e9f;

// Smallest integer >= x for 0 <= x, at most kMaxRadius. SSE2 has no vector ceil.
inline int32_t ceil_to_int(float x) {
  const float bounded = x < kMaxRadius ? x : kMaxRadius;
  const int32_t truncated = static_cast<int32_t>(bounded);
  return truncated + (static_cast<float>(truncated) < bounded ? 1 : 0);
}

inline bool rectangle_meets_image(const View& view, float x, float y, int32_t rx, int32_t ry) {
  return (x + rx > 0.f) & (x - rx < view.width) & (y + ry > 0.f) & (y - ry < view.height);
}

// Rows [first, first + count) of a row-major array, as columns; the last row fills a short block.
template <int kColumns>
inline void gather(const float* rows, int64_t first, int count,
                   float (&columns)[kColumns][kBlock]) {
  const float* row = rows + first * kColumns;
  for (int lane = 0; lane < kBlock; ++lane) {
    for (int c = 0; c < kColumns; ++c) columns[c][lane] = row[c];
    if (lane + 1 < count) row += kColumns;
  }
}

template <int kColumns, typename T>
inline void scatter(const T (&columns)[kColumns][kBlock], int64_t first, int count, T* rows) {
  T* row = rows + first * kColumns;
  for (int lane = 0; lane < count; ++lane, row += kColumns) {
    for (int c = 0; c < kColumns; ++c) row[c] = columns[c][lane];
  }
}

template <int kColumns>
inline Vec3 vec3_at(const float (&columns)[kColumns][kBlock], int lane) {
  return {columns[0][lane], columns[1][lane], columns[2][lane]};
}

inline Quat quat_at(const float (&columns)[4][kBlock], int lane) {
  return {columns[0][lane], columns[1][lane], columns[2][lane], columns[3][lane]};
}

inline int64_t num_blocks(int64_t count) { return (count + kBlock - 1) / kBlock; }

inline int block_size(int64_t count, int64_t first) {
  return static_cast<int>(count - first < kBlock ? count - first : kBlock);
}

// Stores a result, zero for lanes that were culled (whose arithmetic may have overflowed).
template <int kColumns>
inline void put(float (&columns)[kColumns][kBlock], int column, int lane, bool keep, float value) {
  columns[column][lane] = keep ? value : 0.f;
}

inline void put(float (&columns)[3][kBlock], int lane, bool keep, Vec3 value) {
  columns[0][lane] = keep ? value.x : 0.f;
  columns[1][lane] = keep ? value.y : 0.f;
  columns[2][lane] = keep ? value.z : 0.f;
}

inline void put(float (&columns)[4][kBlock], int lane, bool keep, Quat value) {
  columns[0][lane] = keep ? value.w : 0.f;
  columns[1][lane] = keep ? value.x : 0.f;
  columns[2][lane] = keep ? value.y : 0.f;
  columns[3][lane] = keep ? value.z : 0.f;
}

}  // namespace splatir
