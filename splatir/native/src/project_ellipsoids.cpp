// Where and how large ellipsoids appear on the image, and the gradient of that (EWA splatting).
//
// The footprint is the conic P, the inverse image covariance, as factors (along, slope, across):
// d^T P d = along (dx + slope dy)^2 + across dy^2. The entries of P themselves in float32 do not
// hold the length of a needle: along a diagonal they agree to all digits.
#include "abi.h"
#include "projection.h"
#include "threads.h"

namespace splatir {
namespace {

// Half extents reach where alpha falls to min_alpha, at most this many standard deviations.
constexpr float kMaxExtent = 3.33f;
// The Jacobian is taken no further outside the image than this part of half the field of view.
constexpr float kClampMargin = 0.3f;
// Keeps the derivative of sqrt finite where an ellipsoid has no area at all.
constexpr float kCompensationEps = 1e-6f;

// Natural logarithm for normal x > 0 to 1e-7: exponent, then atanh series of the mantissa.
inline float natural_log(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  const int32_t exponent = (bits - 0x3f3504f3) >> 23;  // mantissa in [sqrt(1/2), sqrt(2))
  bits -= exponent << 23;
  float mantissa;
  std::memcpy(&mantissa, &bits, 4);
  const float s = (mantissa - 1.f) / (mantissa + 1.f), s2 = s * s;
  const float series =
      1.f + s2 * (1.f / 3 + s2 * (1.f / 5 + s2 * (1.f / 7 + s2 * (1.f / 9 + s2 * (1.f / 11)))));
  return 2.f * s * series + 0.69314718056f * static_cast<float>(exponent);
}

struct Limits {
  float near, far, radius_clip, min_alpha, blur;
  float low_x, high_x, low_y, high_y;  // bounds of x/z and y/z in the Jacobian

  Limits(const View& view, float near_z, float far_z, float clip, float alpha, float blur_area)
      : near(near_z), far(far_z), radius_clip(clip), min_alpha(alpha), blur(blur_area) {
    const float margin_x = kClampMargin * 0.5f * view.width / view.fx;
    const float margin_y = kClampMargin * 0.5f * view.height / view.fy;
    low_x = -(view.cx / view.fx + margin_x);
    high_x = (view.width - view.cx) / view.fx + margin_x;
    low_y = -(view.cy / view.fy + margin_y);
    high_y = (view.height - view.cy) / view.fy + margin_y;
  }
};

inline float clamp(float x, float low, float high) {
  const float above = x < low ? low : x;
  return above > high ? high : above;
}

// The image covariance is U U^T + blur I, where the rows of U are the image axes of the ellipsoid.
struct Projected {
  Axes axes;                   // own axes in the world, unit
  Vec3 long_x, long_y, long_z; // own axes in the world, times the scales
  Vec3 centre;                 // camera frame
  float inverse_z, slope_x, slope_y, clamped_x, clamped_y;
  Vec3 T0, T1;                 // rows of Jacobian * rotation
  Vec3 U0, U1;                 // rows of U = T * (axes * scales)
  Vec3 normal;                 // U0 x U1
  float cov_xx, cov_xy, cov_yy;  // before the blur
  float det_sharp, det;
};

inline Projected project(const View& view, const Limits& limits, Vec3 mean, Quat unit, Vec3 scale) {
  Projected e;
  e.axes = axes_of(unit);
  e.long_x = scale.x * e.axes.x;
  e.long_y = scale.y * e.axes.y;
  e.long_z = scale.z * e.axes.z;
  e.centre = view.to_camera(mean);
  e.inverse_z = 1.f / e.centre.z;
  e.slope_x = e.centre.x * e.inverse_z;
  e.slope_y = e.centre.y * e.inverse_z;
  e.clamped_x = clamp(e.slope_x, limits.low_x, limits.high_x);
  e.clamped_y = clamp(e.slope_y, limits.low_y, limits.high_y);
  e.T0 = view.fx * e.inverse_z * (view.row_x - e.clamped_x * view.row_z);
  e.T1 = view.fy * e.inverse_z * (view.row_y - e.clamped_y * view.row_z);
  e.U0 = {dot(e.T0, e.long_x), dot(e.T0, e.long_y), dot(e.T0, e.long_z)};
  e.U1 = {dot(e.T1, e.long_x), dot(e.T1, e.long_y), dot(e.T1, e.long_z)};
  e.cov_xx = dot(e.U0, e.U0);
  e.cov_xy = dot(e.U0, e.U1);
  e.cov_yy = dot(e.U1, e.U1);
  // |U0 x U1|^2 instead of xx yy - xy^2, which cancels for thin ellipsoids and can turn negative.
  e.normal = cross(e.U0, e.U1);
  e.det_sharp = dot(e.normal, e.normal);
  e.det = e.det_sharp + limits.blur * (e.cov_xx + e.cov_yy + limits.blur);
  return e;
}

struct ForwardBlock {
  float means[3][kBlock], quats[4][kBlock], scales[3][kBlock], opacities[1][kBlock];
  float means2d[2][kBlock], depths[1][kBlock], factors[3][kBlock], compensations[1][kBlock];
  int32_t radii[2][kBlock];
};

template <bool kAntialiased>
void forward_block(const View& view, const Limits& limits, ForwardBlock& b) {
  for (int lane = 0; lane < kBlock; ++lane) {
    const Quat quat = quat_at(b.quats, lane);
    const Projected e = project(view, limits, vec3_at(b.means, lane),
                                scaled(quat, inverse_norm(quat)), vec3_at(b.scales, lane));
    const float inverse_det = 1.f / e.det;
    const float xx = e.cov_xx + limits.blur, yy = e.cov_yy + limits.blur;
    const float compensation = __builtin_sqrtf(e.det_sharp * inverse_det);
    const float opacity = b.opacities[0][lane] * (kAntialiased ? compensation : 1.f);
    const float reach = __builtin_sqrtf(2.f * natural_log(opacity / limits.min_alpha));
    const float extent = reach < kMaxExtent ? reach : kMaxExtent;
    const int32_t rx = ceil_to_int(extent * __builtin_sqrtf(xx));
    const int32_t ry = ceil_to_int(extent * __builtin_sqrtf(yy));
    const float x = view.fx * e.slope_x + view.cx, y = view.fy * e.slope_y + view.cy;
    // Comparisons are true for kept splats, so that any NaN culls.
    const bool visible = (e.centre.z >= limits.near) & (e.centre.z <= limits.far) &
                         (e.det < 3e38f) & (opacity >= limits.min_alpha) &
                         ((rx > limits.radius_clip) | (ry > limits.radius_clip)) &
                         rectangle_meets_image(view, x, y, rx, ry);
    put(b.means2d, 0, lane, visible, x);
    put(b.means2d, 1, lane, visible, y);
    put(b.depths, 0, lane, visible, e.centre.z);
    put(b.factors, 0, lane, visible, yy * inverse_det);
    put(b.factors, 1, lane, visible, -e.cov_xy / yy);
    put(b.factors, 2, lane, visible, 1.f / yy);
    put(b.compensations, 0, lane, visible, compensation);
    b.radii[0][lane] = visible ? rx : 0;
    b.radii[1][lane] = visible ? ry : 0;
  }
}

struct BackwardBlock {
  float means[3][kBlock], quats[4][kBlock], scales[3][kBlock];
  float v_means2d[2][kBlock], v_depths[1][kBlock], v_factors[3][kBlock], v_compensations[1][kBlock];
  int32_t visible[kBlock];
  float v_means[3][kBlock], v_quats[4][kBlock], v_scales[3][kBlock];
};

struct RowPair {
  Vec3 first, second;
};

// Gradient to U from those to the factors of (U U^T + blur I)^-1 and to sqrt(det_sharp / det).
inline RowPair gradient_of_rows(const Projected& e, float blur, Vec3 v_factors,
                                float v_compensation) {
  const float inverse_det = 1.f / e.det;
  const float across = 1.f / (e.cov_yy + blur);
  const float slope = -e.cov_xy * across, along = (e.cov_yy + blur) * inverse_det;
  // W = U0 + slope U1, the part of U0 across U1 (up to the blur), without cancellation.
  const Vec3 W = across * (cross(e.U1, e.normal) + blur * e.U0);
  // 1 / along = xx - xy^2 / yy has the gradient (2 W, 2 slope W).
  const float v_inverse = -along * along * v_factors.x;
  const Vec3 v_U0 = 2.f * v_inverse * W - across * v_factors.y * e.U1;
  const Vec3 v_U1 =
      slope * v_U0 - across * (v_factors.y * W + 2.f * across * v_factors.z * e.U1);
  // With k = det_sharp / det: dk/dU = 2 ((1 - k) P U - blur / det U).
  const Vec3 PU0 = along * W, PU1 = inverse_det * (cross(e.normal, e.U0) + blur * e.U1);
  const float compensation = __builtin_sqrtf(e.det_sharp * inverse_det);
  const float v_k = v_compensation / (compensation + kCompensationEps);  // times 2 / 2
  const float share = v_k * blur * inverse_det;
  const float blurred = share * (e.cov_xx + e.cov_yy + blur);
  return {v_U0 + (blurred * PU0 - share * e.U0), v_U1 + (blurred * PU1 - share * e.U1)};
}

void backward_block(const View& view, const Limits& limits, BackwardBlock& b) {
  for (int lane = 0; lane < kBlock; ++lane) {
    const Quat quat = quat_at(b.quats, lane);
    const float inverse_length = inverse_norm(quat);
    const Quat unit = scaled(quat, inverse_length);
    const Vec3 scale = vec3_at(b.scales, lane);
    const Projected e = project(view, limits, vec3_at(b.means, lane), unit, scale);
    const auto [vU0, vU1] = gradient_of_rows(e, limits.blur, vec3_at(b.v_factors, lane),
                                             b.v_compensations[0][lane]);
    // U = T [long_x long_y long_z]
    const Vec3 v_long_x = vU0.x * e.T0 + vU1.x * e.T1;
    const Vec3 v_long_y = vU0.y * e.T0 + vU1.y * e.T1;
    const Vec3 v_long_z = vU0.z * e.T0 + vU1.z * e.T1;
    const Vec3 vT0 = vU0.x * e.long_x + vU0.y * e.long_y + vU0.z * e.long_z;
    const Vec3 vT1 = vU1.x * e.long_x + vU1.y * e.long_y + vU1.z * e.long_z;
    // T0 = fx / z (row_x - clamped_x row_z); a clamped slope passes no gradient on.
    const float along_x = dot(vT0, view.row_z), along_y = dot(vT1, view.row_z);
    const bool free_x = e.clamped_x == e.slope_x, free_y = e.clamped_y == e.slope_y;
    const float v_slope_x =
        view.fx * (b.v_means2d[0][lane] - (free_x ? e.inverse_z * along_x : 0.f));
    const float v_slope_y =
        view.fy * (b.v_means2d[1][lane] - (free_y ? e.inverse_z * along_y : 0.f));
    const float v_inverse_z = view.fx * (dot(vT0, view.row_x) - e.clamped_x * along_x) +
                              view.fy * (dot(vT1, view.row_y) - e.clamped_y * along_y) +
                              v_slope_x * e.centre.x + v_slope_y * e.centre.y;
    const Vec3 v_centre = {v_slope_x * e.inverse_z, v_slope_y * e.inverse_z,
                           b.v_depths[0][lane] - e.inverse_z * e.inverse_z * v_inverse_z};
    const bool keep = b.visible[lane] != 0;
    const Axes v_axes = {scale.x * v_long_x, scale.y * v_long_y, scale.z * v_long_z};
    put(b.v_means, lane, keep, view.rotate_back(v_centre));
    put(b.v_quats, lane, keep, quat_gradient(unit, inverse_length, v_axes));
    put(b.v_scales, lane, keep,
        {dot(e.axes.x, v_long_x), dot(e.axes.y, v_long_y), dot(e.axes.z, v_long_z)});
  }
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// All outputs of culled splats are 0.
// compensations may be null: then opacities are taken as they are.
SPLATIR_EXPORT int64_t splatir_project_ellipsoids_forward(
    int64_t num_threads, int64_t count, const float* means, const float* quats,
    const float* scales, const float* opacities, const float* T_camera_world, const float* K,
    int64_t width, int64_t height, float near, float far, float radius_clip, float min_alpha,
    float blur, float* means2d, float* depths, float* factors, float* compensations,
    int32_t* radii) {
  const View view(T_camera_world, K, width, height);
  const Limits limits(view, near, far, radius_clip, min_alpha, blur);
  parallel_ranges(num_threads, num_blocks(count), [&](int, int64_t begin, int64_t end) {
    ForwardBlock b;
    for (int64_t first = begin * kBlock; first < end * kBlock; first += kBlock) {
      const int size = block_size(count, first);
      gather(means, first, size, b.means);
      gather(quats, first, size, b.quats);
      gather(scales, first, size, b.scales);
      gather(opacities, first, size, b.opacities);
      if (compensations != nullptr) {
        forward_block<true>(view, limits, b);
        scatter(b.compensations, first, size, compensations);
      } else {
        forward_block<false>(view, limits, b);
      }
      scatter(b.means2d, first, size, means2d);
      scatter(b.depths, first, size, depths);
      scatter(b.factors, first, size, factors);
      scatter(b.radii, first, size, radii);
    }
  });
  return 0;
}

// v_compensations may be null. Gradients of culled splats are 0.
SPLATIR_EXPORT int64_t splatir_project_ellipsoids_backward(
    int64_t num_threads, int64_t count, const float* means, const float* quats,
    const float* scales, const float* T_camera_world, const float* K, int64_t width,
    int64_t height, float blur, const int32_t* radii, const float* v_means2d,
    const float* v_depths, const float* v_factors, const float* v_compensations, float* v_means,
    float* v_quats, float* v_scales) {
  const View view(T_camera_world, K, width, height);
  const Limits limits(view, 0.f, 0.f, 0.f, 0.f, blur);
  parallel_ranges(num_threads, num_blocks(count), [&](int, int64_t begin, int64_t end) {
    BackwardBlock b = {};
    for (int64_t first = begin * kBlock; first < end * kBlock; first += kBlock) {
      const int size = block_size(count, first);
      gather(means, first, size, b.means);
      gather(quats, first, size, b.quats);
      gather(scales, first, size, b.scales);
      gather(v_means2d, first, size, b.v_means2d);
      gather(v_depths, first, size, b.v_depths);
      gather(v_factors, first, size, b.v_factors);
      if (v_compensations != nullptr) gather(v_compensations, first, size, b.v_compensations);
      for (int lane = 0; lane < size; ++lane) b.visible[lane] = radii[2 * (first + lane)];
      backward_block(view, limits, b);
      scatter(b.v_means, first, size, v_means);
      scatter(b.v_quats, first, size, v_quats);
      scatter(b.v_scales, first, size, v_scales);
    }
  });
  return 0;
}
