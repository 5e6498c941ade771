// Gradients of surfels' features where their geometry is frozen.
#include "abi.h"
#include "feature_gradients.h"
#include "surfel.h"

namespace splatir {
namespace {

struct SurfelAlpha {
  SPLATIR_INLINE Floats operator()(const Surfel& s, Floats px, Floats py) const {
    return min(uncapped_alpha(s, hit_at(s, px, py)), Floats(kMaxAlpha));
  }
};

}  // namespace
}  // namespace splatir

using namespace splatir;

// Gradient of the features alone. Returns 1, or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_surfels_backward_features(int64_t handle, int64_t num_threads,
                                                         const float* v_feature_image,
                                                         float* v_features) {
  const auto& surfels = *reinterpret_cast<const SurfelImage*>(handle);
  try {
    const FeatureImage image{surfels.num_splats, surfels.num_features,
                             surfels.size.width, surfels.size.height,
                             surfels.bins,       surfels.rects.data(),
                             surfels.lists,      surfels.tile_used.data(),
                             v_feature_image,    v_features};
    differentiate_features<SurfelAlpha>(image, surfels.surfels.data(), num_threads);
    return 1;
  } catch (const std::bad_alloc&) {
    return 0;
  }
}
