// How far composited normals are from the normals of the composited depth, and the gradient.
//
// With e the expected depth, (u, v, 1) a pixel's ray and a step of one pixel, the central
// differences of the back-projected positions are
//   right = a (u, v, 1) + b x^,  a = e_right - e_left,  b = (e_right + e_left) / fx
//   down  = c (u, v, 1) + d y^,  c = e_below - e_above, d = (e_below + e_above) / fy
// so that down x right = (da, cb, -(u da + v cb + db)): no positions, whose differences cancel.
#include <algorithm>
#include <cstring>

#include "abi.h"
#include "buffers.h"
#include "simd.h"
#include "threads.h"

namespace splatir {
namespace {

constexpr float kSolidAlpha = 0.9f;
constexpr float kMinAlpha = 1e-10f;
// Square of the length below which the cross product spans no plane.
constexpr float kMinSquared = 1e-24f;
constexpr int64_t kMargin = kLanes;  // on either side of a row

struct View {
  float inv_fx, inv_fy, cx, cy;
  float R[3][3];  // R_camera_world
};

struct Images {
  int64_t height, width;
  const float *alpha, *depth, *normals;
  View view;

  int64_t stride() const { return (width + kLanes - 1) / kLanes * kLanes + 2 * kMargin; }
};

// Both may be null.
struct Gradients {
  float *depth, *normals;
};

// Where a pixel's normal passes its gradient on: to the expected depth of its neighbours.
enum Neighbour { kRight, kLeft, kBelow, kAbove, kNeighbours };

// One thread's rows; those of image row y lie in slot y mod 3. Zero left and right of the image.
class Rows {
 public:
  static constexpr int64_t kCount = 3 * (2 + kNeighbours) + 2;

  Rows(float* start, const Images& images) : start_(start), stride_(images.stride()) {
    std::fill_n(start, kCount * stride_, 0.f);
    float* u = row(kCount - 1);
    for (int64_t x = 0; x < images.width; ++x)
      u[x] = (static_cast<float>(x) + 0.5f - images.view.cx) * images.view.inv_fx;
  }

  float* alpha(int64_t y) const { return row(slot(y)); }
  float* expected(int64_t y) const { return row(3 + slot(y)); }
  float* gradient_to(Neighbour neighbour, int64_t y) const {
    return row(6 + kNeighbours * slot(y) + neighbour);
  }
  const float* zero() const { return row(kCount - 2); }
  const float* u() const { return row(kCount - 1); }

  // Whether anything flows from row y.
  bool& is_solid(int64_t y) { return is_solid_[slot(y)]; }

 private:
  static int64_t slot(int64_t y) { return (y + 3) % 3; }
  float* row(int64_t i) const { return start_ + i * stride_ + kMargin; }

  float* start_;
  int64_t stride_;
  bool is_solid_[3] = {false, false, false};
};

struct Scratch {
  Buffer<float> rows;  // per thread
  Buffer<double> row_sums;
};

struct Triple {
  Floats x, y, z;
};

// Sixteen pixels of an image with three channels, `count` of which exist.
SPLATIR_INLINE Triple load_triples(const float* from, int64_t count) {
  alignas(64) float whole[3 * kLanes], apart[3][kLanes];
  if (count < kLanes) {
    std::fill_n(whole, 3 * kLanes, 0.f);
    std::memcpy(whole, from, 3 * count * sizeof(float));
    from = whole;
  }
  for (int i = 0; i < kLanes; ++i)
    for (int c = 0; c < 3; ++c) apart[c][i] = from[3 * i + c];
  return {load(apart[0]), load(apart[1]), load(apart[2])};
}

SPLATIR_INLINE void store_triples(float* to, const Triple& values, int64_t count) {
  alignas(64) float whole[3 * kLanes], apart[3][kLanes];
  store(apart[0], values.x);
  store(apart[1], values.y);
  store(apart[2], values.z);
  for (int i = 0; i < kLanes; ++i)
    for (int c = 0; c < 3; ++c) whole[3 * i + c] = apart[c][i];
  std::memcpy(to, whole, 3 * std::min<int64_t>(count, kLanes) * sizeof(float));
}

// Alpha and expected depth of row y; zeros outside the image, where nothing is solid.
void prepare(const Images& images, int64_t y, const Rows& rows) {
  float* __restrict alpha = rows.alpha(y);
  float* __restrict expected = rows.expected(y);
  if (y < 0 || y >= images.height) {
    std::fill_n(alpha, images.width, 0.f);
    std::fill_n(expected, images.width, 0.f);
    return;
  }
  const float* from = images.alpha + y * images.width;
  const float* depth = images.depth + y * images.width;
  for (int64_t x = 0; x < images.width; ++x) {
    alpha[x] = from[x];
    expected[x] = depth[x] / (from[x] > kMinAlpha ? from[x] : kMinAlpha);
  }
}

// Which of the sixteen pixels from x on have four solid neighbours.
SPLATIR_INLINE Mask solid_pixels(const Rows& rows, int64_t y, int64_t x) {
  const Floats least(kSolidAlpha);
  const float* own = rows.alpha(y);
  return (load(own + x + 1) > least) & (load(own + x - 1) > least) &
         (load(rows.alpha(y + 1) + x) > least) & (load(rows.alpha(y - 1) + x) > least);
}

// Sixteen pixels: returns their errors; with kGradient, also sets what flows from them to the
// neighbours, and v_normal. `scale` is the derivative of the loss by one error.
template <bool kGradient>
SPLATIR_INLINE Floats compare_block(const View& view, const Rows& rows, int64_t y, int64_t x,
                                    const Mask& solid, const Triple& normal, float scale,
                                    Triple& v_normal) {
  const float* expected = rows.expected(y);
  const Floats left = load(expected + x - 1), right = load(expected + x + 1);
  const Floats above = load(rows.expected(y - 1) + x), below = load(rows.expected(y + 1) + x);
  const Floats u = load(rows.u() + x);
  const Floats v((static_cast<float>(y) + 0.5f - view.cy) * view.inv_fy);
  const Floats a = right - left, b = (right + left) * Floats(view.inv_fx);
  const Floats c = below - above, d = (below + above) * Floats(view.inv_fy);
  const Floats cross_x = d * a, cross_y = c * b;
  const Floats cross_z = -(cross_x * u + cross_y * v + d * b);
  const Floats squared = cross_x * cross_x + cross_y * cross_y + cross_z * cross_z;
  // Written so that a NaN counts as a plane and reaches the loss.
  const Mask is_plane = solid & ~(squared <= Floats(kMinSquared));
  const Floats inverse = keep(is_plane, Floats(1.f) / sqrt(squared));
  const Floats nx = keep(is_plane, cross_x * inverse), ny = keep(is_plane, cross_y * inverse);
  const Floats nz = keep(is_plane, cross_z * inverse);
  const auto& R = view.R;
  const auto to_camera = [&](int i) {
    return Floats(R[i][0]) * normal.x + Floats(R[i][1]) * normal.y + Floats(R[i][2]) * normal.z;
  };
  const Floats mx = to_camera(0), my = to_camera(1), mz = to_camera(2);
  const Floats cosine = mx * nx + my * ny + mz * nz;
  const Floats error = keep(solid, load(rows.alpha(y) + x) - cosine);
  if (!kGradient) return error;

  const auto to_world = [&](int i) {
    return Floats(-scale * R[0][i]) * nx + Floats(-scale * R[1][i]) * ny +
           Floats(-scale * R[2][i]) * nz;
  };
  v_normal = {to_world(0), to_world(1), to_world(2)};
  const Floats factor = inverse * Floats(scale);
  const Floats gx = (cosine * nx - mx) * factor, gy = (cosine * ny - my) * factor;
  const Floats gz = (cosine * nz - mz) * factor;
  const Floats v_cross_x = gx - u * gz, v_cross_y = gy - v * gz;
  const Floats v_a = d * v_cross_x, v_b = (c * v_cross_y - d * gz) * Floats(view.inv_fx);
  const Floats v_c = b * v_cross_y, v_d = (a * v_cross_x - b * gz) * Floats(view.inv_fy);
  store(rows.gradient_to(kRight, y) + x, keep(is_plane, v_b + v_a));
  store(rows.gradient_to(kLeft, y) + x, keep(is_plane, v_b - v_a));
  store(rows.gradient_to(kBelow, y) + x, keep(is_plane, v_d + v_c));
  store(rows.gradient_to(kAbove, y) + x, keep(is_plane, v_d - v_c));
  return error;
}

// Errors of row y, summed lane by lane. v_normals, the row's gradient, is null for a row that
// another thread writes.
template <bool kGradient>
double compare_row(const Images& images, int64_t y, float scale, Rows& rows, float* v_normals) {
  Floats total(0.f);
  const float* normals = images.normals + 3 * y * images.width;
  bool& row_is_solid = rows.is_solid(y) = false;
  for (int64_t x = 0; x < images.width; x += kLanes) {
    const int64_t count = images.width - x;
    const Mask solid = solid_pixels(rows, y, x);
    if (!any(solid)) {
      if (!kGradient) continue;
      for (int k = 0; k < kNeighbours; ++k)
        store(rows.gradient_to(static_cast<Neighbour>(k), y) + x, Floats(0.f));
      if (v_normals != nullptr)
        std::fill_n(v_normals + 3 * x, 3 * std::min<int64_t>(count, kLanes), 0.f);
      continue;
    }
    row_is_solid = true;
    Triple v_normal;
    total += compare_block<kGradient>(images.view, rows, y, x, solid,
                                      load_triples(normals + 3 * x, count), scale, v_normal);
    if (kGradient && v_normals != nullptr) store_triples(v_normals + 3 * x, v_normal, count);
  }
  return sum(total);
}

// Collects the gradient of row y's depth from the rows above, at and below it.
void collect_row(const Images& images, int64_t y, Rows& rows, float* __restrict v_depth) {
  const auto from = [&](Neighbour neighbour, int64_t source) -> const float* {
    const bool has_any = source >= 0 && source < images.height && rows.is_solid(source);
    return has_any ? rows.gradient_to(neighbour, source) : rows.zero();
  };
  const float *above = from(kBelow, y - 1), *below = from(kAbove, y + 1);
  const float *left = from(kRight, y), *right = from(kLeft, y);
  if (above == rows.zero() && below == rows.zero() && left == rows.zero()) {
    std::fill_n(v_depth, images.width, 0.f);
    return;
  }
  const float* alpha = rows.alpha(y);
  for (int64_t x = 0; x < images.width; ++x) {
    const float v_expected = (above[x] + left[x - 1]) + (right[x + 1] + below[x]);
    v_depth[x] = v_expected / (alpha[x] > kMinAlpha ? alpha[x] : kMinAlpha);
  }
}

// Rows [begin, end). Gradients need the rows next to these too, which their own threads compute
// again. The order of additions depends on the row alone.
template <bool kGradient>
void compare_rows(const Images& images, int64_t begin, int64_t end, float scale, Rows rows,
                  const Gradients& gradients, double* row_sums) {
  const int64_t width = images.width;
  const int64_t first = kGradient ? std::max<int64_t>(begin - 1, 0) : begin;
  const int64_t last = kGradient ? std::min(end, images.height - 1) : end - 1;
  prepare(images, first - 1, rows);
  prepare(images, first, rows);
  for (int64_t y = first; y <= last; ++y) {
    prepare(images, y + 1, rows);
    const bool is_own = y >= begin && y < end;
    float* v_normals = kGradient && is_own ? gradients.normals + 3 * y * width : nullptr;
    const double total = compare_row<kGradient>(images, y, scale, rows, v_normals);
    if (is_own) row_sums[y] = total;
    if (kGradient && y > begin)
      collect_row(images, y - 1, rows, gradients.depth + (y - 1) * width);
  }
  if (kGradient && end == images.height)
    collect_row(images, end - 1, rows, gradients.depth + (end - 1) * width);
}

// Mean error; the gradients are of weight times it.
double compare(int64_t num_threads, const Images& images, float weight,
               const Gradients& gradients, Scratch& scratch) {
  const int64_t per_thread = Rows::kCount * images.stride();
  float* start = scratch.rows.reserve(std::max<int64_t>(num_threads, 1) * per_thread);
  double* row_sums = scratch.row_sums.reserve(images.height);
  const double pixels = static_cast<double>(images.height) * static_cast<double>(images.width);
  const float scale = static_cast<float>(weight / pixels);
  const bool has_gradient = gradients.depth != nullptr && gradients.normals != nullptr;
  parallel_ranges(num_threads, images.height, [&](int thread, int64_t begin, int64_t end) {
    const Rows rows(start + thread * per_thread, images);
    const auto body = has_gradient ? compare_rows<true> : compare_rows<false>;
    body(images, begin, end, scale, rows, gradients, row_sums);
  });
  double total = 0.0;
  for (int64_t y = 0; y < images.height; ++y) total += row_sums[y];
  return total / pixels;
}

ObjectPool<Scratch>& scratches() {
  static auto* pool = new ObjectPool<Scratch>;
  return *pool;
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// Compares normals [height, width, 3] (world frame, times alpha) with those of the composited
// depth [height, width]. mean receives the mean error; v_depth and v_normals the gradients of weight
// times it, or both are null. K [3, 3] and T_camera_world [4, 4] are row-major.
// Returns 1, or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_normal_consistency(
    int64_t num_threads, int64_t height, int64_t width, const float* K,
    const float* T_camera_world, const float* alpha, const float* depth, const float* normals,
    float weight, double* mean, float* v_depth, float* v_normals) {
  View view{1.f / K[0], 1.f / K[4], K[2], K[5], {}};
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) view.R[i][j] = T_camera_world[4 * i + j];
  Scratch* scratch = nullptr;
  try {
    scratch = scratches().acquire();
    *mean = compare(num_threads, {height, width, alpha, depth, normals, view}, weight,
                    {v_depth, v_normals}, *scratch);
    scratches().release(scratch);
    return 1;
  } catch (const std::bad_alloc&) {
    delete scratch;
    return 0;
  }
}
