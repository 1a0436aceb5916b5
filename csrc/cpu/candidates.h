// The threshold of a truncation: the largest value at which enough lies at or above it.
//
// Candidates stand in segments, one a block of logits; what a segment has at or above a bound is its sum
// shifted right, as a block's share of a total is. Each round takes a pivot, a candidate or a value found by
// interpolation, and drops the candidates on the side that cannot hold the threshold, so that all rounds
// together read the list about twice. No
// sort, and no assumption on the values: equals fall together.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/lanes.h"

namespace fg::FG_LEVEL {

struct Segment {
  std::int64_t start, size; // in the lists
  std::int64_t kept;        // the sum of what is surely at or above the threshold, listed no longer
  std::int64_t drop;        // how far right sums are shifted
  std::int64_t at_least, above;
};

class Candidates {
public:
  // `values` and `weights` have room for every entry added and, a segment, for one register more.
  FG_HD Candidates(float* values, std::int64_t* weights, Segment* segments)
      : values_(values), weights_(weights), segments_(segments) {}

  FG_HD void clear() { count_ = end_ = left_ = 0; }

  // Adds a segment: of the `n` entries (a whole number of registers) those in [low, high) are listed, those
  // above are kept. Without weights each counts one.
  void add(const float* y, const std::int64_t* w, int n, float low, float high, std::int64_t drop) {
    float* values = values_ + end_;
    std::int64_t* weights = weights_ + end_;
    std::int64_t size = 0, kept = 0, listed = 0;
#if defined(FG_LEVEL_avx512)
    const __m512i one = _mm512_set1_epi64(1);
    __m512i sums[2] = {};
    for (int i = 0; i < n; i += kLanes) {
      const Floats v = load<Floats>(y + i);
      const __m512i a = w ? load<__m512i>(w + i) : one, b = w ? load<__m512i>(w + i + kWideLanes) : one;
      const __mmask16 over = _mm512_cmp_ps_mask(v, floats(high), _CMP_GE_OQ);
      const __mmask16 in = _mm512_cmp_ps_mask(v, floats(low), _CMP_GE_OQ) & static_cast<__mmask16>(~over);
      sums[0] = _mm512_mask_add_epi64(sums[0], static_cast<__mmask8>(over), sums[0], a);
      sums[0] = _mm512_mask_add_epi64(sums[0], static_cast<__mmask8>(over >> 8), sums[0], b);
      sums[1] = _mm512_mask_add_epi64(sums[1], static_cast<__mmask8>(in), sums[1], a);
      sums[1] = _mm512_mask_add_epi64(sums[1], static_cast<__mmask8>(in >> 8), sums[1], b);
      size += put(values + size, weights + size, v, a, b, in);
    }
    kept = total((Longs)sums[0]);
    listed = total((Longs)sums[1]);
#else
    for (int i = 0; i < n; ++i) {
      const std::int64_t weight = w ? w[i] : 1;
      const bool over = y[i] >= high, in = y[i] >= low && !over;
      values[size] = y[i];
      weights[size] = weight;
      kept += over ? weight : 0;
      listed += in ? weight : 0;
      size += in;
    }
#endif
    segments_[count_++] = {end_, size, kept, drop, listed, 0};
    end_ += (size + kLanes - 1) / kLanes * kLanes;
    left_ += size;
  }

  // What lies at or above the lowest candidate, and what above the highest; before `threshold`.
  std::int64_t all() const {
    std::int64_t sum = 0;
    for (std::int64_t s = 0; s < count_; ++s)
      sum += (segments_[s].kept + segments_[s].at_least) >> segments_[s].drop;
    return sum;
  }
  std::int64_t above_all() const {
    std::int64_t sum = 0;
    for (std::int64_t s = 0; s < count_; ++s)
      sum += segments_[s].kept >> segments_[s].drop;
    return sum;
  }

  // The sum of segment s at or above the threshold, once it is found.
  std::int64_t found(std::int64_t s) const { return segments_[s].kept + segments_[s].at_least; }

  // All listed lies in [low, high), and above_all() < needed <= all(). Empties the list.
  float threshold(std::int64_t needed, float low, float high) {
    constexpr int kGuesses = 64; // then bisection, which no order of values can slow down
    std::int64_t at_low = all(), at_high = above_all();
    float under = -__builtin_inff(); // the threshold may be `low` itself
    for (int round = 0;; ++round) {
      const float pivot = round >= kGuesses ? between(under, high)
                          : round % 2       ? middle()
                                            : interpolated(needed, low, high, at_low, at_high);
      std::int64_t at_least = 0, above = 0;
      for (std::int64_t s = 0; s < count_; ++s) {
        Segment& segment = segments_[s];
        measure(segment, pivot);
        at_least += (segment.kept + segment.at_least) >> segment.drop;
        above += (segment.kept + segment.above) >> segment.drop;
      }
      if (above < needed && at_least >= needed)
        return pivot;
      const bool up = above >= needed;
      under = up ? pivot : under;
      (up ? low : high) = pivot;
      (up ? at_low : at_high) = up ? above : at_least;
      left_ = 0;
      for (std::int64_t s = 0; s < count_; ++s) {
        Segment& segment = segments_[s];
        segment.kept += up ? 0 : segment.at_least;
        keep(segment, pivot, up);
        left_ += segment.size;
      }
    }
  }

private:
  float at(std::int64_t rank) const {
    std::int64_t s = 0;
    while (rank >= segments_[s].size)
      rank -= segments_[s++].size;
    return values_[segments_[s].start + rank];
  }
  float middle() const {
    const float a = at(left_ / 4), b = at(left_ / 2), c = at(left_ - 1 - left_ / 4);
    const float low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
  }

  // Where the sums would reach `needed` if they grew evenly; a candidate where that says nothing.
  float interpolated(std::int64_t needed, float low, float high, std::int64_t at_low,
                     std::int64_t at_high) const {
    const double share = static_cast<double>(at_low - needed) / (static_cast<double>(at_low - at_high) + 1.0);
    const float pivot = static_cast<float>(low + (static_cast<double>(high) - low) * share);
    return pivot > low && pivot < high ? pivot : middle();
  }

  static std::int32_t ordinal(float x) {
    std::int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits ^ ((bits >> 31) & 0x7FFFFFFF);
  }
  static float between(float low, float high) {
    const std::int64_t sum = std::int64_t{ordinal(low)} + ordinal(high);
    std::int32_t bits = static_cast<std::int32_t>(sum >> 1);
    bits ^= (bits >> 31) & 0x7FFFFFFF;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }

#if defined(FG_LEVEL_avx512)
  // Compressed in registers: a compressing store is microcode.
  static FG_HD int put(float* values, std::int64_t* weights, Floats v, __m512i a, __m512i b,
                       __mmask16 which) {
    const __mmask8 first = static_cast<__mmask8>(which);
    store(values, _mm512_maskz_compress_ps(which, v));
    store(weights, _mm512_maskz_compress_epi64(first, a));
    store(weights + __builtin_popcount(first),
          _mm512_maskz_compress_epi64(static_cast<__mmask8>(which >> 8), b));
    return __builtin_popcount(which);
  }
  static __mmask16 lanes_left(std::int64_t n) {
    return static_cast<__mmask16>(n >= kLanes ? 0xFFFF : (1 << n) - 1);
  }
#endif

  void measure(Segment& segment, float pivot) const {
    const float* y = values_ + segment.start;
    const std::int64_t* w = weights_ + segment.start;
    segment.at_least = segment.above = 0;
#if defined(FG_LEVEL_avx512)
    __m512i at_least = _mm512_setzero_si512(), above = at_least;
    for (std::int64_t i = 0; i < segment.size; i += kLanes) {
      const Floats v = load<Floats>(y + i);
      const __m512i a = load<__m512i>(w + i), b = load<__m512i>(w + i + kWideLanes);
      const __mmask16 left = lanes_left(segment.size - i);
      const __mmask16 ge = _mm512_mask_cmp_ps_mask(left, v, floats(pivot), _CMP_GE_OQ);
      const __mmask16 gt = _mm512_mask_cmp_ps_mask(left, v, floats(pivot), _CMP_GT_OQ);
      at_least = _mm512_mask_add_epi64(at_least, static_cast<__mmask8>(ge), at_least, a);
      at_least = _mm512_mask_add_epi64(at_least, static_cast<__mmask8>(ge >> 8), at_least, b);
      above = _mm512_mask_add_epi64(above, static_cast<__mmask8>(gt), above, a);
      above = _mm512_mask_add_epi64(above, static_cast<__mmask8>(gt >> 8), above, b);
    }
    segment.at_least = total((Longs)at_least);
    segment.above = total((Longs)above);
#else
    for (std::int64_t i = 0; i < segment.size; ++i) {
      segment.at_least += y[i] >= pivot ? w[i] : 0;
      segment.above += y[i] > pivot ? w[i] : 0;
    }
#endif
  }

  // Keeps the entries above the pivot, or those below it.
  void keep(Segment& segment, float pivot, bool up) {
    float* y = values_ + segment.start;
    std::int64_t* w = weights_ + segment.start;
    std::int64_t size = 0;
#if defined(FG_LEVEL_avx512)
    for (std::int64_t i = 0; i < segment.size; i += kLanes) {
      const Floats v = load<Floats>(y + i);
      const __m512i a = load<__m512i>(w + i), b = load<__m512i>(w + i + kWideLanes);
      const __mmask16 left = lanes_left(segment.size - i);
      const __mmask16 wanted = up ? _mm512_mask_cmp_ps_mask(left, v, floats(pivot), _CMP_GT_OQ)
                                  : _mm512_mask_cmp_ps_mask(left, v, floats(pivot), _CMP_LT_OQ);
      size += put(y + size, w + size, v, a, b, wanted);
    }
#else
    for (std::int64_t i = 0; i < segment.size; ++i) {
      y[size] = y[i];
      w[size] = w[i];
      size += up ? y[size] > pivot : y[size] < pivot;
    }
#endif
    segment.size = size;
  }

  float* values_;
  std::int64_t* weights_;
  Segment* segments_;
  std::int64_t count_ = 0, end_ = 0, left_ = 0;
};

} // namespace fg::FG_LEVEL
