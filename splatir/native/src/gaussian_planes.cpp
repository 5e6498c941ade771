// Normals of Gaussians, the planes across them as the camera's rays see them, and the gradients.
//
// Column k of the rotation of a unit quaternion (w, v), with a and b the axes after k in turn:
//   n_k = 1 - 2 (v_a^2 + v_b^2),  n_a = 2 (v_k v_a + w v_b),  n_b = 2 (v_k v_b - w v_a).
#include <algorithm>
#include <cmath>

#include "abi.h"
#include "threads.h"

namespace splatir {
namespace {

// As torch.nn.functional.normalize has it.
constexpr float kMinNorm = 1e-12f;
constexpr float kMinDistance = 1e-9f, kMinCosine = 1e-3f, kMaxSlope = 1.f;

struct Vector {
  float x, y, z;
};

Vector load(const float* from) { return {from[0], from[1], from[2]}; }
void store(float* to, const Vector& a) { to[0] = a.x, to[1] = a.y, to[2] = a.z; }
Vector operator+(const Vector& a, const Vector& b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
Vector operator-(const Vector& a, const Vector& b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
Vector operator*(float s, const Vector& a) { return {s * a.x, s * a.y, s * a.z}; }
float dot(const Vector& a, const Vector& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

// The third axis of a surfel, whose scales are null, and the shortest one of an ellipsoid.
int normal_axis(const float* scales) {
  return scales == nullptr ? 2 : static_cast<int>(std::min_element(scales, scales + 3) - scales);
}

struct UnitQuat {
  float w, v[3], norm;

  explicit UnitQuat(const float* q) {
    const float length = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    norm = std::max(length, kMinNorm);
    w = q[0] / norm;
    for (int i = 0; i < 3; ++i) v[i] = q[i + 1] / norm;
  }

  void column(int k, float* n) const {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    n[k] = 1.f - 2.f * (v[a] * v[a] + v[b] * v[b]);
    n[a] = 2.f * (v[k] * v[a] + w * v[b]);
    n[b] = 2.f * (v[k] * v[b] - w * v[a]);
  }

  // Gradient to the quaternion, of any length, from the one to its column.
  void backward(int k, const float* v_n, float* v_quat) const {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    float g[4];
    g[0] = 2.f * (v_n[a] * v[b] - v_n[b] * v[a]);
    g[k + 1] = 2.f * (v_n[a] * v[a] + v_n[b] * v[b]);
    g[a + 1] = 2.f * (v_n[a] * v[k] - v_n[b] * w) - 4.f * v_n[k] * v[a];
    g[b + 1] = 2.f * (v_n[a] * w + v_n[b] * v[k]) - 4.f * v_n[k] * v[b];
    // Length changes nothing.
    const float along = g[0] * w + g[1] * v[0] + g[2] * v[1] + g[3] * v[2];
    v_quat[0] = (g[0] - along * w) / norm;
    for (int i = 0; i < 3; ++i) v_quat[i + 1] = (g[i + 1] - along * v[i]) / norm;
  }
};

// A Gaussian's plane on its way to the inverse depth that it gives each ray.
struct Plane {
  Vector normal, sight;     // camera frame
  float distance, inverse;  // inverse: signed 1 / cosine
  bool is_grazing;          // the cosine is too small to count
  Vector across, slopes;    // of the normal across the line of sight, per cosine
  float steepness, flatter;

  Plane(const Vector& centre, const Vector& camera_normal) : normal(camera_normal) {
    distance = std::max(std::sqrt(dot(centre, centre)), kMinDistance);
    sight = (1.f / distance) * centre;
    const float cosine = dot(normal, sight);
    is_grazing = std::fabs(cosine) < kMinCosine;
    inverse = (cosine < 0.f ? -1.f : 1.f) / std::max(std::fabs(cosine), kMinCosine);
    across = normal - cosine * sight;
    slopes = inverse * across;
    steepness = std::sqrt(dot(slopes, slopes));
    flatter = kMaxSlope / std::max(steepness, kMaxSlope);
  }

  Vector value() const { return (1.f / distance) * (sight + flatter * slopes); }

  // Gradient to the centre.
  Vector backward(const Vector& v) const {
    const Vector v_sum = (1.f / distance) * v;
    Vector v_slopes = flatter * v_sum;
    if (steepness > kMaxSlope) {
      const float v_steepness = -kMaxSlope * dot(v_sum, slopes) / (steepness * steepness);
      v_slopes = v_slopes + (v_steepness / steepness) * slopes;
    }
    const float cosine = dot(normal, sight);
    float v_cosine = -inverse * dot(v_slopes, sight);
    if (!is_grazing) v_cosine -= inverse * inverse * dot(v_slopes, across);
    const Vector v_sight = v_sum - (inverse * cosine) * v_slopes + v_cosine * normal;
    const float v_distance = -(dot(v, value()) + dot(v_sight, sight)) / distance;
    return (1.f / distance) * v_sight + v_distance * sight;
  }
};

struct Pose {
  const float* T;  // T_camera_world [4,4]

  Vector turned(const Vector& a) const {
    return {dot(load(T), a), dot(load(T + 4), a), dot(load(T + 8), a)};
  }
  Vector point(const Vector& a) const { return turned(a) + Vector{T[3], T[7], T[11]}; }
  Vector turned_back(const Vector& a) const {
    return a.x * load(T) + a.y * load(T + 4) + a.z * load(T + 8);
  }
};

const float* row_or_null(const float* rows, int64_t i) {
  return rows == nullptr ? nullptr : rows + 3 * i;
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// Unit normals, towards the camera if they look away from it by more than a cosine. Scales [count,3]
// are null for surfels.
SPLATIR_EXPORT int64_t splatir_facing_normals_forward(int64_t num_threads, int64_t count,
                                                      const float* quats, const float* scales,
                                                      const float* means,
                                                      const float* camera_position,
                                                      float past_horizon, float* normals) {
  const Vector camera = load(camera_position);
  parallel_ranges(num_threads, count, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* normal = normals + 3 * i;
      UnitQuat(quats + 4 * i).column(normal_axis(row_or_null(scales, i)), normal);
      const Vector axis = load(normal);
      const Vector sight = camera - load(means + 3 * i);
      const float margin = past_horizon * std::sqrt(dot(sight, sight));
      if (dot(sight, axis) < -margin) store(normal, -1.f * axis);
    }
  });
  return 0;
}

// normals: As the forward pass gave them.
SPLATIR_EXPORT int64_t splatir_facing_normals_backward(int64_t num_threads, int64_t count,
                                                       const float* quats, const float* scales,
                                                       const float* normals,
                                                       const float* v_normals, float* v_quats) {
  parallel_ranges(num_threads, count, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const UnitQuat quat(quats + 4 * i);
      const int k = normal_axis(row_or_null(scales, i));
      float axis[3], v_axis[3];
      quat.column(k, axis);
      const bool is_turned = dot(load(axis), load(normals + 3 * i)) < 0.f;
      store(v_axis, (is_turned ? -1.f : 1.f) * load(v_normals + 3 * i));
      quat.backward(k, v_axis, v_quats + 4 * i);
    }
  });
  return 0;
}

// m with 1 / z = m . (x, y, 1) where the plane meets the camera ray through (x, y, 1).
SPLATIR_EXPORT int64_t splatir_inverse_depth_planes_forward(int64_t num_threads, int64_t count,
                                                            const float* means,
                                                            const float* normals,
                                                            const float* T_camera_world,
                                                            float* planes) {
  const Pose pose{T_camera_world};
  parallel_ranges(num_threads, count, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Plane plane(pose.point(load(means + 3 * i)), pose.turned(load(normals + 3 * i)));
      store(planes + 3 * i, plane.value());
    }
  });
  return 0;
}

SPLATIR_EXPORT int64_t splatir_inverse_depth_planes_backward(
    int64_t num_threads, int64_t count, const float* means, const float* normals,
    const float* T_camera_world, const float* v_planes, float* v_means) {
  const Pose pose{T_camera_world};
  parallel_ranges(num_threads, count, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Plane plane(pose.point(load(means + 3 * i)), pose.turned(load(normals + 3 * i)));
      store(v_means + 3 * i, pose.turned_back(plane.backward(load(v_planes + 3 * i))));
    }
  });
  return 0;
}
