// Where and how large surfels appear on the image, and the gradient of that (2DGS, Huang et al.).
#include "abi.h"
#include "projection.h"
#include "threads.h"

namespace splatir {
namespace {

// The screen rectangle bounds this many standard deviations, whatever the opacity.
constexpr float kExtent = 3.33f;
// Smallest squared half extent, in square pixels.
constexpr float kMinExtent2 = 1e-4f;

// Rows of the ray transform K [long_x long_y centre], and the rows for x and y with the image
// origin moved to the pixel of the centre. Extents are differences of large squares in image
// coordinates; about the centre they keep all their digits.
struct Projected {
  Axes axes;              // own axes in the world, unit
  Vec3 camera_x, camera_y;  // own axes in the camera frame, unit
  Vec3 centre;            // camera frame
  float pixel_x, pixel_y;  // of the centre
  Vec3 row_x, row_y, row_z;
  Vec3 near_x, near_y;    // row_x - pixel_x row_z, row_y - pixel_y row_z
  float inverse_distance;  // of z_x^2 + z_y^2 - z_centre^2
  float offset_x, offset_y;  // from the pixel of the centre to the middle of the rectangle
  float facing;           // +1 if the own z axis points to the camera, else -1
};

inline float signed_dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y - a.z * b.z; }

inline Projected project(const View& view, Vec3 mean, Quat unit, Vec3 scale) {
  Projected s;
  s.axes = axes_of(unit);
  s.camera_x = view.rotate(s.axes.x);
  s.camera_y = view.rotate(s.axes.y);
  s.centre = view.to_camera(mean);
  const Vec3 columns_x = {scale.x * s.camera_x.x, scale.y * s.camera_y.x, s.centre.x};
  const Vec3 columns_y = {scale.x * s.camera_x.y, scale.y * s.camera_y.y, s.centre.y};
  s.row_z = {scale.x * s.camera_x.z, scale.y * s.camera_y.z, s.centre.z};
  s.row_x = view.fx * columns_x + view.cx * s.row_z;
  s.row_y = view.fy * columns_y + view.cy * s.row_z;
  const float slope_x = s.centre.x / s.centre.z, slope_y = s.centre.y / s.centre.z;
  s.pixel_x = view.fx * slope_x + view.cx;
  s.pixel_y = view.fy * slope_y + view.cy;
  s.near_x = view.fx * (columns_x - slope_x * s.row_z);
  s.near_y = view.fy * (columns_y - slope_y * s.row_z);
  s.near_x.z = 0.f;  // exactly, by the choice of origin
  s.near_y.z = 0.f;
  s.inverse_distance = 1.f / signed_dot(s.row_z, s.row_z);
  s.offset_x = s.inverse_distance * signed_dot(s.near_x, s.row_z);
  s.offset_y = s.inverse_distance * signed_dot(s.near_y, s.row_z);
  s.facing = -__builtin_copysignf(1.f, dot(view.rotate(s.axes.z), s.centre));
  return s;
}

inline int32_t radius(float offset, float inverse_distance, Vec3 near_row) {
  const float extent2 = offset * offset - inverse_distance * signed_dot(near_row, near_row);
  return ceil_to_int(kExtent * __builtin_sqrtf(extent2 > kMinExtent2 ? extent2 : kMinExtent2));
}

struct ForwardBlock {
  float means[3][kBlock], quats[4][kBlock], scales[3][kBlock];
  float means2d[2][kBlock], depths[1][kBlock], normals[3][kBlock];
  double ray_transforms[9][kBlock];
  int32_t radii[2][kBlock];
};

// Rays meet a surfel seen at a grazing angle where two nearly parallel rows cross: rows rounded to
// float32 would leave its gradients an error of 5e-4. Zero for culled splats.
void ray_transforms_block(const View& view, ForwardBlock& b) {
  const Vec3 rotation[3] = {view.row_x, view.row_y, view.row_z};
  const double translation[3] = {view.translation.x, view.translation.y, view.translation.z};
  for (int lane = 0; lane < kBlock; ++lane) {
    const double w = b.quats[0][lane], x = b.quats[1][lane], y = b.quats[2][lane],
                 z = b.quats[3][lane];
    const double two = 2.0 / (w * w + x * x + y * y + z * z);
    const double columns[3][3] = {
        {1.0 - two * (y * y + z * z), two * (x * y + w * z), two * (x * z - w * y)},
        {two * (x * y - w * z), 1.0 - two * (x * x + z * z), two * (y * z + w * x)},
        {b.means[0][lane], b.means[1][lane], b.means[2][lane]}};
    const double lengths[3] = {b.scales[0][lane], b.scales[1][lane], 1.0};
    const bool visible = b.radii[0][lane] > 0;
    for (int c = 0; c < 3; ++c) {
      double camera[3];
      for (int i = 0; i < 3; ++i) {
        camera[i] = lengths[c] * (rotation[i].x * columns[c][0] + rotation[i].y * columns[c][1] +
                                  rotation[i].z * columns[c][2]) +
                    (c == 2 ? translation[i] : 0.0);
      }
      b.ray_transforms[c][lane] = visible ? view.fx * camera[0] + view.cx * camera[2] : 0.0;
      b.ray_transforms[3 + c][lane] = visible ? view.fy * camera[1] + view.cy * camera[2] : 0.0;
      b.ray_transforms[6 + c][lane] = visible ? camera[2] : 0.0;
    }
  }
}

void forward_block(const View& view, float near, float far, float radius_clip, ForwardBlock& b) {
  for (int lane = 0; lane < kBlock; ++lane) {
    const Quat quat = quat_at(b.quats, lane);
    const Projected s = project(view, vec3_at(b.means, lane), scaled(quat, inverse_norm(quat)),
                                vec3_at(b.scales, lane));
    const float x = s.pixel_x + s.offset_x, y = s.pixel_y + s.offset_y;
    const int32_t rx = radius(s.offset_x, s.inverse_distance, s.near_x);
    const int32_t ry = radius(s.offset_y, s.inverse_distance, s.near_y);
    const float distance_size = s.inverse_distance < 0.f ? -s.inverse_distance : s.inverse_distance;
    const bool visible = (s.centre.z > near) & (s.centre.z < far) & (distance_size < 3e38f) &
                         ((rx > radius_clip) | (ry > radius_clip)) &
                         rectangle_meets_image(view, x, y, rx, ry);
    put(b.means2d, 0, lane, visible, x);
    put(b.means2d, 1, lane, visible, y);
    put(b.depths, 0, lane, visible, s.centre.z);
    put(b.normals, lane, visible, s.facing * s.axes.z);
    b.radii[0][lane] = visible ? rx : 0;
    b.radii[1][lane] = visible ? ry : 0;
  }
}

struct BackwardBlock {
  float means[3][kBlock], quats[4][kBlock], scales[3][kBlock];
  float v_means2d[2][kBlock], v_depths[1][kBlock], v_ray_transforms[9][kBlock];
  float v_normals[3][kBlock];
  int32_t visible[kBlock];
  float v_means[3][kBlock], v_quats[4][kBlock], v_scales[3][kBlock];
};

// means2d = signed_dot(row, row_z) / signed_dot(row_z, row_z); adds its gradient to row_z's.
inline Vec3 gradient_of_z(Vec3 near_row, Vec3 row_z, float offset, float pixel) {
  // row - 2 means2d row_z, with row = near_row + pixel row_z and means2d = pixel + offset
  const Vec3 v = near_row - (pixel + 2.f * offset) * row_z;
  return {v.x, v.y, -v.z};
}

void backward_block(const View& view, BackwardBlock& b) {
  for (int lane = 0; lane < kBlock; ++lane) {
    const Quat quat = quat_at(b.quats, lane);
    const float inverse_length = inverse_norm(quat);
    const Quat unit = scaled(quat, inverse_length);
    const Vec3 scale = vec3_at(b.scales, lane);
    const Projected s = project(view, vec3_at(b.means, lane), unit, scale);
    const float v_x = s.inverse_distance * b.v_means2d[0][lane];
    const float v_y = s.inverse_distance * b.v_means2d[1][lane];
    const Vec3 signed_z = {s.row_z.x, s.row_z.y, -s.row_z.z};
    const Vec3 v_row_x = Vec3{b.v_ray_transforms[0][lane], b.v_ray_transforms[1][lane],
                              b.v_ray_transforms[2][lane]} + v_x * signed_z;
    const Vec3 v_row_y = Vec3{b.v_ray_transforms[3][lane], b.v_ray_transforms[4][lane],
                              b.v_ray_transforms[5][lane]} + v_y * signed_z;
    const Vec3 v_row_z = Vec3{b.v_ray_transforms[6][lane], b.v_ray_transforms[7][lane],
                              b.v_ray_transforms[8][lane] + b.v_depths[0][lane]} +
                         v_x * gradient_of_z(s.near_x, s.row_z, s.offset_x, s.pixel_x) +
                         v_y * gradient_of_z(s.near_y, s.row_z, s.offset_y, s.pixel_y);
    // Rows of the gradient to [long_x long_y centre] in the camera frame.
    const Vec3 v_x_row = view.fx * v_row_x, v_y_row = view.fy * v_row_y;
    const Vec3 v_z_row = view.cx * v_row_x + view.cy * v_row_y + v_row_z;
    const Vec3 v_long_x = view.rotate_back({v_x_row.x, v_y_row.x, v_z_row.x});
    const Vec3 v_long_y = view.rotate_back({v_x_row.y, v_y_row.y, v_z_row.y});
    const Vec3 v_mean = view.rotate_back({v_x_row.z, v_y_row.z, v_z_row.z});
    const Axes v_axes = {scale.x * v_long_x, scale.y * v_long_y,
                         s.facing * vec3_at(b.v_normals, lane)};
    const bool keep = b.visible[lane] != 0;
    put(b.v_means, lane, keep, v_mean);
    put(b.v_quats, lane, keep, quat_gradient(unit, inverse_length, v_axes));
    put(b.v_scales, lane, keep, {dot(s.axes.x, v_long_x), dot(s.axes.y, v_long_y), 0.f});
  }
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// All outputs of culled splats are 0.
SPLATIR_EXPORT int64_t splatir_project_surfels_forward(
    int64_t num_threads, int64_t count, const float* means, const float* quats,
    const float* scales, const float* T_camera_world, const float* K, int64_t width,
    int64_t height, float near, float far, float radius_clip, float* means2d, float* depths,
    double* ray_transforms, float* normals, int32_t* radii) {
  const View view(T_camera_world, K, width, height);
  parallel_ranges(num_threads, num_blocks(count), [&](int, int64_t begin, int64_t end) {
    ForwardBlock b;
    for (int64_t first = begin * kBlock; first < end * kBlock; first += kBlock) {
      const int size = block_size(count, first);
      gather(means, first, size, b.means);
      gather(quats, first, size, b.quats);
      gather(scales, first, size, b.scales);
      forward_block(view, near, far, radius_clip, b);
      ray_transforms_block(view, b);
      scatter(b.means2d, first, size, means2d);
      scatter(b.depths, first, size, depths);
      scatter(b.ray_transforms, first, size, ray_transforms);
      scatter(b.normals, first, size, normals);
      scatter(b.radii, first, size, radii);
    }
  });
  return 0;
}

// Gradients of culled splats and of third scales are 0.
SPLATIR_EXPORT int64_t splatir_project_surfels_backward(
    int64_t num_threads, int64_t count, const float* means, const float* quats,
    const float* scales, const float* T_camera_world, const float* K, int64_t width,
    int64_t height, const int32_t* radii, const float* v_means2d, const float* v_depths,
    const float* v_ray_transforms, const float* v_normals, float* v_means, float* v_quats,
    float* v_scales) {
  const View view(T_camera_world, K, width, height);
  parallel_ranges(num_threads, num_blocks(count), [&](int, int64_t begin, int64_t end) {
    BackwardBlock b;
    for (int64_t first = begin * kBlock; first < end * kBlock; first += kBlock) {
      const int size = block_size(count, first);
      gather(means, first, size, b.means);
      gather(quats, first, size, b.quats);
      gather(scales, first, size, b.scales);
      gather(v_means2d, first, size, b.v_means2d);
      gather(v_depths, first, size, b.v_depths);
      gather(v_ray_transforms, first, size, b.v_ray_transforms);
      gather(v_normals, first, size, b.v_normals);
      for (int lane = 0; lane < kBlock; ++lane) {
        b.visible[lane] = lane < size ? radii[2 * (first + lane)] : 0;
      }
      backward_block(view, b);
      scatter(b.v_means, first, size, v_means);
      scatter(b.v_quats, first, size, v_quats);
      scatter(b.v_scales, first, size, v_scales);
    }
  });
  return 0;
}
