// Split-sum shading of points under a prefiltered light, and its gradients.
//
// Per block of sixteen points: directions and materials in vectors, texels point by point.
#include "split_sum.h"

#include "abi.h"
#include "points.h"
#include "texels.h"
#include "threads.h"

namespace splatir {
namespace {

constexpr float kDielectric = 0.04f;
constexpr float kInversePi = 1.0f / kPi;

struct Surface {
  int64_t count;
  const float *normals, *views, *albedo, *roughness, *metallic;

  int64_t blocks() const { return blocks_of(count); }
};

struct Light {
  Map specular, irradiance;
  const float* levels;  // roughness of each
  const float* table;
  int64_t nodes;

  int64_t specular_texels() const { return specular.levels * specular.level_texels(); }
  int64_t texels() const { return specular_texels() + irradiance.level_texels(); }
};

struct Gradients {
  const float *v_diffuse, *v_specular;
  float *normals, *albedo, *roughness, *metallic;  // normals may be null
};

// Sums of texels, one per lane, as [lane][channel].
struct Texels {
  float values[kLanes][4];

  SPLATIR_INLINE Vec3 colours() const {
    float lanes[4 * kLanes];
    for (int lane = 0; lane < kLanes; lane += 4) {
      Quad rows[4];
      for (int i = 0; i < 4; ++i) rows[i] = load_quad(values[lane + i]);
      transpose(rows);
      for (int c = 0; c < 3; ++c) store_quad(lanes + c * kLanes + lane, rows[c]);
    }
    return {load(lanes), load(lanes + kLanes), load(lanes + 2 * kLanes)};
  }
};

// What both passes know of a block.
struct Block {
  Vec3 normal, view, albedo;
  Floats roughness, metallic;
  Lean lean;
  Energy energy;
  Place normal_place, lobe_place;
  Level level;

  Block(const Surface& surface, const Light& light, int64_t block)
      : normal(load_threes(surface.normals, block, surface.count)),
        view(load_threes(surface.views, block, surface.count)),
        albedo(load_threes(surface.albedo, block, surface.count)),
        roughness(load_ones(surface.roughness, block, surface.count)),
        metallic(load_ones(surface.metallic, block, surface.count)),
        lean(lean_of(normal, view, roughness)),
        energy(energy_of(roughness, lean.cosine, light.table, light.nodes)),
        normal_place(place_of(normal, light.irradiance)),
        lobe_place(place_of(lean.direction, light.specular)),
        level(level_of(roughness, light.levels, light.specular.levels)) {}

  Vec3 reflectance() const {  // F0
    const Vec3 dielectric = {kDielectric, kDielectric, kDielectric};
    return dielectric + (albedo - dielectric) * metallic;
  }
  Vec3 specular_albedo() const {  // F0 A + B
    return reflectance() * energy.a + Vec3{energy.b, energy.b, energy.b};
  }
  Vec3 diffuse_albedo() const {  // per irradiance
    return albedo * ((Floats(1.0f) - metallic) * Floats(kInversePi));
  }
};

SPLATIR_INLINE Quad blend(const float* texels, const Corners& corners) {
  Quad total = Quad{};
  for (int k = 0; k < 4; ++k)
    total += corners.weight[k] * load_texel(texels + 3 * corners.at[k]);
  return total;
}

void shade(const Surface& surface, const Light& light, int64_t index, float* diffuse,
           float* specular) {
  const Block block(surface, light, index);
  const int64_t level_texels = light.specular.level_texels();
  Texels irradiance, prefiltered;
  for (int lane = 0; lane < kLanes; ++lane) {
    const Corners around = corners_of(block.normal_place, lane, light.irradiance);
    store_quad(irradiance.values[lane], blend(light.irradiance.texels, around));
    const Corners corners = corners_of(block.lobe_place, lane, light.specular);
    const float* lower =
        light.specular.texels + 3 * level_texels * static_cast<int64_t>(block.level.index[lane]);
    const Quad below = blend(lower, corners), above = blend(lower + 3 * level_texels, corners);
    store_quad(prefiltered.values[lane], below + block.level.share[lane] * (above - below));
  }
  store_threes(diffuse, block.diffuse_albedo() * irradiance.colours(), index, surface.count);
  store_threes(specular, block.specular_albedo() * prefiltered.colours(), index, surface.count);
}

// A blend, and what its gradient says of the place.
struct Slopes {
  Quad value;
  float by_value, by_x, by_y;  // of the product with the gradient
};

// Blends texels; where wanted, also adds factor * weight * gradient to those of `to` (of four
// channels).
SPLATIR_INLINE Slopes blend_backward(const float* texels, const Place& place, int lane,
                                     const Corners& corners, Quad gradient, float factor,
                                     float* to) {
  Quad value = Quad{};
  float products[4];
  for (int k = 0; k < 4; ++k) {
    const Quad texel = load_texel(texels + 3 * corners.at[k]);
    value += corners.weight[k] * texel;
    products[k] = sum_three(texel * gradient);
    if (to != nullptr) {
      float* at = to + 4 * corners.at[k];
      store_quad(at, load_quad(at) + (factor * corners.weight[k]) * gradient);
    }
  }
  const Slope slope = slope_of(products, place, lane);
  return {value, sum_three(value * gradient), slope.x, slope.y};
}

// What the lookups of a block say.
struct Lookups {
  Texels irradiance, prefiltered;
  float normal_x[kLanes], normal_y[kLanes];
  float lobe_x[kLanes], lobe_y[kLanes], by_level[kLanes];
};

// v_texels receives gradients to the texels, specular levels first; it may be null.
void look_up(const Light& light, const Block& block, const Vec3& v_irradiance,
             const Vec3& v_prefiltered, int64_t filled, float* v_texels, Lookups& found) {
  const int64_t level_texels = light.specular.level_texels();
  float v_lanes[6][kLanes];
  const Floats* v[6] = {&v_irradiance.x,  &v_irradiance.y,  &v_irradiance.z,
                        &v_prefiltered.x, &v_prefiltered.y, &v_prefiltered.z};
  for (int c = 0; c < 6; ++c) store(v_lanes[c], *v[c]);
  float* v_irradiance_texels =
      v_texels == nullptr ? nullptr : v_texels + 4 * light.specular_texels();
  for (int lane = 0; lane < kLanes; ++lane) {
    float* to = lane < filled ? v_texels : nullptr;
    const Corners around = corners_of(block.normal_place, lane, light.irradiance);
    const Slopes flat = blend_backward(
        light.irradiance.texels, block.normal_place, lane, around,
        Quad{v_lanes[0][lane], v_lanes[1][lane], v_lanes[2][lane], 0.0f}, 1.0f,
        to == nullptr ? nullptr : v_irradiance_texels);
    store_quad(found.irradiance.values[lane], flat.value);
    found.normal_x[lane] = flat.by_x;
    found.normal_y[lane] = flat.by_y;

    const Corners corners = corners_of(block.lobe_place, lane, light.specular);
    const int64_t first = level_texels * static_cast<int64_t>(block.level.index[lane]);
    const float* lower = light.specular.texels + 3 * first;
    const float share = block.level.share[lane];
    const Quad gradient = {v_lanes[3][lane], v_lanes[4][lane], v_lanes[5][lane], 0.0f};
    const Slopes below = blend_backward(lower, block.lobe_place, lane, corners, gradient,
                                        1.0f - share, to == nullptr ? nullptr : to + 4 * first);
    const Slopes above =
        blend_backward(lower + 3 * level_texels, block.lobe_place, lane, corners, gradient, share,
                       to == nullptr ? nullptr : to + 4 * (first + level_texels));
    store_quad(found.prefiltered.values[lane], below.value + share * (above.value - below.value));
    found.lobe_x[lane] = below.by_x + share * (above.by_x - below.by_x);
    found.lobe_y[lane] = below.by_y + share * (above.by_y - below.by_y);
    found.by_level[lane] = above.by_value - below.by_value;
  }
}

void shade_backward(const Surface& surface, const Light& light, int64_t index,
                    const Gradients& gradients, float* v_texels) {
  const Block block(surface, light, index);
  const Lean& lean = block.lean;
  const Vec3 v_diffuse = load_threes(gradients.v_diffuse, index, surface.count);
  const Vec3 v_specular = load_threes(gradients.v_specular, index, surface.count);
  Lookups found;
  look_up(light, block, v_diffuse * block.diffuse_albedo(), v_specular * block.specular_albedo(),
          surface.count - index * kLanes, v_texels, found);

  const Vec3 received = v_diffuse * found.irradiance.colours() * Floats(kInversePi);
  const Vec3 by_energy = v_specular * found.prefiltered.colours();
  const Vec3 v_reflectance = by_energy * block.energy.a;
  const Vec3 dielectric = {kDielectric, kDielectric, kDielectric};
  store_threes(gradients.albedo,
               received * (Floats(1.0f) - block.metallic) + v_reflectance * block.metallic, index,
               surface.count);
  store_ones(gradients.metallic,
             dot(v_reflectance, block.albedo - dielectric) - dot(received, block.albedo), index,
             surface.count);

  const Floats v_a = dot(by_energy, block.reflectance());
  const Floats v_b = by_energy.x + by_energy.y + by_energy.z;
  const Vec3 v_direction = v_direction_of(lean.direction, light.specular, load(found.lobe_x),
                                          load(found.lobe_y));
  const Vec3 v_leaning =
      (v_direction - lean.direction * dot(lean.direction, v_direction)) * lean.inverse_length;
  store_ones(gradients.roughness,
             v_a * block.energy.a_by_roughness + v_b * block.energy.b_by_roughness +
                 load(found.by_level) * block.level.slope +
                 dot(v_leaning, lean.mirror - block.normal) * lean.share_by_roughness,
             index, surface.count);
  if (gradients.normals == nullptr) return;
  const Floats twice = Floats(2.0f) * lean.share;
  const Floats v_cosine = v_a * block.energy.a_by_cosine + v_b * block.energy.b_by_cosine +
                          twice * dot(v_leaning, block.normal);
  const Vec3 through_irradiance = v_direction_of(block.normal, light.irradiance,
                                                 load(found.normal_x), load(found.normal_y));
  store_threes(gradients.normals,
               through_irradiance + block.view * keep(lean.is_cosine_free, v_cosine) +
                   v_leaning * (Floats(1.0f) - lean.share + twice * lean.cosine),
               index, surface.count);
}

void shade_all_backward(int64_t num_threads, const Surface& surface, const Light& light,
                        const Gradients& gradients, float* v_texels) {
  sum_texel_gradients(num_threads, surface.blocks(), light.texels(), v_texels,
                      [&](int64_t block, float* own) {
                        shade_backward(surface, light, block, gradients, own);
                      });
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// Shades points: normals, views, albedo [count, 3], roughness and metallic [count]. specular_maps holds
// specular maps [levels, height, width, 3] of the roughnesses `levels`, ascending, at least two,
// then the irradiance [irradiance_height, irradiance_width, 3]; table [nodes, nodes, 2] A and B.
SPLATIR_EXPORT void splatir_split_sum(
    int64_t num_threads, int64_t count, const float* normals, const float* views,
    const float* albedo, const float* roughness, const float* metallic, int64_t num_levels,
    int64_t height, int64_t width, int64_t irradiance_height, int64_t irradiance_width,
    const float* levels, const float* specular_maps, const float* irradiance, int64_t nodes,
    const float* table, float* diffuse, float* specular) {
  const Surface surface{count, normals, views, albedo, roughness, metallic};
  const Light light{{specular_maps, num_levels, height, width},
                    {irradiance, 1, irradiance_height, irradiance_width},
                    levels,
                    table,
                    nodes};
  parallel_ranges(num_threads, surface.blocks(), [&](int, int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      shade(surface, light, block, diffuse, specular);
  });
}

// Gradients from those to diffuse and specular. v_normals and v_texels may be null: the latter is
// [levels * height * width + irradiance_height * irradiance_width, 3], specular maps first.
// Returns 1, or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_split_sum_backward(
    int64_t num_threads, int64_t count, const float* normals, const float* views,
    const float* albedo, const float* roughness, const float* metallic, int64_t num_levels,
    int64_t height, int64_t width, int64_t irradiance_height, int64_t irradiance_width,
    const float* levels, const float* specular_maps, const float* irradiance, int64_t nodes,
    const float* table, const float* v_diffuse, const float* v_specular, float* v_normals,
    float* v_albedo, float* v_roughness, float* v_metallic, float* v_texels) {
  const Surface surface{count, normals, views, albedo, roughness, metallic};
  const Light light{{specular_maps, num_levels, height, width},
                    {irradiance, 1, irradiance_height, irradiance_width},
                    levels,
                    table,
                    nodes};
  const Gradients gradients{v_diffuse, v_specular,  v_normals,
                            v_albedo,  v_roughness, v_metallic};
  try {
    shade_all_backward(num_threads, surface, light, gradients, v_texels);
    return 1;
  } catch (const std::bad_alloc&) {
    return 0;
  }
}
