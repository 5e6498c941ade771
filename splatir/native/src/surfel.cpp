// The C functions of the surfel rasteriser: which arrays go in and come out.
#include <new>

#include "surfel.h"

#include "abi.h"
#include "threads.h"

namespace splatir {
namespace {

ObjectPool<SurfelImage>& pool() {
  // Never destroyed: threads may still run when static objects are.
  static ObjectPool<SurfelImage>* images = new ObjectPool<SurfelImage>;
  return *images;
}

// The channels in order: features, depth, normals. Arrays may be null; depth and normals only take
// part if the image has them.
template <class T>
std::vector<Strided<T>> channels_of(T* features, int64_t num_features, bool has_depth, T* depth,
                                    bool has_normals, T* normals) {
  std::vector<Strided<T>> channels;
  const auto add = [&](T* start, int64_t offset, int64_t stride) {
    channels.push_back({start == nullptr ? nullptr : start + offset, stride});
  };
  for (int64_t c = 0; c < num_features; ++c) add(features, c, num_features);
  if (has_depth) add(depth, 0, 1);
  for (int64_t c = 0; has_normals && c < 3; ++c) add(normals, c, 3);
  return channels;
}

std::vector<float> background_of(const float* background, int64_t num_features,
                                 int64_t num_channels) {
  std::vector<float> values(num_channels, 0.0f);
  for (int64_t c = 0; background != nullptr && c < num_features; ++c) values[c] = background[c];
  return values;
}

void set_up(SurfelImage& image, int64_t num_threads, const float* means2d, const double* rows,
            const float* depths, const float* opacities, const int32_t* radii,
            const std::vector<Strided<const float>>& channels) {
  const size_t stride = image.padded;
  image.surfels.reserve(image.num_splats);
  image.reaches.reserve(image.num_splats);
  image.rects.reserve(image.num_splats);
  image.channels.reserve(image.num_splats * stride);
  parallel_ranges(num_threads, image.num_splats, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const ProjectedSurfel in{means2d + 2 * i, rows + 9 * i, radii + 2 * i, depths[i],
                               opacities[i]};
      image.rects[i] = make_surfel(in, image.size, &image.surfels[i], &image.reaches[i]);
      if (image.rects[i].count() == 0) continue;
      float* to = &image.channels[i * stride];
      for (int c = 0; c < image.num_channels; ++c)
        to[c] = channels[c].start[i * channels[c].stride];
      for (int c = image.num_channels; c < image.padded; ++c) to[c] = 0.0f;
    }
  });
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// Renders surfels and returns what backward needs: a handle for splatir_surfels_release; 0 if
// memory ran out.
//
// In: means2d [n, 2], ray transforms `rows` float64 [n, 3, 3], depths [n], normals [n, 3] or null,
// radii int32 [n, 2], opacities [n], features [n, num_features], background [num_features] or null.
// Out: image [height, width, num_features] and planes of the same size, each but alpha may be null.
SPLATIR_EXPORT int64_t splatir_surfels_forward(
    int64_t num_threads, int64_t num_splats, int64_t num_features, int64_t width, int64_t height,
    const float* means2d, const double* rows, const float* depths, const float* normals,
    const int32_t* radii, const float* opacities, const float* features, const float* background,
    float* out_features, float* out_alpha, float* out_depth, float* out_median_depth,
    float* out_normals, float* out_distortion, float* out_transmittance) {
  SurfelImage* image = nullptr;
  try {
    image = pool().acquire();
    const auto in = channels_of(features, num_features, out_depth != nullptr, depths,
                                out_normals != nullptr, normals);
    image->size = {width, height};
    image->num_splats = num_splats;
    image->num_features = static_cast<int>(num_features);
    image->has_depth = out_depth != nullptr;
    image->has_normals = out_normals != nullptr;
    image->num_channels = static_cast<int>(in.size());
    image->padded = padded_channels(image->num_channels);
    image->has_depth_outputs = out_distortion != nullptr || out_median_depth != nullptr;
    set_up(*image, num_threads, means2d, rows, depths, opacities, radii, in);
    if (!image->bins.build(num_threads, num_splats, depths, image->rects.data(), width, height))
      throw std::bad_alloc();
    const SurfelOutputs out{channels_of(out_features, num_features, out_depth != nullptr, out_depth,
                                        out_normals != nullptr, out_normals),
                            background_of(background, num_features, image->num_channels),
                            out_alpha, out_distortion, out_median_depth, out_transmittance};
    composite_surfels(*image, num_threads, out);
    return reinterpret_cast<int64_t>(image);
  } catch (const std::bad_alloc&) {
    if (image != nullptr) pool().release(image);
    return 0;
  }
}

// Gradients of all inputs from those of all images, which may be null. Returns 1; 0 if memory ran
// out. The inputs are those of forward. grad_probe and grad_absolute may be null; grad_normals must
// not be where forward composited normals.
SPLATIR_EXPORT int64_t splatir_surfels_backward(
    int64_t handle, int64_t num_threads, const float* means2d, const double* rows,
    const float* opacities, const float* background, const float* v_features, const float* v_alpha,
    const float* v_depth, const float* v_median_depth, const float* v_normals,
    const float* v_distortion, int64_t num_detached,
    float* grad_means2d, double* grad_rows, float* grad_depths, float* grad_normals,
    float* grad_opacities, float* grad_features, float* grad_probe, float* grad_absolute) {
  SurfelImage& image = *reinterpret_cast<SurfelImage*>(handle);
  const int64_t num_features = image.num_features;
  const bool has_depth = image.has_depth, has_normals = image.has_normals;
  try {
    const SurfelCotangents in{
        channels_of(v_features, num_features, has_depth, v_depth, has_normals, v_normals),
        background_of(background, num_features - num_detached, image.num_channels), v_alpha,
        v_distortion, v_median_depth, static_cast<int>(num_detached)};
    std::vector<float> depth_channel(has_depth ? image.num_splats : 0);
    const SurfelGradients out{means2d,
                              rows,
                              opacities,
                              channels_of(grad_features, num_features, has_depth,
                                          depth_channel.data(), has_normals, grad_normals),
                              grad_means2d,
                              grad_opacities,
                              grad_rows,
                              grad_depths,
                              grad_probe,
                              grad_absolute};
    backpropagate_surfels(image, num_threads, in, out);
    for (size_t i = 0; i < depth_channel.size(); ++i) grad_depths[i] += depth_channel[i];
    return 1;
  } catch (const std::bad_alloc&) {
    return 0;
  }
}

SPLATIR_EXPORT void splatir_surfels_release(int64_t handle) {
  pool().release(reinterpret_cast<SurfelImage*>(handle));
}
