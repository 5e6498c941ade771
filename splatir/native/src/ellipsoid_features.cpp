// Gradients of ellipsoids' features where their geometry is frozen.
#include "abi.h"
#include "ellipsoid.h"
#include "feature_gradients.h"

namespace splatir {
namespace {

struct EllipseAlpha {
  SPLATIR_INLINE Floats operator()(const Ellipse& e, Floats px, Floats py) const {
    return capped_alpha(e, px, py);
  }
};

}  // namespace
}  // namespace splatir

using namespace splatir;

// Gradient of the features alone. Returns 1, or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_ellipsoids_backward_features(int64_t handle, int64_t num_threads,
                                                            const float* v_feature_image,
                                                            float* v_features) {
  const auto& context = *reinterpret_cast<const EllipsoidContext*>(handle);
  try {
    const FeatureImage image{context.num_splats,   context.channels.features,
                             context.width,        context.height,
                             context.bins,         context.rects.data(),
                             context.lists,        context.tile_used.data(),
                             v_feature_image,      v_features};
    differentiate_features<EllipseAlpha>(image, context.ellipses.data(), num_threads);
    return 1;
  } catch (const std::bad_alloc&) {
    return 0;
  }
}
