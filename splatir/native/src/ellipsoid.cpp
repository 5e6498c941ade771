// The ellipsoid rasteriser's C ABI, and how footprints become the records that pixel loops read.
#include "ellipsoid.h"

#include <algorithm>

#include "abi.h"
#include "threads.h"

namespace splatir {
namespace {

// log2 for normal x > 0, between 0 and 2e-4 too large.
SPLATIR_INLINE Floats log2_from_above(Floats x) {
  const Ints bits = reinterpret_as_ints(x);
  const Floats t =
      reinterpret_as_floats((bits & Ints(0x007fffff)) | Ints(0x3f800000)) - Floats(1.5f);
  // The exponent as a float: its bits below those of 2^23.
  const Floats exponent =
      reinterpret_as_floats(shift_right<23>(bits) | Ints(0x4b000000)) - Floats(8388608.0f + 127.0f);
  // Minimax polynomial of log2 on [1, 2), within 8.8e-5, raised by 1e-4.
  Floats p = Floats(-0.081615735f);
  p = p * t + Floats(0.15544753f);
  p = p * t + Floats(-0.31934793f);
  p = p * t + Floats(0.96096294f);
  p = p * t + Floats(0.58493797f + 1e-4f);
  return exponent + p;
}

// Sixteen splats, one per lane.
struct Columns {
  alignas(64) float mean_x[kLanes], mean_y[kLanes];
  alignas(64) float along[kLanes], slope[kLanes], across[kLanes];
  alignas(64) float opacity[kLanes], radius_x[kLanes], radius_y[kLanes];

  Columns(const EllipsoidInputs& inputs, int64_t first, int64_t count) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t i = first + std::min(lane, count - 1);
      mean_x[lane] = inputs.means2d[2 * i];
      mean_y[lane] = inputs.means2d[2 * i + 1];
      along[lane] = inputs.factors[3 * i];
      slope[lane] = inputs.factors[3 * i + 1];
      across[lane] = inputs.factors[3 * i + 2];
      opacity[lane] = inputs.opacities[i];
      radius_x[lane] = static_cast<float>(inputs.radii[2 * i]);
      radius_y[lane] = static_cast<float>(inputs.radii[2 * i + 1]);
    }
  }
};

void prepare_sixteen(const EllipsoidInputs& inputs, int64_t first, int64_t count, int64_t tiles_x,
                     int64_t tiles_y, Ellipse* ellipses, TileRect* rects) {
  const Columns in(inputs, first, count);
  const Floats half_bit(0.5f * kLog2E), zero(0.0f), opacity = load(in.opacity);
  const Floats mean_x = load(in.mean_x), mean_y = load(in.mean_y);
  const Floats radius_x = load(in.radius_x), radius_y = load(in.radius_y);
  const Floats along = half_bit * load(in.along), across = half_bit * load(in.across);
  const Floats slope = load(in.slope), sheared = along * slope;
  const Floats column_slope = sheared / (sheared * slope + across);
  const Floats exact_reach = log2_from_above(opacity * Floats(1.0f / kMinAlpha));
  // Tight extents of q <= reach, where the radii are not even tighter.
  const Floats extent_y = min(sqrt(exact_reach / across), radius_y);
  const Floats extent_x =
      min(sqrt(exact_reach * (Floats(1.0f) / along + slope * slope / across)), radius_x);
  // Covers the rounding of q in the pixel loops: relative, and of dx + slope dy over the extent.
  const Floats reach = exact_reach * Floats(1.0001f) + Floats(4e-6f) * (extent_x + extent_y);
  const Floats margin = Floats(1e-3f) + Floats(1e-4f) * (extent_x + extent_y);
  const Mask visible = (zero < radius_x) & (zero < radius_y) & (Floats(kMinAlpha) <= opacity);
  alignas(64) float x_low[kLanes], x_high[kLanes], y_low[kLanes], y_high[kLanes];
  store(x_low, mean_x - extent_x - margin);
  store(x_high, mean_x + extent_x + margin);
  store(y_low, mean_y - extent_y - margin);
  store(y_high, mean_y + extent_y + margin);
  alignas(64) float columns[8][kLanes];
  store(columns[0], mean_x);
  store(columns[1], mean_y);
  store(columns[2], -along);
  store(columns[3], -across);
  store(columns[4], slope);
  store(columns[5], column_slope);
  store(columns[6], opacity);
  store(columns[7], reach);
  for (int64_t lane = 0; lane < count; ++lane) {
    const bool seen = (bits(visible) >> lane) & 1;
    rects[first + lane] = seen ? tiles_of_pixel_centres(x_low[lane], x_high[lane], y_low[lane],
                                                        y_high[lane], tiles_x, tiles_y)
                               : TileRect{0, 0, 0, 0};
    ellipses[first + lane] = Ellipse{columns[0][lane], columns[1][lane], columns[2][lane],
                                     columns[3][lane], columns[4][lane], columns[5][lane],
                                     columns[6][lane], columns[7][lane]};
  }
}

ObjectPool<EllipsoidContext>& contexts() {
  static auto* pool = new ObjectPool<EllipsoidContext>;
  return *pool;
}

ObjectPool<EllipsoidScratch>& scratches() {
  static auto* pool = new ObjectPool<EllipsoidScratch>;
  return *pool;
}

}  // namespace

void prepare_ellipses(EllipsoidContext& context, int64_t num_threads,
                      const EllipsoidInputs& inputs) {
  const int64_t n = context.num_splats;
  const int64_t tiles_x = (context.width + kTileSize - 1) / kTileSize;
  const int64_t tiles_y = (context.height + kTileSize - 1) / kTileSize;
  Ellipse* ellipses = context.ellipses.reserve(n);
  TileRect* rects = context.rects.reserve(n);
  const int64_t groups = (n + kLanes - 1) / kLanes;
  parallel_ranges(num_threads, groups, [&](int, int64_t begin, int64_t end) {
    for (int64_t first = begin * kLanes; first < std::min(end * kLanes, n); first += kLanes)
      prepare_sixteen(inputs, first, std::min<int64_t>(kLanes, n - first), tiles_x, tiles_y,
                      ellipses, rects);
  });
}

}  // namespace splatir

using namespace splatir;

// Draws ellipsoids. The last three images may be null. Returns a context for the backward
// pass, to be released; 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_ellipsoids_forward(
    int64_t num_threads, int64_t num_splats, int64_t num_features, int64_t width, int64_t height,
    const float* means2d, const float* factors, const float* opacities, const float* depths,
    const int32_t* radii, const float* features, const float* background, float* feature_image,
    float* alpha_image, float* depth_image, float* median_image, float* transmittance_image) {
  EllipsoidContext* context = nullptr;
  try {
    context = contexts().acquire();
    const EllipsoidInputs inputs{means2d, factors, opacities, depths, radii, features, background};
    context->num_splats = num_splats;
    context->width = width;
    context->height = height;
    context->has_median = median_image != nullptr;
    context->channels = Channels(num_features, depth_image != nullptr || context->has_median);
    prepare_ellipses(*context, num_threads, inputs);
    const TileRect* rects = context->rects.data();
    if (context->bins.build(num_threads, num_splats, depths, rects, width, height)) {
      draw_ellipsoids(*context, num_threads, inputs,
                      {feature_image, alpha_image, depth_image, median_image, transmittance_image});
      return reinterpret_cast<int64_t>(context);
    }
  } catch (const std::bad_alloc&) {
  }
  delete context;
  return 0;
}

// Gradients; can be called any number of times. v_alpha, v_depth and v_median, and the outputs
// v_absgrad and v_depths may be null. Returns 1, or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_ellipsoids_backward(
    int64_t context, int64_t num_threads, const float* depths, const float* features,
    const float* background, const float* v_feature_image, const float* v_alpha_image,
    const float* v_depth_image, const float* v_median_image, int64_t num_detached,
    float* v_means2d, float* v_absgrad, float* v_factors, float* v_opacities, float* v_features,
    float* v_depths) {
  EllipsoidScratch* scratch = nullptr;
  try {
    scratch = scratches().acquire();
    const EllipsoidInputs inputs{nullptr, nullptr, nullptr, depths, nullptr, features, background};
    differentiate_ellipsoids(
        *reinterpret_cast<const EllipsoidContext*>(context), *scratch, num_threads, inputs,
        {v_feature_image, v_alpha_image, v_depth_image, v_median_image, num_detached},
        {v_means2d, v_absgrad, v_factors, v_opacities, v_features, v_depths});
    scratches().release(scratch);
    return 1;
  } catch (const std::bad_alloc&) {
    delete scratch;
    return 0;
  }
}

SPLATIR_EXPORT void splatir_ellipsoids_release(int64_t context) {
  contexts().release(reinterpret_cast<EllipsoidContext*>(context));
}
