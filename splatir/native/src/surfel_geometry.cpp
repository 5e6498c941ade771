// Set-up of one surfel in double precision: hit coefficients, their bounds, their chain rule.
#include "surfel_geometry.h"

#include <algorithm>
#include <cmath>

namespace splatir {
namespace {

struct Row {
  double x, y, z;
};
Row operator+(Row a, Row b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
Row operator-(Row a, Row b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
Row operator*(double s, Row a) { return {s * a.x, s * a.y, s * a.z}; }
Row cross(Row a, Row b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
Row row_at(const double* rows, int i) { return {rows[3 * i], rows[3 * i + 1], rows[3 * i + 2]}; }

// Beyond this distance from the image the low-pass shows nothing, whatever its centre. Clamping the
// centre there keeps the offsets of a bounding box that ran off to infinity exact in float32.
constexpr double kMargin = 64.0;

double clamp_to_margin(double coordinate, int64_t size) {
  return std::min(std::max(coordinate, -kMargin), static_cast<double>(size) + kMargin);
}

struct Hits {
  double x, y;                  // Where offsets start.
  Row plane_x, plane_y, row_z;  // Planes of that point.
  Row at_centre, per_dx, per_dy;
  double scale;  // Hits are homogeneous: this one makes w about one at the centre.
};

Hits hits_of(const float* mean2d, const double* rows, ImageSize image) {
  Hits hits;
  hits.x = clamp_to_margin(mean2d[0], image.width);
  hits.y = clamp_to_margin(mean2d[1], image.height);
  hits.row_z = row_at(rows, 2);
  hits.plane_x = hits.x * hits.row_z - row_at(rows, 0);
  hits.plane_y = hits.y * hits.row_z - row_at(rows, 1);
  hits.at_centre = cross(hits.plane_x, hits.plane_y);
  hits.per_dx = cross(hits.row_z, hits.plane_y);
  hits.per_dy = cross(hits.plane_x, hits.row_z);
  hits.scale = 1.0 / std::max({std::fabs(hits.at_centre.z), std::fabs(hits.per_dx.z),
                               std::fabs(hits.per_dy.z)});
  return hits;
}

// sqrt(log2(e) / 2): squared hits become exponents of two.
constexpr double kHitScale = 0.84932180028801905;

struct Box {
  double x_low, x_high, y_low, y_high;
};

struct Ellipse {
  double x, y, cov_xx, cov_xy, cov_yy;
};
enum class Conic { kEllipse, kEmpty, kUnbounded };

// The pixels with |hit|^2 <= limit: inside a conic. It is no ellipse where the surfel reaches the
// plane through the eye parallel to the image.
Conic conic_of(const Hits& hits, double limit, Ellipse* ellipse) {
  const Row scaled[3] = {hits.scale * hits.at_centre, hits.scale * hits.per_dx,
                         hits.scale * hits.per_dy};
  const auto form = [&](int i, int j) {
    const Row &a = scaled[i], &b = scaled[j];
    return a.x * b.x + a.y * b.y - limit * a.z * b.z;
  };
  const double xx = form(1, 1), xy = form(1, 2), yy = form(2, 2);
  const double determinant = xx * yy - xy * xy;
  // Nearer to a parabola than this, doubles do not tell its kind.
  constexpr double kLeastDeterminant = 1e-11;
  if (!(xx > 0 && determinant > kLeastDeterminant * xx * yy)) return Conic::kUnbounded;
  const double dx = (xy * form(0, 2) - yy * form(0, 1)) / determinant;
  const double dy = (xy * form(0, 1) - xx * form(0, 2)) / determinant;
  const double level = -(form(0, 0) + dx * form(0, 1) + dy * form(0, 2));
  if (!(level > 0)) return Conic::kEmpty;
  *ellipse = {hits.x + dx, hits.y + dy, level * yy / determinant, -level * xy / determinant,
              level * xx / determinant};
  return Conic::kEllipse;
}

void set_reach(const Ellipse& ellipse, SurfelReach* reach) {
  const double determinant = ellipse.cov_xx * ellipse.cov_yy - ellipse.cov_xy * ellipse.cov_xy;
  reach->x = static_cast<float>(ellipse.x);
  reach->y = static_cast<float>(ellipse.y);
  reach->xx = static_cast<float>(ellipse.cov_yy / determinant);
  reach->xy = static_cast<float>(-ellipse.cov_xy / determinant);
  reach->yy = static_cast<float>(ellipse.cov_xx / determinant);
  reach->y_of_x = -reach->xy / reach->yy;
  reach->x_of_y = -reach->xy / reach->xx;
}

// Bounds of all pixels that the surfel reaches; fills `reach`.
Box bound(const Hits& hits, double limit, SurfelReach* reach) {
  const double radius = std::sqrt(0.5 * limit);
  reach->disc_squared = static_cast<float>(0.5 * limit);
  Box box{hits.x - radius, hits.x + radius, hits.y - radius, hits.y + radius};
  Ellipse ellipse{hits.x, hits.y, 0.0, 0.0, 0.0};
  if (conic_of(hits, limit, &ellipse) == Conic::kUnbounded) {
    *reach = {reach->x, reach->y, 0.f, 0.f, 0.f, 0.f, 0.f, reach->disc_squared};
    return {-HUGE_VAL, HUGE_VAL, -HUGE_VAL, HUGE_VAL};
  }
  // Thickened to a tenth of a pixel and to an aspect ratio that float32 forms survive.
  const double thickening = 0.01 + 1e-5 * (ellipse.cov_xx + ellipse.cov_yy);
  ellipse.cov_xx += thickening;
  ellipse.cov_yy += thickening;
  set_reach(ellipse, reach);
  const double half_x = std::sqrt(kReachLimit * ellipse.cov_xx);
  const double half_y = std::sqrt(kReachLimit * ellipse.cov_yy);
  box.x_low = std::min(box.x_low, ellipse.x - half_x);
  box.x_high = std::max(box.x_high, ellipse.x + half_x);
  box.y_low = std::min(box.y_low, ellipse.y - half_y);
  box.y_high = std::max(box.y_high, ellipse.y + half_y);
  return box;
}

// Tiles [first, last) of one axis that mean +- radius overlaps, as gsplat rounds in float32.
void cut_to_rectangle(float mean, int32_t radius, uint16_t* first, uint16_t* last) {
  const float centre = mean / kTileSize, extent = static_cast<float>(radius) / kTileSize;
  const float low = std::floor(centre - extent), high = std::ceil(centre + extent);
  if (low > *first) *first = low < *last ? static_cast<uint16_t>(low) : *last;
  if (high < *last) *last = high > *first ? static_cast<uint16_t>(high) : *first;
}

}  // namespace

TileRect make_surfel(const ProjectedSurfel& in, ImageSize image, Surfel* surfel,
                     SurfelReach* reach) {
  constexpr TileRect kNowhere{0, 0, 0, 0};
  if (!(in.radii[0] > 0 && in.radii[1] > 0 && in.opacity >= kMinAlpha)) return kNowhere;
  const Hits hits = hits_of(in.mean2d, in.rows, image);
  // The plane through the eye that never meets a ray at one point, and what is not a number.
  if (!std::isfinite(hits.scale)) return kNowhere;
  // Where |hit|^2 is above this, alpha is below 1/255; slightly more, for the rounding of exp2.
  const double limit = 2.0 * std::log(255.0 * in.opacity) * 1.0001 + 1e-4;
  const Box box = bound(hits, limit, reach);
  TileRect rect = tiles_of_pixel_centres(
      static_cast<float>(box.x_low), static_cast<float>(box.x_high), static_cast<float>(box.y_low),
      static_cast<float>(box.y_high), (image.width + kTileSize - 1) / kTileSize,
      (image.height + kTileSize - 1) / kTileSize);
  cut_to_rectangle(in.mean2d[0], in.radii[0], &rect.x0, &rect.x1);
  cut_to_rectangle(in.mean2d[1], in.radii[1], &rect.y0, &rect.y1);
  if (rect.count() == 0) return kNowhere;
  const double uv = kHitScale * hits.scale;
  const auto f = [](double value) { return static_cast<float>(value); };
  *surfel = {f(hits.x), f(hits.y), std::log2(in.opacity), in.depth,
             f(uv * hits.at_centre.x), f(uv * hits.per_dx.x), f(uv * hits.per_dy.x),
             f(uv * hits.at_centre.y), f(uv * hits.per_dx.y), f(uv * hits.per_dy.y),
             f(hits.scale * hits.at_centre.z), f(hits.scale * hits.per_dx.z),
             f(hits.scale * hits.per_dy.z), {}};
  return rect;
}

void gradient_of_rows(const float* mean2d, const double* rows, ImageSize image,
                      const HitGradient& gradient, double* grad_rows) {
  const Hits hits = hits_of(mean2d, rows, image);
  // The scale is not differentiated: the quotients that alpha sees do not depend on it.
  const double uv = kHitScale * hits.scale;
  const auto column = [&](int i) {
    return Row{uv * gradient.u[i], uv * gradient.v[i], hits.scale * gradient.w[i]};
  };
  const Row at_centre = column(0), per_dx = column(1), per_dy = column(2);
  const Row plane_x = cross(hits.plane_y, at_centre) + cross(hits.row_z, per_dy);
  const Row plane_y = cross(at_centre, hits.plane_x) + cross(per_dx, hits.row_z);
  const Row row_z = cross(hits.plane_y, per_dx) + cross(per_dy, hits.plane_x) + hits.x * plane_x +
                    hits.y * plane_y;
  const double out[9] = {-plane_x.x, -plane_x.y, -plane_x.z, -plane_y.x, -plane_y.y,
                         -plane_y.z, row_z.x,    row_z.y,    row_z.z};
  for (int i = 0; i < 9; ++i) grad_rows[i] = out[i];
}

PlaneTrace trace_planes(const float* mean2d, const double* rows, ImageSize image) {
  const Hits hits = hits_of(mean2d, rows, image);
  const double uv = kHitScale * hits.scale;
  const auto f = [uv](double value) { return static_cast<float>(uv * value); };
  return {f(hits.plane_x.x), f(hits.plane_x.y), f(hits.plane_y.x),
          f(hits.plane_y.y), f(hits.row_z.x),   f(hits.row_z.y)};
}

}  // namespace splatir
