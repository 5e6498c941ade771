// What the Disney lobe reflects of an environment over what Lambert's does, and its gradients.
//
// Follows the torch reference (shade/disney_light.py), where the moments are explained. Per block
// of sixteen points: directions and weights in vectors, moments point by point.
#include "abi.h"
#include "points.h"
#include "split_sum.h"
#include "texels.h"
#include "threads.h"

namespace splatir {
namespace {

// Moments of a texel, three channels each: orders 0 and 1 under n.l; 0, 1 and 2 under FL n.l.
constexpr int kMoments = 14;
// What they come to along a view: one number for each order.
constexpr int kOrders = 5;
constexpr float kTiny = 1.17549435e-38f;

struct Surface {
  int64_t count;
  const float *normals, *views, *roughness;

  int64_t blocks() const { return blocks_of(count); }
};

struct Gradients {
  const float* v_ratio;
  float *normals, *roughness;  // normals may be null
};

// What both passes know of a block. The lobe is a sum over the orders, by these weights.
struct Block {
  Vec3 normal, view;
  Floats roughness, cosine, grazing;
  Mask is_cosine_free;
  Place place;
  float weights[kOrders][kLanes];
  float views[3][kLanes];

  Block(const Surface& surface, const Map& map, int64_t block)
      : normal(load_threes(surface.normals, block, surface.count)),
        view(load_threes(surface.views, block, surface.count)),
        roughness(load_ones(surface.roughness, block, surface.count)),
        place(place_of(normal, map)) {
    const Floats free_cosine = dot(normal, view), one = Floats(1.0f), half = Floats(0.5f);
    is_cosine_free = is_within(free_cosine, kMinCosine, 1.0f);
    cosine = clamp(free_cosine, Floats(kMinCosine), one);
    grazing = cube_of_rest() * rest() * rest();
    const Floats once = roughness * grazing, twice = roughness * once, facing = one - grazing;
    const Floats smooth = one - half * grazing, low = roughness * facing;
    store(weights[0], smooth + once);
    store(weights[1], once);
    store(weights[2], low + twice - half * smooth);
    store(weights[3], low + twice + twice);
    store(weights[4], twice);
    store(views[0], view.x);
    store(views[1], view.y);
    store(views[2], view.z);
  }

  Floats rest() const { return Floats(1.0f) - cosine; }
  Floats cube_of_rest() const { return rest() * rest() * rest(); }
};

// The moments of a texel along a view.
struct Orders {
  Quad of[kOrders];
};

// The view and the products of its parts, as moments of the orders 1 and 2 go with them.
struct View {
  float x, y, z, products[6];

  SPLATIR_INLINE View(const Block& block, int lane)
      : x(block.views[0][lane]), y(block.views[1][lane]), z(block.views[2][lane]),
        products{x * x, y * y, z * z, x * y, x * z, y * z} {}
};

SPLATIR_INLINE Orders orders_of(const float* texel, const View& view) {
  const auto moment = [&](int i) { return load_texel(texel + 3 * i); };
  const auto along = [&](int i) {
    return view.x * moment(i) + view.y * moment(i + 1) + view.z * moment(i + 2);
  };
  Quad second = Quad{};
  for (int i = 0; i < 6; ++i) second += view.products[i] * moment(8 + i);
  return {{moment(0), along(1), moment(4), along(5), second}};
}

SPLATIR_INLINE Quad weighted(const Orders& orders, const Block& block, int lane) {
  Quad total = Quad{};
  for (int i = 0; i < kOrders; ++i) total += block.weights[i][lane] * orders.of[i];
  return total;
}

SPLATIR_INLINE Quad received(const Orders& orders) {
  Quad light = orders.of[0];
  for (int c = 0; c < 4; ++c) light[c] = light[c] < kTiny ? kTiny : light[c];
  return light;
}

SPLATIR_INLINE Orders blended(const Orders (&corners)[4], const float (&weights)[4]) {
  Orders total{};
  for (int k = 0; k < 4; ++k)
    for (int i = 0; i < kOrders; ++i) total.of[i] += weights[k] * corners[k].of[i];
  return total;
}

SPLATIR_INLINE void orders_around(const Map& map, const Corners& corners, const View& view,
                                  Orders (&found)[4]) {
  for (int k = 0; k < 4; ++k)
    found[k] = orders_of(map.texels + 3 * kMoments * corners.at[k], view);
}

void reflect(const Surface& surface, const Map& map, int64_t index, float* ratio) {
  const Block block(surface, map, index);
  const int64_t first = index * kLanes;
  const int filled = static_cast<int>(std::min<int64_t>(kLanes, surface.count - first));
  for (int lane = 0; lane < filled; ++lane) {
    const Corners corners = corners_of(block.place, lane, map);
    Orders around[4];
    orders_around(map, corners, View(block, lane), around);
    const Orders orders = blended(around, corners.weight);
    const Quad found = weighted(orders, block, lane) / received(orders);
    for (int c = 0; c < 3; ++c) ratio[3 * (first + lane) + c] = found[c];
  }
}

// Adds gradients to the moments of a texel: `v_reflected` by what each has part in, `v_light` to
// the irradiance.
SPLATIR_INLINE void add_to_texel(float* to, const View& view, const Block& block, int lane,
                                 Quad v_reflected, Quad v_light) {
  const auto add = [&](int i, Quad gradient) {
    store_quad(to + 4 * i, load_quad(to + 4 * i) + gradient);
  };
  const float parts[3] = {view.x, view.y, view.z};
  Quad by_order[kOrders];
  for (int i = 0; i < kOrders; ++i) by_order[i] = block.weights[i][lane] * v_reflected;
  add(0, by_order[0] + v_light);
  add(4, by_order[2]);
  for (int i = 0; i < 3; ++i) {
    add(1 + i, parts[i] * by_order[1]);
    add(5 + i, parts[i] * by_order[3]);
  }
  for (int i = 0; i < 6; ++i) add(8 + i, view.products[i] * by_order[4]);
}

// v_moments [texels * kMoments, 4] may be null.
void reflect_backward(const Surface& surface, const Map& map, int64_t index,
                      const Gradients& gradients, float* v_moments) {
  const Block block(surface, map, index);
  const int64_t first = index * kLanes;
  float v_weights[kOrders][kLanes] = {}, by_x[kLanes] = {}, by_y[kLanes] = {};
  const int filled = static_cast<int>(std::min<int64_t>(kLanes, surface.count - first));
  for (int lane = 0; lane < filled; ++lane) {
    const Corners corners = corners_of(block.place, lane, map);
    const View view(block, lane);
    Orders around[4];
    orders_around(map, corners, view, around);
    const Orders orders = blended(around, corners.weight);
    const Quad light = received(orders), found = weighted(orders, block, lane) / light;
    const Quad v_reflected = load_texel(gradients.v_ratio + 3 * (first + lane)) / light;
    Quad v_light = -(v_reflected * found);
    for (int c = 0; c < 4; ++c) v_light[c] = orders.of[0][c] < kTiny ? 0.0f : v_light[c];
    for (int i = 0; i < kOrders; ++i) v_weights[i][lane] = sum_three(v_reflected * orders.of[i]);
    float products[4];
    for (int k = 0; k < 4; ++k) {
      products[k] = sum_three(v_reflected * weighted(around[k], block, lane) +
                              v_light * around[k].of[0]);
      if (v_moments != nullptr) {
        add_to_texel(v_moments + 4 * kMoments * corners.at[k], view, block, lane,
                     corners.weight[k] * v_reflected, corners.weight[k] * v_light);
      }
    }
    const Slope slope = slope_of(products, block.place, lane);
    by_x[lane] = slope.x;
    by_y[lane] = slope.y;
  }
  const auto v = [&](int i) { return load(v_weights[i]); };
  const Floats r = block.roughness, g = block.grazing, facing = Floats(1.0f) - g;
  const Floats two = Floats(2.0f), once = two * r * g;
  store_ones(gradients.roughness,
             (v(0) + v(1)) * g + v(2) * (facing + once) + v(3) * (facing + two * once) +
                 v(4) * once,
             index, surface.count);
  if (gradients.normals == nullptr) return;
  const Floats square = r * r, half = Floats(0.5f);
  const Floats v_grazing = v(0) * (r - half) + v(1) * r +
                           v(2) * (Floats(0.25f) - r + square) + v(3) * (two * square - r) +
                           v(4) * square;
  const Floats v_cosine = v_grazing * Floats(-5.0f) * block.cube_of_rest() * block.rest();
  store_threes(gradients.normals,
               v_direction_of(block.normal, map, load(by_x), load(by_y)) +
                   block.view * keep(block.is_cosine_free, v_cosine),
               index, surface.count);
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// What the Disney lobe reflects over what Lambert's does, ratio [count, 3]: normals, views
// [count, 3], roughness [count], moments [height, width, 14, 3].
SPLATIR_EXPORT void splatir_disney_ratio(int64_t num_threads, int64_t count, const float* normals,
                                         const float* views, const float* roughness,
                                         int64_t height, int64_t width, const float* moments,
                                         float* ratio) {
  const Surface surface{count, normals, views, roughness};
  const Map map{moments, 1, height, width};
  parallel_ranges(num_threads, surface.blocks(), [&](int, int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) reflect(surface, map, block, ratio);
  });
}

// Gradients from v_ratio [count, 3]. v_normals and v_moments, of the shape of the moments, may be
// null. Returns 1, or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_disney_ratio_backward(
    int64_t num_threads, int64_t count, const float* normals, const float* views,
    const float* roughness, int64_t height, int64_t width, const float* moments,
    const float* v_ratio, float* v_normals, float* v_roughness, float* v_moments) {
  const Surface surface{count, normals, views, roughness};
  const Map map{moments, 1, height, width};
  const Gradients gradients{v_ratio, v_normals, v_roughness};
  try {
    sum_texel_gradients(num_threads, surface.blocks(), map.level_texels() * kMoments, v_moments,
                        [&](int64_t block, float* own) {
                          reflect_backward(surface, map, block, gradients, own);
                        });
    return 1;
  } catch (const std::bad_alloc&) {
    return 0;
  }
}
