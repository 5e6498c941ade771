// Which colour each splat shows to a camera, and the gradient of that.
//
// Sixteen splats at a time. The basis and its derivatives follow from two facts:
//   Y_l,m = N_lm Q_lm(z) C_m  and  Y_l,-m = N_lm Q_lm(z) S_m  with  C_m + i S_m = (x + i y)^m,
//   dQ_lm/dz = -Q_l,m+1, where Q_lm is the associated Legendre function, Condon-Shortley phase
//   included, without its factor (1 - z^2)^(m/2).
#include <algorithm>

#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace splatir {
namespace {

constexpr int kMaxDegree = 4;
constexpr int kMaxTerms = (kMaxDegree + 1) * (kMaxDegree + 1);
constexpr int kMaxColumns = 3 * kMaxTerms;
// Directions shorter than this give no meaningful colour, but must not divide by zero.
constexpr float kMinLength = 1e-12f;

// N_lm by l (l + 1) / 2 + m: the orthonormal factor, with sqrt(2) for m > 0.
constexpr float kNorm[15] = {
    0.28209479177387814f, 0.48860251190291992f, 0.48860251190291992f, 0.63078313050504009f,
    0.36418281019735971f, 0.18209140509867985f, 0.74635266518023080f, 0.30469719964297720f,
    0.09635371475468514f, 0.03933623932844290f, 0.84628437532163447f, 0.26761861742291565f,
    0.06307831305050400f, 0.01685838828361839f, 0.00596034033761120f};

constexpr int triangle(int l, int m) { return l * (l + 1) / 2 + m; }

// Everything at one direction per lane that values and derivatives are made of.
struct Harmonics {
  Floats cosine[kMaxDegree + 1], sine[kMaxDegree + 1];  // C_m, S_m
  Floats legendre[15];                                  // Q_lm

  Harmonics(Floats x, Floats y, Floats z, int degree) {
    cosine[0] = Floats(1.f);
    sine[0] = Floats(0.f);
    for (int m = 1; m <= degree; ++m) {
      cosine[m] = x * cosine[m - 1] - y * sine[m - 1];
      sine[m] = x * sine[m - 1] + y * cosine[m - 1];
    }
    const Floats z2 = z * z;
    legendre[0] = Floats(1.f);
    if (degree < 1) return;
    legendre[1] = z;
    legendre[2] = Floats(-1.f);
    if (degree < 2) return;
    legendre[3] = 1.5f * z2 - 0.5f;
    legendre[4] = -3.f * z;
    legendre[5] = Floats(3.f);
    if (degree < 3) return;
    legendre[6] = z * (2.5f * z2 - 1.5f);
    legendre[7] = 1.5f - 7.5f * z2;
    legendre[8] = 15.f * z;
    legendre[9] = Floats(-15.f);
    if (degree < 4) return;
    legendre[10] = z2 * (4.375f * z2 - 3.75f) + 0.375f;
    legendre[11] = z * (7.5f - 17.5f * z2);
    legendre[12] = 52.5f * z2 - 7.5f;
    legendre[13] = -105.f * z;
    legendre[14] = Floats(105.f);
  }

  void values(int degree, Floats* basis) const {
    for (int l = 0; l <= degree; ++l) {
      for (int m = 0; m <= l; ++m) {
        const Floats scaled = kNorm[triangle(l, m)] * legendre[triangle(l, m)];
        basis[l * (l + 1) + m] = scaled * cosine[m];
        if (m > 0) basis[l * (l + 1) - m] = scaled * sine[m];
      }
    }
  }

  // Gradient to x, y, z (as if independent) from the one to the values.
  void gradient(int degree, const Floats* v_basis, Floats (&v)[3]) const {
    for (Floats& component : v) component = Floats(0.f);
    for (int m = 0; m <= degree; ++m) {
      Floats v_cosine(0.f), v_sine(0.f);
      for (int l = std::max(m, 1); l <= degree; ++l) {
        const Floats& vc = v_basis[l * (l + 1) + m];
        const Floats& vs = v_basis[l * (l + 1) - m];
        const float norm = kNorm[triangle(l, m)];
        if (m > 0) {
          const Floats scaled = norm * legendre[triangle(l, m)];
          v_cosine += scaled * vc;
          v_sine += scaled * vs;
        }
        if (m < l) {
          const Floats along = m > 0 ? cosine[m] * vc + sine[m] * vs : vc;
          v[2] = v[2] - norm * legendre[triangle(l, m + 1)] * along;
        }
      }
      if (m > 0) {
        const float order = static_cast<float>(m);
        v[0] += order * (cosine[m - 1] * v_cosine + sine[m - 1] * v_sine);
        v[1] += order * (cosine[m - 1] * v_sine - sine[m - 1] * v_cosine);
      }
    }
  }
};

// Sixteen splats, by index; unused lanes repeat the last one.
struct Block {
  int64_t index[kLanes];
  int count;
};

// Transposes rows[index] into columns. Whole quads; the last one overlaps its neighbour.
void gather(const float* rows, int64_t stride, int width, const Block& block, float* columns) {
  if (width < 4) {
    for (int lane = 0; lane < kLanes; ++lane)
      for (int c = 0; c < width; ++c)
        columns[c * kLanes + lane] = rows[block.index[lane] * stride + c];
    return;
  }
  for (int group = 0; group < kLanes; group += 4) {
    const float* row[4];
    for (int i = 0; i < 4; ++i) row[i] = rows + block.index[group + i] * stride;
    for (int c = 0; c < width; c += 4) {
      const int first = std::min(c, width - 4);
      Quad quads[4];
      for (int i = 0; i < 4; ++i) quads[i] = load_quad(row[i] + first);
      transpose(quads);
      for (int i = 0; i < 4; ++i) store_quad(columns + (first + i) * kLanes + group, quads[i]);
    }
  }
}

void scatter(const float* columns, int64_t stride, int width, const Block& block, float* rows) {
  if (width < 4) {
    for (int lane = 0; lane < block.count; ++lane)
      for (int c = 0; c < width; ++c)
        rows[block.index[lane] * stride + c] = columns[c * kLanes + lane];
    return;
  }
  for (int group = 0; group < block.count; group += 4) {
    for (int c = 0; c < width; c += 4) {
      const int first = std::min(c, width - 4);
      Quad quads[4];
      for (int i = 0; i < 4; ++i) quads[i] = load_quad(columns + (first + i) * kLanes + group);
      transpose(quads);
      // Unused lanes repeat a splat and hold the same numbers.
      for (int i = 0; i < 4; ++i)
        store_quad(rows + block.index[group + i] * stride + first, quads[i]);
    }
  }
}

// Calls body(block) for the visible splats in [begin, end), in blocks, and hidden(i) for the rest.
template <class Body, class Hidden>
void for_blocks(int64_t begin, int64_t end, const uint8_t* visible, const Body& body,
                const Hidden& hidden) {
  Block block;
  block.count = 0;
  for (int64_t i = begin; i < end; ++i) {
    if (visible != nullptr && !visible[i]) {
      hidden(i);
      continue;
    }
    block.index[block.count++] = i;
    if (block.count == kLanes) {
      body(block);
      block.count = 0;
    }
  }
  if (block.count == 0) return;
  for (int lane = block.count; lane < kLanes; ++lane)
    block.index[lane] = block.index[block.count - 1];
  body(block);
}

struct Model {
  const float *sh0, *shN, *means;
  Floats camera[3];
  int64_t stride;  // floats per row of shN
  int degree;

  Model(const float* sh0_rows, const float* shN_rows, const float* centres, const float* position,
        int64_t stored_terms, int64_t used_degree)
      : sh0(sh0_rows), shN(shN_rows), means(centres),
        camera{Floats(position[0]), Floats(position[1]), Floats(position[2])},
        stride(3 * (stored_terms - 1)), degree(static_cast<int>(used_degree)) {}

  int terms() const { return (degree + 1) * (degree + 1); }
};

struct Evaluated {
  Floats direction[3], inverse_length;
  Floats basis[kMaxTerms];
  Floats colour[3];  // before the cut at zero
  alignas(64) float coefficients[kMaxColumns * kLanes];
};

Harmonics evaluate(const Model& model, const Block& block, Evaluated& e) {
  const int terms = model.terms();
  alignas(64) float centres[3 * kLanes];
  gather(model.means, 3, 3, block, centres);
  gather(model.sh0, 3, 3, block, e.coefficients);
  if (terms > 1) {
    gather(model.shN, model.stride, 3 * (terms - 1), block, e.coefficients + 3 * kLanes);
  }
  Floats offset[3];
  for (int i = 0; i < 3; ++i) offset[i] = load(centres + i * kLanes) - model.camera[i];
  const Floats length2 = offset[0] * offset[0] + offset[1] * offset[1] + offset[2] * offset[2];
  e.inverse_length = Floats(1.f) / max(sqrt(length2), Floats(kMinLength));
  for (int i = 0; i < 3; ++i) e.direction[i] = offset[i] * e.inverse_length;
  const Harmonics harmonics(e.direction[0], e.direction[1], e.direction[2], model.degree);
  harmonics.values(model.degree, e.basis);
  for (Floats& colour : e.colour) colour = Floats(0.5f);
  for (int k = 0; k < terms; ++k)
    for (int c = 0; c < 3; ++c)
      e.colour[c] += e.basis[k] * load(e.coefficients + (3 * k + c) * kLanes);
  return harmonics;
}

struct Gradients {
  float *sh0, *shN, *means;  // the last two may be null
};

void backward_block(const Model& model, const Block& block, const float* v_colours,
                    const Gradients& v) {
  Evaluated e;
  const Harmonics harmonics = evaluate(model, block, e);
  const int terms = model.terms();
  alignas(64) float rows[3 * kLanes];
  gather(v_colours, 3, 3, block, rows);
  Floats v_colour[3];
  for (int c = 0; c < 3; ++c)
    v_colour[c] = keep(e.colour[c] >= Floats(0.f), load(rows + c * kLanes));
  Floats v_basis[kMaxTerms];
  for (int k = 0; k < terms; ++k) {
    v_basis[k] = Floats(0.f);
    for (int c = 0; c < 3; ++c) {
      float* coefficient = e.coefficients + (3 * k + c) * kLanes;
      v_basis[k] += v_colour[c] * load(coefficient);
      store(coefficient, v_colour[c] * e.basis[k]);  // now the gradient to it
    }
  }
  scatter(e.coefficients, 3, 3, block, v.sh0);
  if (terms > 1 && v.shN != nullptr) {
    scatter(e.coefficients + 3 * kLanes, model.stride, 3 * (terms - 1), block, v.shN);
  }
  if (v.means == nullptr) return;
  Floats v_direction[3];
  harmonics.gradient(model.degree, v_basis, v_direction);
  // Moving along the direction changes nothing.
  Floats along(0.f);
  for (int i = 0; i < 3; ++i) along += v_direction[i] * e.direction[i];
  for (int i = 0; i < 3; ++i) {
    store(rows + i * kLanes, (v_direction[i] - along * e.direction[i]) * e.inverse_length);
  }
  scatter(rows, 3, 3, block, v.means);
}

void zero(float* rows, int64_t stride, int64_t row) {
  std::fill_n(rows + row * stride, stride, 0.f);
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// colours = max(0.5 + sum_k c_k Y_k(d), 0), d from the camera to the centre; 0 where hidden.
// sh0 [count,1,3], shN [count,terms-1,3] with terms of all stored degrees. visible may be null.
SPLATIR_EXPORT int64_t splatir_radiance_forward(
    int64_t num_threads, int64_t count, int64_t terms, int64_t degree, const float* sh0,
    const float* shN, const float* means, const float* camera_position, const uint8_t* visible,
    float* colours) {
  const Model model(sh0, shN, means, camera_position, terms, degree);
  parallel_ranges(num_threads, count, [&](int, int64_t begin, int64_t end) {
    const auto body = [&](const Block& block) {
      Evaluated e;
      evaluate(model, block, e);
      alignas(64) float rows[3 * kLanes];
      for (int c = 0; c < 3; ++c) store(rows + c * kLanes, max(e.colour[c], Floats(0.f)));
      scatter(rows, 3, 3, block, colours);
    };
    for_blocks(begin, end, visible, body, [&](int64_t i) { zero(colours, 3, i); });
  });
  return 0;
}

// v_shN and v_means may be null.
SPLATIR_EXPORT int64_t splatir_radiance_backward(
    int64_t num_threads, int64_t count, int64_t terms, int64_t degree, const float* sh0,
    const float* shN, const float* means, const float* camera_position, const uint8_t* visible,
    const float* v_colours, float* v_sh0, float* v_shN, float* v_means) {
  const Model model(sh0, shN, means, camera_position, terms, degree);
  const int64_t used = 3 * (model.terms() - 1);
  parallel_ranges(num_threads, count, [&](int, int64_t begin, int64_t end) {
    if (v_shN != nullptr && used < model.stride) {
      std::fill(v_shN + begin * model.stride, v_shN + end * model.stride, 0.f);
    }
    const auto hidden = [&](int64_t i) {
      zero(v_sh0, 3, i);
      if (v_shN != nullptr) zero(v_shN, model.stride, i);
      if (v_means != nullptr) zero(v_means, 3, i);
    };
    const auto body = [&](const Block& block) {
      backward_block(model, block, v_colours, {v_sh0, v_shN, v_means});
    };
    for_blocks(begin, end, visible, body, hidden);
  });
  return 0;
}
