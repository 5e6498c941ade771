// Backward pass of the surfel rasteriser: replays each block's entries back to front.
//
// Every (tile, surfel) pair collects one row of sums over its pixels; a surfel's rows are then
// added in the order of its tiles, whatever threads wrote them, and go through one chain rule.
#include <algorithm>
#include <cstring>

#include "pair_rows.h"
#include "surfel.h"
#include "threads.h"

namespace splatir {
namespace {

// Of a row's geometry part. With f_u, f_v, f_w the gradients to the homogeneous hit and f_blur that
// to the squared offset of the low-pass, up to constants: sums of
//   f_u (1, dx, dy), sigma;  f_v (1, dx, dy), depth;  f_w (1, dx, dy), |X_z|;  f_blur (-, dx, dy),
//   |Y_z|
// where sigma stands for the gradient to the exponent, wherever alpha is not capped.
constexpr int kGeometrySums = 16;
enum { kSigma = 3, kDepth = 7, kAbsoluteX = 11, kBlurX = 13, kBlurY = 14, kAbsoluteY = 15 };

constexpr float kLn2 = 0.69314718f;

// Gradients of the images at a block's pixels.
struct PixelCotangents {
  Floats alpha, distortion, median;  // Of alpha without its share in the background.
};

class Backward {
 public:
  Backward(SurfelImage& image, const SurfelCotangents& in, const SurfelGradients& out)
      : image_(image), in_(in), out_(out),
        rows_(image.bins, image.rects.data(), image.tile_used.data(), image.partials.data(),
              image.padded + kGeometrySums) {}

  void replay_tile(int thread, int64_t tile) {
    SurfelTile& local = image_.scratch[thread];
    const uint32_t used = image_.tile_used[tile];
    load_tile(image_, tile, used, local);
    if (out_.absolute != nullptr) load_planes(tile, used, local);
    local.cotangents.reserve(image_.padded * size_t{kLanes});
    local.channel_lanes.reserve(image_.padded * size_t{kLanes});
    std::memset(local.spare_row.reserve(rows_.width()), 0, rows_.width() * sizeof(float));
    float* rows = rows_.clear(tile);
    for (int b = 0; b < kBlocksPerTile; ++b) {
      const BlockGeometry block(tile % image_.bins.tiles_x, tile / image_.bins.tiles_x, b,
                                image_.size.width, image_.size.height);
      const int64_t index = tile * kBlocksPerTile + b;
      if (image_.lists.count(index) == 0) continue;
      replay_block(local, block, index, load_cotangents(block, local), rows);
    }
  }

  // Adds the rows of each surfel and goes back to its parameters.
  void reduce(int64_t begin, int64_t end) {
    Buffer<float> total;
    float* sums = total.reserve(rows_.width());
    for (int64_t splat = begin; splat < end; ++splat) {
      rows_.add_up(splat, sums);
      for (int c = 0; c < image_.num_channels; ++c) {
        const Strided<float>& to = out_.channels[c];
        to.start[splat * to.stride] = sums[c];
      }
      write_geometry(splat, sums + image_.padded, image_.rects[splat].count() == 0);
    }
  }

 private:
  void load_planes(int64_t tile, uint32_t used, SurfelTile& local) {
    const uint32_t* splats = image_.bins.pair_splat.data() + image_.bins.tile_begin[tile];
    local.planes.reserve(used);
    for (uint32_t k = 0; k < used; ++k)
      local.planes[k] =
          trace_planes(out_.means2d + 2 * splats[k], out_.rows + 9 * splats[k], image_.size);
  }

  // Fills local.cotangents, which the sums of channels read, and .channel_lanes, which goes on to
  // alpha; zeros for channels and pixels that are not there.
  PixelCotangents load_cotangents(const BlockGeometry& block, SurfelTile& local) {
    const size_t count = image_.padded * size_t{kLanes};
    float* lanes = local.channel_lanes.data();
    alignas(64) float alpha[kLanes] = {}, distortion[kLanes] = {}, median[kLanes] = {};
    std::memset(lanes, 0, count * sizeof(float));
    for_each_pixel(block, image_.size.width, [&](int64_t lane, int64_t pixel) {
      float behind = 0.0f;
      for (int c = 0; c < image_.num_channels; ++c) {
        const Strided<const float>& channel = in_.channels[c];
        if (channel.start == nullptr) continue;
        const float value = channel.start[pixel * channel.stride];
        lanes[c * kLanes + lane] = value;
        behind += in_.background[c] * value;
      }
      alpha[lane] = (in_.alpha == nullptr ? 0.0f : in_.alpha[pixel]) - behind;
      if (in_.distortion != nullptr) distortion[lane] = in_.distortion[pixel];
      if (in_.median_depth != nullptr) median[lane] = in_.median_depth[pixel];
    });
    for (int first = 0; first < image_.padded;) {
      const int width = pass_width(image_.padded - first);
      transpose_lanes(lanes + first * kLanes, width, &local.cotangents[first * kLanes]);
      first += width;
    }
    std::memset(lanes + (image_.num_features - in_.num_detached) * kLanes, 0,
                in_.num_detached * kLanes * sizeof(float));
    return {load(alpha), load(distortion), load(median)};
  }

  void replay_block(SurfelTile& local, const BlockGeometry& block, int64_t index,
                    const PixelCotangents& cotangents, float* rows) {
    const bool has_extras = in_.distortion != nullptr || in_.median_depth != nullptr ||
                            out_.absolute != nullptr;
    if (has_extras) return replay_width<true>(local, block, index, cotangents, rows);
    replay_width<false>(local, block, index, cotangents, rows);
  }

  template <bool kExtras>
  void replay_width(SurfelTile& local, const BlockGeometry& block, int64_t index,
                    const PixelCotangents& cotangents, float* rows) {
    if (image_.padded == 4) return replay<4, kExtras>(local, block, index, cotangents, rows);
    if (image_.padded == 8) return replay<8, kExtras>(local, block, index, cotangents, rows);
    replay<16, kExtras>(local, block, index, cotangents, rows);
  }

  // Gradients of distortion and median depth; positions are relative to the tile's nearest surfel.
  struct DepthTerms {
    Floats distortion, median;      // Image gradients.
    Floats weight_sum, depth_sum;   // Over the whole pixel.
    Floats depth_so_far;            // Over surfels up to the current one.
    Ints median_surfel;

    // Call from back to front. dL/d(weight); *depth becomes dL/dz.
    SPLATIR_INLINE Floats step(uint32_t k, float z, Floats weight, Floats before, Floats after,
                               uint32_t pixels, Floats* depth) {
      const Floats one(1.0f), two(2.0f), own_z(z);
      const Floats so_far = own_z * (one - after) - depth_so_far;
      const Floats of_weight = two * (two * so_far + (depth_sum - own_z * weight_sum));
      depth_so_far = depth_so_far - weight * own_z;
      *depth = two * weight * (two * (one - before) - weight_sum + weight) * distortion +
               keep(equals(median_surfel, Ints(static_cast<int32_t>(k))) & mask_from_bits(pixels),
                    median);
      return of_weight * distortion;
    }
  };

  DepthTerms depth_terms(int64_t index, const PixelCotangents& cotangents,
                         Floats transmittance) const {
    if (!image_.has_depth_outputs) return {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, -1};
    const Floats depth_sum = load(&image_.depth_sum[index * kLanes]);
    return {cotangents.distortion,
            cotangents.median,
            Floats(1.0f) - transmittance,
            depth_sum,
            depth_sum,
            load(&image_.median[index * kLanes])};
  }

  // Consecutive entries of a block, front to back. Places before the first entry of the block are
  // filled with one that contributes nowhere and sums into a spare row.
  struct Group {
    uint32_t in_tile[kGroup], pixels[kGroup];
    const Surfel* surfels[kGroup];
    const float* channels[kGroup];
    float* rows[kGroup];
  };

  SPLATIR_INLINE Group group_before(uint32_t end, const BlockEntry* entries, SurfelTile& local,
                                    float* rows) const {
    Group group;
    for (uint32_t j = 0; j < kGroup; ++j) {
      const bool exists = end + j >= kGroup;
      const BlockEntry entry = entries[exists ? end + j - kGroup : 0];
      group.in_tile[j] = entry.pair;
      group.pixels[j] = exists ? entry.pixels : 0;
      group.surfels[j] = &local.surfels[entry.pair];
      group.channels[j] = &local.channels[static_cast<size_t>(entry.pair) * image_.padded];
      group.rows[j] = exists ? rows + entry.pair * rows_.width() : local.spare_row.data();
    }
    return group;
  }

  // Gradients of alpha's exponent, as the sums of a row want them.
  struct ExponentGradient {
    FourFloats by_hit;  // To u, v, w and to the low-pass.
    Floats sigma;
  };

  SPLATIR_INLINE static ExponentGradient exponent_gradient(const Hit& hit, Floats raw, Mask counts,
                                                           Floats of_alpha) {
    const Mask smooth = counts & (raw <= Floats(kMaxAlpha));
    const Floats of_exponent = -(raw * of_alpha);
    // False for not-a-number, as in `uncapped_alpha`.
    const Mask is_exact = hit.exact <= hit.blurred;
    const Mask exact = smooth & is_exact, blurred = smooth & ~is_exact;
    const Floats per_w = keep(exact, of_exponent * hit.inverse_w);
    return {{{keep(exact, per_w * hit.u), keep(exact, per_w * hit.v),
              keep(exact, -(per_w * hit.exact)), keep(blurred, of_exponent)}},
            keep(smooth, of_exponent)};
  }

  template <int kWidth, bool kExtras>
  __attribute__((noinline)) void replay(SurfelTile& local, const BlockGeometry& block,
                                        int64_t index, const PixelCotangents& cotangents,
                                        float* rows) {
    const Floats px = load(kLaneX) + Floats(static_cast<float>(block.x));
    const Floats py = load(kLaneY) + Floats(static_cast<float>(block.y));
    const float first_y = static_cast<float>(block.y) + 0.5f;
    const int padded = image_.padded;
    const float nearest = kExtras ? local.surfels[0].depth : 0.0f;
    Floats transmittance = load(&image_.transmittance[index * kLanes]);
    // Gradient to what lies behind the current surfel, before the product with 1 - alpha.
    Floats behind = -(transmittance * cotangents.alpha);
    DepthTerms terms = depth_terms(index, cotangents, transmittance);
    const BlockEntry* entries = image_.lists.entries(index);
    for (int64_t end = image_.lists.count(index); end > 0; end -= kGroup) {
      const Group group = group_before(static_cast<uint32_t>(end), entries, local, rows);
      Hit hits[kGroup];
      Floats raw[kGroup], alpha[kGroup], of_weight[kGroup], of_alpha[kGroup], of_depth[kGroup];
      alignas(64) float weights[kGroup][kLanes];
#pragma GCC unroll 4
      for (int j = 0; j < kGroup; ++j) {
        hits[j] = hit_at(*group.surfels[j], px, py);
        raw[j] = uncapped_alpha(*group.surfels[j], hits[j]);
        alpha[j] = keep(mask_from_bits(group.pixels[j]), min(raw[j], Floats(kMaxAlpha)));
      }
      project_cotangents<kWidth>(local, group, of_weight);
      for (int j = kGroup - 1; j >= 0; --j) {
        const Floats inverse = reciprocal(Floats(1.0f) - alpha[j]);
        const Floats before = transmittance * inverse;
        const Floats weight = alpha[j] * before;
        store(weights[j], weight);
        if (kExtras)
          of_weight[j] += terms.step(group.in_tile[j], group.surfels[j]->depth - nearest, weight,
                                     before, transmittance, group.pixels[j], &of_depth[j]);
        of_alpha[j] = before * of_weight[j] - inverse * behind;
        behind += weight * of_weight[j];
        transmittance = before;
      }
#pragma GCC unroll 4
      for (int j = 0; j < kGroup; ++j) {
        const ExponentGradient gradient = exponent_gradient(
            hits[j], raw[j], mask_from_bits(group.pixels[j]), of_alpha[j]);
        Floats others;
        if (kExtras) {
          FourFloats four = {{gradient.sigma, of_depth[j], Floats(0.0f), Floats(0.0f)}};
          if (out_.absolute != nullptr)
            add_absolute(local.planes[group.in_tile[j]], hits[j], gradient.by_hit, &four);
          others = fold_rows(four);
        } else {
          others = fold_rows(gradient.sigma);
        }
        add_moments(gradient.by_hit, hits[j].dx, first_y - group.surfels[j]->y, others,
                    group.rows[j] + padded);
      }
      add_channels<kWidth>(weights, local, group);
    }
  }

  // of_weight[j] = sum over channels of the image's gradient times the surfel's channel.
  template <int kWidth>
  SPLATIR_INLINE void project_cotangents(const SurfelTile& local, const Group& group,
                                         Floats (&of_weight)[kGroup]) const {
    const float* lanes = local.channel_lanes.data();
    for (Floats& projection : of_weight) projection = Floats(0.0f);
    const auto add = [&](int c) {
      const Floats cotangent = load(lanes + c * kLanes);
      for (int j = 0; j < kGroup; ++j) of_weight[j] += cotangent * Floats(group.channels[j][c]);
    };
    for (int c = 0; c < kWidth; ++c) add(c);
    for (int c = kWidth; c < image_.padded; ++c) add(c);
  }

  template <int kWidth>
  SPLATIR_INLINE void add_channels(const float (&weights)[kGroup][kLanes], const SurfelTile& local,
                                   const Group& group) const {
    add_weighted_rows<kWidth>(weights, local.cotangents.data(), group.rows, 0);
    for (int first = kWidth; first < image_.padded;) {
      const int width = pass_width(image_.padded - first);
      const float* cotangents = &local.cotangents[first * kLanes];
      if (width == 16) add_weighted_rows<16>(weights, cotangents, group.rows, first);
      if (width == 8) add_weighted_rows<8>(weights, cotangents, group.rows, first);
      if (width == 4) add_weighted_rows<4>(weights, cotangents, group.rows, first);
      first += width;
    }
  }

  SPLATIR_INLINE static void add_absolute(const PlaneTrace& p, const Hit& hit,
                                          const FourFloats& gradient, FourFloats* four) {
    const Floats u = gradient.q[0], v = gradient.q[1];
    four->q[2] = abs(u * (Floats(p.y_y) + hit.dy * Floats(p.z_y)) -
                     v * (Floats(p.y_x) + hit.dy * Floats(p.z_x)));
    four->q[3] = abs(v * (Floats(p.x_x) + hit.dx * Floats(p.z_x)) -
                     u * (Floats(p.x_y) + hit.dx * Floats(p.z_y)));
  }

  void write_geometry(int64_t i, const float* sums, bool is_culled) {
    // d(exponent)/d(u) is 2 u / w, in powers of two.
    constexpr float kHit = 2.0f * kLn2;
    double* grad_rows = out_.grad_rows + 9 * i;
    if (is_culled) {
      std::memset(grad_rows, 0, 9 * sizeof(double));
    } else {
      HitGradient gradient;
      for (int j = 0; j < 3; ++j) {
        gradient.u[j] = kHit * sums[j];
        gradient.v[j] = kHit * sums[4 + j];
        gradient.w[j] = kHit * sums[8 + j];
      }
      gradient_of_rows(out_.means2d + 2 * i, out_.rows + 9 * i, image_.size, gradient, grad_rows);
    }
    out_.grad_means2d[2 * i] = -2.0f * sums[kBlurX];
    out_.grad_means2d[2 * i + 1] = -2.0f * sums[kBlurY];
    out_.grad_opacities[i] = is_culled ? 0.0f : -sums[kSigma] / out_.opacities[i];
    out_.grad_depths[i] = sums[kDepth];
    const double z = out_.rows[9 * i + 8];
    if (out_.probe != nullptr) {
      out_.probe[2 * i] = static_cast<float>(grad_rows[2] * z);
      out_.probe[2 * i + 1] = static_cast<float>(grad_rows[5] * z);
    }
    if (out_.absolute != nullptr) {
      out_.absolute[2 * i] = static_cast<float>(kHit * sums[kAbsoluteX] * z);
      out_.absolute[2 * i + 1] = static_cast<float>(kHit * sums[kAbsoluteY] * z);
    }
  }

  SurfelImage& image_;
  const SurfelCotangents& in_;
  const SurfelGradients& out_;
  const PairRows rows_;
};

}  // namespace

void backpropagate_surfels(SurfelImage& image, int64_t num_threads, const SurfelCotangents& in,
                           const SurfelGradients& out) {
  const size_t num_pairs = image.bins.num_pairs();
  image.partials.reserve(num_pairs * (image.padded + kGeometrySums));
  if (static_cast<int64_t>(image.scratch.size()) < num_threads) image.scratch.resize(num_threads);
  Backward backward(image, in, out);
  MemoryGuard guard;
  parallel_tasks(num_threads, image.bins.num_tiles(), [&](int thread, int64_t tile) {
    guard.run([&] { backward.replay_tile(thread, tile); });
  });
  parallel_ranges(num_threads, image.num_splats, [&](int, int64_t begin, int64_t end) {
    guard.run([&] { backward.reduce(begin, end); });
  });
  guard.rethrow();
}

}  // namespace splatir
