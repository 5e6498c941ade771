// How unevenly buffers change from pixel to pixel, and the gradients of that.
//
// Both terms are sums over links along rows and columns, each of which pulls at the pixels that it
// joins. Edge-aware variation joins a pixel with the next one: |difference|, less where the photo
// has an edge. Bending joins a pixel with the one before and the next one: the length of the second
// difference, less where depth jumps. A thread owns rows, and computes the links down that end in
// them or begin in them: gradients are gathered, and no sum depends on the number of threads.
#include <algorithm>
#include <cmath>

#include "abi.h"
#include "buffers.h"
#include "simd.h"
#include "threads.h"

namespace splatir {
namespace {

constexpr float kLog2E = 1.44269504f;
constexpr int64_t kMargin = kLanes;  // on either side of a row

struct Scratch {
  Buffer<float> rows;  // per thread
  Buffer<double> row_sums;
};

// One thread's rows; those of image row y lie in slot y mod 3. Zero left and right of the image.
class Rows {
 public:
  static int64_t count(int64_t channels) { return 4 * channels + 2; }
  static int64_t stride_of(int64_t width) {
    return (width + kLanes - 1) / kLanes * kLanes + 2 * kMargin;
  }

  Rows(float* start, int64_t width, int64_t channels)
      : start_(start), stride_(stride_of(width)), channels_(channels) {
    std::fill_n(start, count(channels) * stride_, 0.f);
  }

  // Pulls of the links down at row y, and of those across, one row per channel.
  float* down(int64_t y) const { return row((y + 3) % 3 * channels_); }
  float* across() const { return row(3 * channels_); }
  float* weight() const { return row(4 * channels_); }
  float* cost() const { return row(4 * channels_ + 1); }
  int64_t stride() const { return stride_; }
  int64_t channels() const { return channels_; }

 private:
  float* row(int64_t i) const { return start_ + i * stride_ + kMargin; }

  float* start_;
  int64_t stride_, channels_;
};

// weight[x] = 2^weight[x]; the row has room for whole blocks.
void exponentials(float* weight, int64_t count) {
  for (int64_t x = 0; x < count; x += kLanes) store(weight + x, exp2(load(weight + x)));
}

// A link joins pixel `at` with `at + step`.
struct EdgeAware {
  static constexpr int64_t kBefore = 0;  // pixels before `at` that a link joins
  static constexpr float kOwn = -1.f;    // share of a link's pull on pixel `at`

  int64_t channels;
  const float *values, *photo, *alpha, *sharpness;

  void weigh(int64_t at, int64_t step, int64_t count, float* __restrict weight) const {
    for (int64_t x = 0; x < count; ++x) {
      const float *here = photo + 3 * (at + x), *next = here + 3 * step;
      const float edge =
          std::abs(next[0] - here[0]) + std::abs(next[1] - here[1]) + std::abs(next[2] - here[2]);
      weight[x] = -kLog2E / 3.f * edge * std::min(sharpness[at + x], sharpness[at + x + step]);
    }
    exponentials(weight, count);
    for (int64_t x = 0; x < count; ++x) weight[x] *= std::min(alpha[at + x], alpha[at + x + step]);
  }

  void pull(int64_t at, int64_t step, int64_t count, const float* __restrict weight,
            float* __restrict cost, float* __restrict pulls, int64_t stride) const {
    std::fill_n(cost, count, 0.f);
    for (int64_t c = 0; c < channels; ++c) {
      const float *here = values + channels * at + c, *next = here + channels * step;
      float* __restrict out = pulls + c * stride;
      for (int64_t x = 0; x < count; ++x) {
        const float difference = next[channels * x] - here[channels * x];
        const float slope = difference > 0.f ? weight[x] : difference < 0.f ? -weight[x] : 0.f;
        out[x] = slope;
        cost[x] += weight[x] * std::abs(difference);
      }
    }
  }
};

// A link joins pixel `at` with `at - step` and `at + step`.
struct Bending {
  static constexpr int64_t kBefore = 1;
  static constexpr float kOwn = -2.f;

  const float *normals, *alpha, *depth;
  float focal, jump, soft, min_depth;

  float nearness(int64_t at) const { return 1.f / std::max(depth[at], min_depth); }

  void weigh(int64_t at, int64_t step, int64_t count, float* __restrict weight) const {
    const float scale = -kLog2E * focal / jump;
    for (int64_t i = at; i < at + count; ++i) {
      const float bend = nearness(i - step) - 2.f * nearness(i) + nearness(i + step);
      weight[i - at] = scale * std::max(depth[i], min_depth) * std::abs(bend);
    }
    exponentials(weight, count);
    for (int64_t i = at; i < at + count; ++i)
      weight[i - at] *= std::min(alpha[i], std::min(alpha[i - step], alpha[i + step]));
  }

  void pull(int64_t at, int64_t step, int64_t count, const float* __restrict weight,
            float* __restrict cost, float* __restrict pulls, int64_t stride) const {
    for (int64_t x = 0; x < count; ++x) {
      const float* here = normals + 3 * (at + x);
      float bend[3], squared = soft * soft;
      for (int c = 0; c < 3; ++c) {
        bend[c] = here[c - 3 * step] - 2.f * here[c] + here[c + 3 * step];
        squared += bend[c] * bend[c];
      }
      const float length = std::sqrt(squared), per_length = weight[x] / length;
      for (int c = 0; c < 3; ++c) pulls[c * stride + x] = per_length * bend[c];
      cost[x] = weight[x] * (length - soft);
    }
  }
};

// Links at `count` pixels from `at` on, the first of which is column `x` of the rows; returns their
// cost.
template <class Term>
double link(const Term& term, int64_t at, int64_t step, int64_t x, int64_t count, const Rows& rows,
            float* pulls) {
  if (count <= 0) return 0.0;
  term.weigh(at, step, count, rows.weight());
  term.pull(at, step, count, rows.weight(), rows.cost(), pulls + x, rows.stride());
  double total = 0.0;
  for (int64_t i = 0; i < count; ++i) total += rows.cost()[i];
  return total;
}

// Links down at row y; none where they would leave the image.
template <class Term>
double link_down(const Term& term, int64_t height, int64_t width, int64_t y, const Rows& rows) {
  if (y >= Term::kBefore && y < height - 1)
    return link(term, y * width, width, 0, width, rows, rows.down(y));
  for (int64_t c = 0; c < rows.channels(); ++c)
    std::fill_n(rows.down(y) + c * rows.stride(), width, 0.f);
  return 0.0;
}

// The gradient of row y from the pulls of all links that join its pixels.
template <class Term>
void gather_row(int64_t width, int64_t y, float scale, const Rows& rows, float* gradient) {
  const int64_t channels = rows.channels();
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t offset = c * rows.stride();
    const float *above = rows.down(y - 1) + offset, *own = rows.down(y) + offset;
    const float *below = rows.down(y + 1) + offset, *across = rows.across() + offset;
    for (int64_t x = 0; x < width; ++x) {
      float total = above[x] + across[x - 1] + Term::kOwn * (own[x] + across[x]);
      if (Term::kBefore > 0) total += below[x] + across[x + 1];
      gradient[channels * x + c] = scale * total;
    }
  }
}

// Sum of the costs times scale, and its gradient.
template <class Term>
double vary(int64_t num_threads, int64_t height, int64_t width, int64_t channels, const Term& term,
            float scale, float* gradient, Scratch& scratch) {
  const int64_t per_thread = Rows::count(channels) * Rows::stride_of(width);
  float* start = scratch.rows.reserve(std::max<int64_t>(num_threads, 1) * per_thread);
  double* row_sums = scratch.row_sums.reserve(height);
  parallel_ranges(num_threads, height, [&](int thread, int64_t begin, int64_t end) {
    const Rows rows(start + thread * per_thread, width, channels);
    for (int64_t y = begin - 1; y <= end; ++y) {
      const double total = link_down(term, height, width, y, rows);
      if (y >= begin && y < end) row_sums[y] = total;
      const int64_t done = y - 1;
      if (done < begin) continue;
      constexpr int64_t first = Term::kBefore;
      row_sums[done] +=
          link(term, done * width + first, 1, first, width - 1 - first, rows, rows.across());
      gather_row<Term>(width, done, scale, rows, gradient + done * width * channels);
    }
  });
  double total = 0.0;
  for (int64_t y = 0; y < height; ++y) total += row_sums[y];
  return scale * total;
}

template <class Term>
int64_t vary_in_pool(int64_t num_threads, int64_t height, int64_t width, int64_t channels,
                     const Term& term, float scale, double* value, float* gradient) {
  static auto* scratches = new ObjectPool<Scratch>;
  Scratch* scratch = nullptr;
  try {
    scratch = scratches->acquire();
    *value = vary(num_threads, height, width, channels, term, scale, gradient, *scratch);
    scratches->release(scratch);
    return 1;
  } catch (const std::bad_alloc&) {
    delete scratch;
    return 0;
  }
}

}  // namespace
}  // namespace splatir

using namespace splatir;

// Variation of values [height, width, channels] where photo [height, width, 3] has no edge, per
// value; alpha and sharpness are [height, width]. gradient, of the size of values, receives its
// gradient. Returns 1, or 0 when memory does not suffice.
SPLATIR_EXPORT int64_t splatir_edge_aware(int64_t num_threads, int64_t height, int64_t width,
                                          int64_t channels, const float* values,
                                          const float* photo, const float* alpha,
                                          const float* sharpness, double* value, float* gradient) {
  const EdgeAware term{channels, values, photo, alpha, sharpness};
  const float scale = 1.f / static_cast<float>(height * width * channels);
  return vary_in_pool(num_threads, height, width, channels, term, scale, value, gradient);
}

// Bending of normals [height, width, 3] per pixel; alpha and depth are [height, width]. Lengths
// count from `soft` on, a jump of depth by `jump` widths of a pixel divides a link's weight by e.
SPLATIR_EXPORT int64_t splatir_bending(int64_t num_threads, int64_t height, int64_t width,
                                       const float* normals, const float* alpha,
                                       const float* depth, float focal, float jump, float soft,
                                       float min_depth, double* value, float* gradient) {
  const Bending term{normals, alpha, depth, focal, jump, soft, min_depth};
  const float scale = 1.f / static_cast<float>(height * width);
  return vary_in_pool(num_threads, height, width, 3, term, scale, value, gradient);
}
