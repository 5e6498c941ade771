// Where pixel rays hit a surfel's plane, which pixels that can colour, and the gradient back.
//
// The rows X, Y, Z of a ray transform map surfel coordinates (s, t, 1), in standard deviations, to
// (x z, y z, z) at pixel (x, y) and camera depth z. Pixel (x, y) sees the surfel where the planes
// x Z - X and y Z - Y meet: their cross product is (s w, t w, w) up to scale. About a fixed point
// of the image it is linear in the offset, as the product of both offsets multiplies Z x Z = 0, so
// nine coefficients hold all of it.
#pragma once
#include <cstdint>

#include "tiles.h"

namespace splatir {

// What evaluating a pixel needs. With (u, v, w) linear in the offset from (x, y) to the pixel's
// centre, alpha = 2^(log2_opacity - min(g, kBlurExponent |offset|^2)), g = (u^2 + v^2) / w^2.
struct Surfel {
  float x, y;  // Centre of the low-pass, pixels.
  float log2_opacity;
  float depth;  // Camera z of the surfel's centre.
  float u, u_dx, u_dy;
  float v, v_dx, v_dy;
  float w, w_dx, w_dy;
  float unused[3];
};
static_assert(sizeof(Surfel) == 64, "one cache line");

constexpr float kMinAlpha = 1.0f / 255.0f;
constexpr float kMaxAlpha = 0.999f;
constexpr float kMinTransmittance = 1e-4f;
// The low-pass has a variance of half a square pixel (Huang et al. 2024, eq. 11): this is log2(e).
constexpr float kBlurExponent = 1.44269504f;

// Bounds of the pixels whose alpha can reach 1/255: an ellipse about (x, y), where the quadratic
// form is below kReachLimit, united with the disc of the low-pass about the surfel's own centre.
struct SurfelReach {
  float x, y;
  float xx, xy, yy;      // Of xx dx^2 + 2 xy dx dy + yy dy^2.
  float y_of_x, x_of_y;  // Where the form is least on a vertical, a horizontal line through (1, 1).
  float disc_squared;    // Square pixels.
};
// One, plus room for the rounding of forms as thin as `make_surfel` lets them be.
constexpr float kReachLimit = 1.02f;

// One surfel as projection gives it.
struct ProjectedSurfel {
  const float* mean2d;   // [2], pixels.
  const double* rows;    // [3][3], X, Y, Z.
  const int32_t* radii;  // [2], pixels.
  float depth, opacity;
};

struct ImageSize {
  int64_t width, height;
};

// Fills `surfel` and `reach`. Returns the tiles to look at: gsplat's rectangle, mean2d +- radii
// rounded out to tiles (which cuts contributions), less the tiles that the surfel cannot reach.
// A surfel that contributes nowhere gets no tiles.
TileRect make_surfel(const ProjectedSurfel& in, ImageSize image, Surfel* surfel,
                     SurfelReach* reach);

// dL/d of the coefficients in Surfel.
struct HitGradient {
  float u[3], v[3], w[3];  // Constant, per dx, per dy.
};

// Gradient of the rows [3][3] from that of the coefficients.
void gradient_of_rows(const float* mean2d, const double* rows, ImageSize image,
                      const HitGradient& gradient, double* grad_rows);

// The planes' first two components, in the units of dL/d(u, v): per pixel,
//   dL/dX_z = g_u (y_y + dy z_y) - g_v (y_x + dy z_x),
//   dL/dY_z = g_v (x_x + dx z_x) - g_u (x_y + dx z_y).
struct PlaneTrace {
  float x_x, x_y, y_x, y_y, z_x, z_y;
};
PlaneTrace trace_planes(const float* mean2d, const double* rows, ImageSize image);

}  // namespace splatir
