// Sums over directions of what reaches Gaussians, and of what their specular lobes reflect of it.
//
// Sixteen directions of one Gaussian per vector. Directions and light come as rows of one channel
// each, padded with zeros to a multiple of sixteen. A Gaussian is summed by one thread, gradients
// to what all share in a fixed number of parts that are added in order: nothing depends on the
// number of threads.
#include <algorithm>

#include "abi.h"
#include "block_sums.h"
#include "buffers.h"
#include "lane_vectors.h"
#include "threads.h"

namespace splatir {
namespace {

// What a direction meets, but for indices of Gaussians.
constexpr int32_t kFree = -1, kBelow = -2;
constexpr float kInversePi = 0.318309886f;
// Views are at least so far above the horizon for the masking.
constexpr float kMinCosine = 1e-3f;
// Denominators of the lobe above which their square is no denormal.
constexpr float kTiny = 1e-18f;
// Parts of the Gaussians that sum gradients by themselves: at most this many, with at most so many
// Gaussians together.
constexpr int64_t kMaxParts = 8, kMaxPartGaussians = 1 << 22;

int64_t padded(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// Three rows of one number per direction.
struct Rows {
  const float* first;
  int64_t length;

  SPLATIR_INLINE Vec3 at(int64_t direction) const {
    const float* from = first + direction;
    return {load(from), load(from + length), load(from + 2 * length)};
  }
};

struct Visibility {
  int64_t count, num_directions;
  const int32_t* hits;
  const float* normals;
  Rows directions;

  Visibility(int64_t count, int64_t num_directions, const int32_t* hits, const float* normals,
             const float* directions)
      : count(count),
        num_directions(num_directions),
        hits(hits),
        normals(normals),
        directions{directions, padded(num_directions)} {}

  SPLATIR_INLINE Ints hits_from(int64_t gaussian, int64_t direction) const {
    const int32_t* from = hits + gaussian * num_directions + direction;
    const int64_t left = num_directions - direction;
    if (left >= kLanes) return load(from);
    int32_t lanes[kLanes];
    std::fill_n(lanes, kLanes, kBelow);
    std::copy_n(from, left, lanes);
    return load(lanes);
  }
};

SPLATIR_INLINE Vec3 broadcast(const float* from) {
  return {Floats(from[0]), Floats(from[1]), Floats(from[2])};
}

SPLATIR_INLINE void add(Vec3& to, const Vec3& a, const Floats& factor) { to = to + a * factor; }

SPLATIR_INLINE Vec3 black() { return {Floats(0.0f), Floats(0.0f), Floats(0.0f)}; }

SPLATIR_INLINE void store_sums(float* to, int64_t stride, const Vec3& lanes) {
  to[0] = sum(lanes.x);
  to[stride] = sum(lanes.y);
  to[2 * stride] = sum(lanes.z);
}

SPLATIR_INLINE void store_three(float* to, Quad values) {
  for (int c = 0; c < 3; ++c) to[c] = values[c];
}

// Calls body(lane) for each lane of a mask, in order.
template <class Body>
SPLATIR_INLINE void for_lanes(const Mask& mask, const Body& body) {
  for (uint32_t left = bits(mask); left != 0; left &= left - 1) body(__builtin_ctz(left));
}

SPLATIR_INLINE Mask is_gaussian(const Ints& hits) {
  return ~(equals(hits, Ints(kFree)) | equals(hits, Ints(kBelow)));
}

void sum_irradiance(const Visibility& seen, const Rows& light, int64_t gaussian, float* visible,
                    float* unoccluded) {
  const Vec3 normal = broadcast(seen.normals + 3 * gaussian);
  Vec3 past = black(), all = black();
  for (int64_t d = 0; d < seen.num_directions; d += kLanes) {
    const Floats cosine = max(dot(normal, seen.directions.at(d)), Floats(0.0f));
    const Mask is_free = equals(seen.hits_from(gaussian, d), Ints(kFree));
    const Vec3 arriving = light.at(d);
    add(all, arriving, cosine);
    add(past, arriving, keep(is_free, cosine));
  }
  store_sums(visible + 3 * gaussian, 1, past);
  store_sums(unoccluded + 3 * gaussian, 1, all);
}

// Adds to v_light, rows of as many numbers as there are directions, padded.
void sum_irradiance_backward(const Visibility& seen, int64_t gaussian, const float* v_visible,
                             const float* v_unoccluded, float* v_light) {
  const Vec3 normal = broadcast(seen.normals + 3 * gaussian);
  const Vec3 past = broadcast(v_visible + 3 * gaussian);
  const Vec3 all = broadcast(v_unoccluded + 3 * gaussian);
  const int64_t length = seen.directions.length;
  for (int64_t d = 0; d < seen.num_directions; d += kLanes) {
    const Floats cosine = max(dot(normal, seen.directions.at(d)), Floats(0.0f));
    const Floats free = keep(equals(seen.hits_from(gaussian, d), Ints(kFree)), cosine);
    float* to = v_light + d;
    store(to, load(to) + past.x * free + all.x * cosine);
    store(to + length, load(to + length) + past.y * free + all.y * cosine);
    store(to + 2 * length, load(to + 2 * length) + past.z * free + all.z * cosine);
  }
}

// Calls body(index of the Gaussian that is seen, cosine times solid angle) in order.
template <class Body>
SPLATIR_INLINE void for_seen(const Visibility& seen, const float* solid_angles, int64_t gaussian,
                             const Body& body) {
  const Vec3 normal = broadcast(seen.normals + 3 * gaussian);
  for (int64_t d = 0; d < seen.num_directions; d += kLanes) {
    const Ints hits = seen.hits_from(gaussian, d);
    const Mask is_met = is_gaussian(hits);
    if (!any(is_met)) continue;
    float weights[kLanes];
    int32_t indices[kLanes];
    store(weights, max(dot(normal, seen.directions.at(d)), Floats(0.0f)) * load(solid_angles + d));
    store(indices, hits);
    for_lanes(is_met, [&](int lane) { body(indices[lane], weights[lane]); });
  }
}

// radiosity [count, 4], the last unused.
void sum_bounced(const Visibility& seen, const float* solid_angles, const float* radiosity,
                 int64_t gaussian, float* irradiance) {
  Quad total = Quad{};
  for_seen(seen, solid_angles, gaussian, [&](int32_t index, float weight) {
    total += weight * load_quad(radiosity + 4 * static_cast<int64_t>(index));
  });
  store_three(irradiance + 3 * gaussian, total);
}

void sum_bounced_backward(const Visibility& seen, const float* solid_angles,
                          const float* v_irradiance, int64_t gaussian, float* v_radiosity) {
  const float* from = v_irradiance + 3 * gaussian;
  const Quad gradient = {from[0], from[1], from[2], 0.0f};
  for_seen(seen, solid_angles, gaussian, [&](int32_t index, float weight) {
    float* to = v_radiosity + 4 * static_cast<int64_t>(index);
    store_quad(to, load_quad(to) + weight * gradient);
  });
}

// GGX times the cosine, as transport/sums.py has it: `constant` for F0 = 1, of which `grazing` is
// the part that Schlick's Fresnel adds to F0 = 0.
struct Lobe {
  Floats constant, grazing;
};

struct Receiver {
  Vec3 normal, view;
  Floats squared, factor;  // alpha^2, and alpha^2 / (pi (n.v + slant))

  Receiver(const float* normal, const float* view, float alpha)
      : normal(broadcast(normal)), view(broadcast(view)), squared(alpha * alpha) {
    const float n_dot_v = normal[0] * view[0] + normal[1] * view[1] + normal[2] * view[2];
    const float cosine = std::max(n_dot_v, kMinCosine), a = alpha * alpha;
    factor = Floats(kInversePi * a / (cosine + std::sqrt(a + (1.0f - a) * cosine * cosine)));
  }

  SPLATIR_INLINE Lobe reflect(const Vec3& towards, const Floats& cosine,
                              const Mask& is_above) const {
    // With h the sum of both directions, not unit: (n.h)^2 = s^2 / h^2, v.h = |h| / 2.
    const Vec3 both = view + towards;
    const Floats length2 = dot(both, both), s = dot(normal, both);
    const Floats s2 = min(s * s, length2);
    const Floats spread = max(squared * s2 + (length2 - s2), Floats(kTiny));
    const Floats slant = sqrt(squared + (Floats(1.0f) - squared) * cosine * cosine);
    const Floats shape = factor * cosine * (length2 * length2) / (spread * spread * (cosine + slant));
    const Floats constant = keep(is_above & (s > Floats(0.0f)), shape);
    const Floats t = max(Floats(1.0f) - Floats(0.5f) * sqrt(length2), Floats(0.0f));
    const Floats t2 = t * t;
    return {constant, constant * (t2 * t2 * t)};
  }
};

// Arrays [selected, 3, 2] but white, which is [selected, 2].
struct SpecularSums {
  float *sky, *unoccluded, *bounced, *white;
};

struct Radiance {
  Rows light;
  const float *solid_angles, *radiosity;  // radiosity [count, 4], the last unused
};

void sum_specular(const Visibility& seen, const Radiance& radiance, int64_t gaussian,
                  const float* view, float alpha, int64_t place, const SpecularSums& sums) {
  const Receiver receiver(seen.normals + 3 * gaussian, view, alpha);
  Vec3 sky = black(), sky_grazing = black(), all = black(), all_grazing = black();
  Floats white(0.0f), white_grazing(0.0f);
  Quad bounced = Quad{}, bounced_grazing = Quad{};
  for (int64_t d = 0; d < seen.num_directions; d += kLanes) {
    const Vec3 towards = seen.directions.at(d);
    const Floats cosine = dot(receiver.normal, towards);
    const Ints hits = seen.hits_from(gaussian, d);
    const Mask is_above = ~equals(hits, Ints(kBelow)) & (cosine > Floats(0.0f));
    if (!any(is_above)) continue;
    const Lobe lobe = receiver.reflect(towards, cosine, is_above);
    const Vec3 arriving = radiance.light.at(d);
    const Floats angles = load(radiance.solid_angles + d);
    const Mask is_free = equals(hits, Ints(kFree));
    add(all, arriving, lobe.constant);
    add(all_grazing, arriving, lobe.grazing);
    add(sky, arriving, keep(is_free, lobe.constant));
    add(sky_grazing, arriving, keep(is_free, lobe.grazing));
    const Floats weight = lobe.constant * angles, grazing = lobe.grazing * angles;
    white += weight;
    white_grazing += grazing;
    const Mask is_met = is_above & ~is_free;
    if (!any(is_met)) continue;
    float weights[2][kLanes];
    int32_t indices[kLanes];
    store(weights[0], weight);
    store(weights[1], grazing);
    store(indices, hits);
    for_lanes(is_met, [&](int lane) {
      const Quad sent = load_quad(radiance.radiosity + 4 * static_cast<int64_t>(indices[lane]));
      bounced += weights[0][lane] * sent;
      bounced_grazing += weights[1][lane] * sent;
    });
  }
  store_sums(sums.sky + 6 * place, 2, sky);
  store_sums(sums.sky + 6 * place + 1, 2, sky_grazing);
  store_sums(sums.unoccluded + 6 * place, 2, all);
  store_sums(sums.unoccluded + 6 * place + 1, 2, all_grazing);
  for (int c = 0; c < 3; ++c) {
    sums.bounced[6 * place + 2 * c] = bounced[c];
    sums.bounced[6 * place + 2 * c + 1] = bounced_grazing[c];
  }
  sums.white[2 * place] = sum(white);
  sums.white[2 * place + 1] = sum(white_grazing);
}

struct Scratch {
  Buffer<float> parts;
};

ObjectPool<Scratch>& scratches() {
  static auto* pool = new ObjectPool<Scratch>;
  return *pool;
}

// Adds body(gaussian, sums) of all Gaussians in a fixed number of parts of `size` sums each, and
// these in order: calls finish(sums) with the parts one after another. Throws std::bad_alloc.
template <class Body>
void sum_in_parts(int64_t num_threads, int64_t count, int64_t parts, int64_t size, float* to,
                  const Body& body) {
  Scratch* scratch = scratches().acquire();
  float* sums;
  try {
    sums = scratch->parts.reserve(parts * size);
  } catch (...) {
    delete scratch;
    throw;
  }
  parallel_tasks(num_threads, parts, [&](int, int64_t part) {
    float* own = sums + part * size;
    std::fill_n(own, size, 0.0f);
    for (int64_t i = count * part / parts; i < count * (part + 1) / parts; ++i) body(i, own);
  });
  parallel_ranges(num_threads, size, [&](int, int64_t begin, int64_t end) {
    std::copy(sums + begin, sums + end, to + begin);
    for (int64_t part = 1; part < parts; ++part)
      for (int64_t i = begin; i < end; ++i) to[i] += sums[part * size + i];
  });
  scratches().release(scratch);
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// In all that follow: hits [count, num_directions], normals [count, 3]; directions and light
// [3, padded], solid_angles [padded], with num_directions padded to a multiple of sixteen by zeros.

// visible and unoccluded [count, 3].
SPLATIR_EXPORT void splatir_irradiance(int64_t num_threads, int64_t count, int64_t num_directions,
                                       const int32_t* hits, const float* normals,
                                       const float* directions, const float* light, float* visible,
                                       float* unoccluded) {
  const Visibility seen(count, num_directions, hits, normals, directions);
  const Rows arriving{light, padded(num_directions)};
  parallel_ranges(num_threads, count, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sum_irradiance(seen, arriving, i, visible, unoccluded);
  });
}

// v_light [3, padded]. Returns 1, or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_irradiance_backward(
    int64_t num_threads, int64_t count, int64_t num_directions, const int32_t* hits,
    const float* normals, const float* directions, const float* v_visible,
    const float* v_unoccluded, float* v_light) {
  const Visibility seen(count, num_directions, hits, normals, directions);
  try {
    sum_in_parts(num_threads, count, kMaxParts, 3 * padded(num_directions), v_light,
                 [&](int64_t i, float* sums) {
                   sum_irradiance_backward(seen, i, v_visible, v_unoccluded, sums);
                 });
    return 1;
  } catch (const std::bad_alloc&) {
    return 0;
  }
}

// radiosity [count, 4], the last unused; irradiance [count, 3].
SPLATIR_EXPORT void splatir_bounced_irradiance(int64_t num_threads, int64_t count,
                                               int64_t num_directions, const int32_t* hits,
                                               const float* normals, const float* directions,
                                               const float* solid_angles, const float* radiosity,
                                               float* irradiance) {
  const Visibility seen(count, num_directions, hits, normals, directions);
  parallel_ranges(num_threads, count, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sum_bounced(seen, solid_angles, radiosity, i, irradiance);
  });
}

// v_radiosity [count, 4], the last 0. Returns 1, or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_bounced_irradiance_backward(
    int64_t num_threads, int64_t count, int64_t num_directions, const int32_t* hits,
    const float* normals, const float* directions, const float* solid_angles,
    const float* v_irradiance, float* v_radiosity) {
  const Visibility seen(count, num_directions, hits, normals, directions);
  const int64_t affordable = kMaxPartGaussians / std::max<int64_t>(count, 1);
  const int64_t parts = std::max<int64_t>(std::min(kMaxParts, affordable), 1);
  try {
    sum_in_parts(num_threads, count, parts, 4 * count, v_radiosity, [&](int64_t i, float* sums) {
      sum_bounced_backward(seen, solid_angles, v_irradiance, i, sums);
    });
    return 1;
  } catch (const std::bad_alloc&) {
    return 0;
  }
}

// Of the Gaussians who[selected]; views [selected, 3], alpha [selected]; radiosity [count, 4], the
// last unused. Results [selected, 3, 2] but white, which is [selected, 2]; the last axis is the
// lobe for F0 = 1 and its part that grazing adds to F0 = 0.
SPLATIR_EXPORT void splatir_specular_sums(
    int64_t num_threads, int64_t count, int64_t num_directions, const int32_t* hits,
    const float* normals, const float* directions, const float* solid_angles, const float* light,
    const float* radiosity, int64_t selected, const int64_t* who, const float* views,
    const float* alpha, float* sky, float* unoccluded, float* bounced, float* white) {
  const Visibility seen(count, num_directions, hits, normals, directions);
  const Radiance radiance{{light, padded(num_directions)}, solid_angles, radiosity};
  const SpecularSums sums{sky, unoccluded, bounced, white};
  parallel_ranges(num_threads, selected, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      sum_specular(seen, radiance, who[i], views + 3 * i, alpha[i], i, sums);
  });
}
