// How far an image is from its photo: mean absolute difference, mean SSIM, and their gradient.
//
// Images are channels-last, so a row is one array of 3 * width numbers in which the window's taps
// lie 3 apart: no channel is ever taken out. SSIM needs four windowed means only (a, b, aa + bb and
// ab, because the variances occur as a sum), its gradient three more.
#include <algorithm>
#include <cmath>

#include "abi.h"
#include "buffers.h"
#include "simd.h"
#include "threads.h"

namespace splatir {
namespace {

constexpr int kReach = 5;
constexpr int kTaps = 2 * kReach + 1;
constexpr int kChannels = 3;
constexpr int kMargin = kReach * kChannels;  // zeros on either side of a row
// Rows of one task; each recomputes the products of 2 * kReach rows of its neighbours.
constexpr int64_t kStrip = 16;
constexpr int kGroup = 4;  // rows that are blurred together; divides kStrip
constexpr float kC1 = 1e-4f, kC2 = 9e-4f;  // (0.01 L)^2 and (0.03 L)^2 for data range L = 1
constexpr float kSigma = 1.5f;

struct Window {
  float weight[kTaps];

  Window() {
    double total = 0.0, values[kTaps];
    for (int k = 0; k < kTaps; ++k) {
      const double offset = (k - kReach) / static_cast<double>(kSigma);
      total += values[k] = std::exp(-0.5 * offset * offset);
    }
    for (int k = 0; k < kTaps; ++k) weight[k] = static_cast<float>(values[k] / total);
  }
};

struct Image {
  int64_t height, width;
  const float *image, *photo, *pixel_weights;  // pixel_weights may be null

  int64_t row() const { return kChannels * width; }
  // Room for one row with margins, rounded up for whole vectors.
  int64_t padded_row() const { return (row() + 2 * kMargin + 2 * kLanes) / kLanes * kLanes; }
};

// Derivatives of the SSIM index by the windowed means of a, of aa + bb and of ab.
enum Map { kByMean, kBySquares, kByProduct, kMaps };
// Windowed means.
enum Moment { kMeanA, kMeanB, kSquares, kProduct, kMoments };

struct Scratch {
  Buffer<float> maps;      // kMaps rows for each image row
  Buffer<float> strips;    // per thread
  Buffer<float> zero_row;
  Buffer<double> row_sums;  // absolute difference and SSIM of each row
};

// Sixteen-lane sums on every instruction set, so that all add in the same order.
double sum_row(float* values, int64_t count) {
  const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
  std::fill(values + count, values + padded, 0.f);
  Floats total(0.f);
  for (int64_t x = 0; x < padded; x += kLanes) total += load(values + x);
  return sum(total);
}

// Four rows below each other, row r with out[r * stride + x] = sum_k weight[k] rows[r + k][x]. Four
// at a time need 14 loads instead of 44.
void blur_down(const Window& window, const float* const (&rows)[kTaps + kGroup - 1], int64_t count,
               float* __restrict out, int64_t stride) {
  static_assert(kGroup == 4, "written out for four rows");
  const float *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3], *r4 = rows[4];
  const float *r5 = rows[5], *r6 = rows[6], *r7 = rows[7], *r8 = rows[8], *r9 = rows[9];
  const float *r10 = rows[10], *r11 = rows[11], *r12 = rows[12], *r13 = rows[13];
  float* __restrict out1 = out + stride;
  float* __restrict out2 = out + 2 * stride;
  float* __restrict out3 = out + 3 * stride;
  const float* g = window.weight;
  const float g0 = g[0], g1 = g[1], g2 = g[2], g3 = g[3], g4 = g[4], g5 = g[5];
  for (int64_t x = 0; x < count; ++x) {
    const float v3 = r3[x], v4 = r4[x], v5 = r5[x], v6 = r6[x], v7 = r7[x], v8 = r8[x];
    const float v1 = r1[x], v2 = r2[x], v9 = r9[x], v10 = r10[x], v11 = r11[x], v12 = r12[x];
    out[x] = g0 * r0[x] + g1 * v1 + g2 * v2 + g3 * v3 + g4 * v4 + g5 * v5 + g4 * v6 + g3 * v7 +
             g2 * v8 + g1 * v9 + g0 * v10;
    out1[x] = g0 * v1 + g1 * v2 + g2 * v3 + g3 * v4 + g4 * v5 + g5 * v6 + g4 * v7 + g3 * v8 +
              g2 * v9 + g1 * v10 + g0 * v11;
    out2[x] = g0 * v2 + g1 * v3 + g2 * v4 + g3 * v5 + g4 * v6 + g5 * v7 + g4 * v8 + g3 * v9 +
              g2 * v10 + g1 * v11 + g0 * v12;
    out3[x] = g0 * v3 + g1 * v4 + g2 * v5 + g3 * v6 + g4 * v7 + g5 * v8 + g4 * v9 + g3 * v10 +
              g2 * v11 + g1 * v12 + g0 * r13[x];
  }
}

// The same along a row; `at` is the first tap.
SPLATIR_INLINE float blur_across(const float* g, const float* at) {
  return g[0] * at[0] + g[1] * at[3] + g[2] * at[6] + g[3] * at[9] + g[4] * at[12] +
         g[5] * at[15] + g[4] * at[18] + g[3] * at[21] + g[2] * at[24] + g[1] * at[27] +
         g[0] * at[30];
}

// SSIM index and its derivatives along a row, from column-blurred moments with margins.
void ssim_row(const Window& window, const float* moments, int64_t stride, int64_t count,
              float* __restrict index, float* __restrict by_mean, float* __restrict by_squares,
              float* __restrict by_product) {
  const float *column_a = moments + kMeanA * stride, *column_b = moments + kMeanB * stride;
  const float *column_s = moments + kSquares * stride, *column_p = moments + kProduct * stride;
  const float* g = window.weight;
  for (int64_t x = 0; x < count; ++x) {
    const float a = blur_across(g, column_a + x), b = blur_across(g, column_b + x);
    const float ab = a * b, squares = a * a + b * b;
    const float covariance = blur_across(g, column_p + x) - ab;
    const float variances = blur_across(g, column_s + x) - squares;
    const float n1 = 2.f * ab + kC1, n2 = 2.f * covariance + kC2;
    const float d1 = squares + kC1, d2 = variances + kC2;
    const float inverse = 1.f / (d1 * d2);
    const float value = n1 * n2 * inverse;
    const float v_product = 2.f * n1 * inverse;
    const float v_squares = -value * d1 * inverse;
    index[x] = value;
    by_product[x] = v_product;
    by_squares[x] = v_squares;
    // Luminance, then the variances and the covariance through the means that they subtract.
    by_mean[x] = 2.f * inverse * (b * n2 - a * value * d2) - 2.f * a * v_squares - b * v_product;
  }
}

// Adds scale * d(sum of SSIM)/da to a row of the gradient.
void ssim_gradient_row(const Window& window, const float* maps, int64_t stride, int64_t count,
                       const float* a, const float* b, float scale, float* __restrict gradient) {
  const float* mean = maps + kByMean * stride;
  const float* squares = maps + kBySquares * stride;
  const float* product = maps + kByProduct * stride;
  const float* g = window.weight;
  for (int64_t x = 0; x < count; ++x) {
    gradient[x] += scale * (blur_across(g, mean + x) + 2.f * a[x] * blur_across(g, squares + x) +
                            b[x] * blur_across(g, product + x));
  }
}

// Weighted absolute differences of a row; gradient, where wanted, is set to scale * sign * weight.
void difference_row(const Image& images, int64_t y, float scale, float* __restrict weights,
                    float* __restrict differences, float* __restrict gradient) {
  const int64_t count = images.row();
  const float *a = images.image + y * count, *b = images.photo + y * count;
  if (images.pixel_weights != nullptr) {
    const float* from = images.pixel_weights + y * images.width;
    for (int64_t x = 0; x < images.width; ++x)
      for (int c = 0; c < kChannels; ++c) weights[kChannels * x + c] = from[x];
  } else {
    std::fill_n(weights, count, 1.f);
  }
  for (int64_t x = 0; x < count; ++x) {
    const float difference = a[x] - b[x];
    differences[x] = weights[x] * (difference < 0.f ? -difference : difference);
  }
  if (gradient == nullptr) return;
  for (int64_t x = 0; x < count; ++x) {
    const float difference = a[x] - b[x];
    const float sign = (difference > 0.f ? 1.f : 0.f) - (difference < 0.f ? 1.f : 0.f);
    gradient[x] = scale * sign * weights[x];
  }
}

// What one thread works in: `rows` padded rows.
struct Workspace {
  float* start;
  int64_t stride;

  float* row(int64_t i) const { return start + i * stride; }
};

constexpr int64_t kProductRows = kStrip + 2 * kReach;
constexpr int64_t kWorkspaceRows = 2 * kProductRows + kMoments * kGroup + 1;

// Blurs `images` images down a group of rows that begins at y. row_of(image, source) is a row of
// an image; image m, row r goes to blurred + (m * kGroup + r) * stride, between margins.
template <class RowOf>
void blur_group(const Image& size, const Window& window, int64_t y, int images, const RowOf& row_of,
                const float* zero_row, float* blurred, int64_t stride) {
  for (int m = 0; m < images; ++m) {
    const float* rows[kTaps + kGroup - 1];
    for (int k = 0; k < kTaps + kGroup - 1; ++k) {
      const int64_t source = y + k - kReach;
      // Rows of the last group may lie outside the image; nobody reads them.
      rows[k] = source >= 0 && source < size.height ? row_of(m, source) : zero_row;
    }
    blur_down(window, rows, size.row(), blurred + m * kGroup * stride + kMargin, stride);
  }
}

// SSIM of the rows [begin, end): their sums, and the maps that the gradient is made of.
void ssim_strip(const Image& images, const Window& window, int64_t begin, int64_t end,
                const Workspace& work, Scratch& scratch) {
  const int64_t count = images.row(), stride = work.stride;
  const int64_t first = begin - kReach;
  for (int64_t y = std::max<int64_t>(first, 0); y < std::min(end + kReach, images.height); ++y) {
    const float *a = images.image + y * count, *b = images.photo + y * count;
    float* __restrict squares = work.row(y - first);
    float* __restrict products = work.row(kProductRows + y - first);
    for (int64_t x = 0; x < count; ++x) {
      squares[x] = a[x] * a[x] + b[x] * b[x];
      products[x] = a[x] * b[x];
    }
  }
  const auto row_of = [&](int moment, int64_t y) -> const float* {
    if (moment == kMeanA) return images.image + y * count;
    if (moment == kMeanB) return images.photo + y * count;
    return work.row((moment == kSquares ? 0 : kProductRows) + y - first);
  };
  float* moments = work.row(2 * kProductRows);
  float* index = work.row(2 * kProductRows + kMoments * kGroup);
  std::fill_n(moments, kMoments * kGroup * stride, 0.f);
  for (int64_t group = begin; group < end; group += kGroup) {
    blur_group(images, window, group, kMoments, row_of, scratch.zero_row.data(), moments, stride);
    for (int64_t y = group; y < std::min(group + kGroup, end); ++y) {
      float* maps = scratch.maps.data() + y * kMaps * stride;
      ssim_row(window, moments + (y - group) * stride, kGroup * stride, count, index,
               maps + kByMean * stride, maps + kBySquares * stride, maps + kByProduct * stride);
      scratch.row_sums[2 * y + 1] = sum_row(index, count);
    }
  }
}

void ssim_gradient_strip(const Image& images, const Window& window, int64_t begin, int64_t end,
                         float scale, const Workspace& work, Scratch& scratch, float* gradient) {
  const int64_t count = images.row(), stride = work.stride;
  const auto row_of = [&](int map, int64_t y) -> const float* {
    return scratch.maps.data() + (y * kMaps + map) * stride;
  };
  float* blurred = work.row(0);
  std::fill_n(blurred, kMaps * kGroup * stride, 0.f);
  for (int64_t group = begin; group < end; group += kGroup) {
    blur_group(images, window, group, kMaps, row_of, scratch.zero_row.data(), blurred, stride);
    for (int64_t y = group; y < std::min(group + kGroup, end); ++y) {
      ssim_gradient_row(window, blurred + (y - group) * stride, kGroup * stride, count,
                        images.image + y * count, images.photo + y * count, scale,
                        gradient + y * count);
    }
  }
}

ObjectPool<Scratch>& scratches() {
  static auto* pool = new ObjectPool<Scratch>;
  return *pool;
}

struct Wanted {
  float difference_weight, ssim_weight;
  float* gradient;  // may be null
};

void compare(int64_t num_threads, const Image& images, const Wanted& wanted, Scratch& scratch,
             double* means) {
  static const Window window;
  const int64_t stride = images.padded_row(), count = images.row();
  const int64_t strips = (images.height + kStrip - 1) / kStrip;
  const double values = static_cast<double>(images.height) * static_cast<double>(count);
  const float scale = static_cast<float>(1.0 / values);
  scratch.maps.reserve(images.height * kMaps * stride);
  float* work = scratch.strips.reserve(std::max<int64_t>(num_threads, 1) * kWorkspaceRows * stride);
  std::fill_n(scratch.zero_row.reserve(stride), stride, 0.f);
  double* row_sums = scratch.row_sums.reserve(2 * images.height);
  std::fill_n(row_sums, 2 * images.height, 0.0);
  const auto each_strip = [&](const auto& body) {
    parallel_tasks(num_threads, strips, [&](int thread, int64_t strip) {
      const Workspace own{work + thread * kWorkspaceRows * stride, stride};
      body(own, strip * kStrip, std::min((strip + 1) * kStrip, images.height));
    });
  };
  const bool has_ssim = wanted.ssim_weight != 0.f;
  if (has_ssim) {
    each_strip([&](const Workspace& own, int64_t begin, int64_t end) {
      ssim_strip(images, window, begin, end, own, scratch);
    });
  }
  each_strip([&](const Workspace& own, int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) {
      float* gradient = wanted.gradient == nullptr ? nullptr : wanted.gradient + y * count;
      difference_row(images, y, scale * wanted.difference_weight, own.row(0), own.row(1), gradient);
      row_sums[2 * y] = sum_row(own.row(1), count);
    }
    if (has_ssim && wanted.gradient != nullptr) {
      ssim_gradient_strip(images, window, begin, end, scale * wanted.ssim_weight, own, scratch,
                          wanted.gradient);
    }
  });
  means[0] = means[1] = 0.0;
  for (int64_t y = 0; y < images.height; ++y)
    for (int i = 0; i < 2; ++i) means[i] += row_sums[2 * y + i] / values;
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// Compares images [height, width, 3]. means receives the mean weighted absolute difference and the
// mean SSIM (0 if its weight is 0); gradient, unless null, that of difference_weight * mean[0] +
// ssim_weight * mean[1] by the image. pixel_weights [height, width] may be null.
// Returns 1, or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_compare_images(
    int64_t num_threads, int64_t height, int64_t width, const float* image, const float* photo,
    const float* pixel_weights, float difference_weight, float ssim_weight, double* means,
    float* gradient) {
  Scratch* scratch = nullptr;
  try {
    scratch = scratches().acquire();
    compare(num_threads, {height, width, image, photo, pixel_weights},
            {difference_weight, ssim_weight, gradient}, *scratch, means);
    scratches().release(scratch);
    return 1;
  } catch (const std::bad_alloc&) {
    delete scratch;
    return 0;
  }
}
