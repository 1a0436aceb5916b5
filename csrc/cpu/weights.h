// Integer weights of runs of log-weights, for one SIMD level.
//
// Everything here has internal linkage: a function of this header compiled for AVX-512 must not replace its
// namesake of the portable build at link time.
#pragma once

#include <cstdint>

#include "core/selection.h"
#include "cpu/intrinsics.h"
#include "cpu/lanes.h"

namespace fg::FG_LEVEL {
namespace {

struct BlockScan {
  double max = -INFINITY; // largest log-weight that is not a weight of zero
  bool valid = true;      // no NaN, +inf or finite value above 1e9
};

#if defined(FG_LEVEL_avx512)

// Lambdas that take registers: outside their caller these would pass through memory.
#define FG_INLINE __attribute__((always_inline))

// Above it a weight of a log-weight below -1e9 has all its bits shifted out.
constexpr std::int32_t kLeastExponent = static_cast<std::int32_t>((-kMaxLogWeight + 64) * kLog2E);

// Reads log-weights a register at a time.
template <typename Real> struct Reader;

template <> struct Reader<float> {
  static constexpr std::int64_t kWidth = 16;
  using Vector = __m512;

  static Vector load(const float* x, std::int64_t n) {
    if (n >= kWidth)
      return _mm512_loadu_ps(x);
    const __mmask16 some = static_cast<__mmask16>((1u << n) - 1);
    return _mm512_mask_loadu_ps(lowest(), some, x);
  }
  static Vector maximum(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  static Vector lowest() { return _mm512_set1_ps(-INFINITY); }
  static bool valid(Vector x) {
    return _mm512_cmp_ps_mask(x, _mm512_set1_ps(static_cast<float>(kMaxLogWeight)), _CMP_NLE_UQ) == 0;
  }
  static double reduce(Vector x) { return static_cast<double>(_mm512_reduce_max_ps(x)); }
};

template <> struct Reader<double> {
  static constexpr std::int64_t kWidth = 8;
  using Vector = __m512d;

  static Vector load(const double* x, std::int64_t n) {
    if (n >= kWidth)
      return _mm512_loadu_pd(x);
    const __mmask8 some = static_cast<__mmask8>((1u << n) - 1);
    return _mm512_mask_loadu_pd(lowest(), some, x);
  }
  static Vector maximum(Vector a, Vector b) { return _mm512_max_pd(a, b); }
  static Vector lowest() { return _mm512_set1_pd(-INFINITY); }
  static bool valid(Vector x) {
    return _mm512_cmp_pd_mask(x, _mm512_set1_pd(kMaxLogWeight), _CMP_NLE_UQ) == 0;
  }
  static double reduce(Vector x) { return _mm512_reduce_max_pd(x); }
};

// The weights of kRun log-weights, 8 a register. A sequence is long and serial; several in step hide some of
// its latency.
constexpr std::int64_t kRun = 32;
struct Run {
  __m512i weights[kRun / 8];
};

FG_HD Run weigh_run(const float* x, std::int32_t exponent) {
  Longs low[2], high[2];
  const LongPair e = weigh_exponent(exponent);
  weigh<2>(x, {e, e}, low, high);
  return {{(__m512i)low[0], (__m512i)high[0], (__m512i)low[1], (__m512i)high[1]}};
}

struct DoublePair {
  __m512d a, b;
};
FG_HD DoublePair operator*(const DoublePair& p, double s) {
  return {p.a * s, p.b * s};
}
FG_HD DoublePair operator+(const DoublePair& p, double s) {
  return {p.a + s, p.b + s};
}
FG_HD DoublePair operator*(const DoublePair& p, const DoublePair& q) {
  return {p.a * q.a, p.b * q.b};
}

// As weigh() of cpu/lanes.h, whose remarks hold here too.
FG_HD Run weigh_run(const double* x, std::int32_t exponent) {
  const __m512i base = _mm512_set1_epi64(bits_of(kRound) + exponent + 3);
  Run run;
  for (int i = 0; i < 4; i += 2) {
    const __m512d t0 = _mm512_loadu_pd(x + 8 * i) * kLog2E, t1 = _mm512_loadu_pd(x + 8 * i + 8) * kLog2E;
    const __m512d k0 = t0 + kRound, k1 = t1 + kRound;
    const DoublePair p = exp2_fraction_double(DoublePair{t0 - (k0 - kRound), t1 - (k1 - kRound)}) * 0x1p53;
    run.weights[i] =
        _mm512_srlv_epi64(_mm512_cvttpd_epi64(p.a), _mm512_sub_epi64(base, _mm512_castpd_si512(k0)));
    run.weights[i + 1] =
        _mm512_srlv_epi64(_mm512_cvttpd_epi64(p.b), _mm512_sub_epi64(base, _mm512_castpd_si512(k1)));
  }
  return run;
}

// Calls visit(first item, 8 weights) over n log-weights, weights past the end being zero. Where the exponent
// is so low that a weight below -1e9 would not vanish by itself, or the run is short, log-weights are copied
// first.
template <typename Real, typename Visit>
FG_HD void each_weight(const Real* x, std::int64_t n, std::int32_t exponent, Visit visit) {
  std::int64_t i = 0;
  if (exponent > kLeastExponent) {
    for (; i + kRun <= n; i += kRun) {
      const Run run = weigh_run(x + i, exponent);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r)
        visit(i + 8 * r, run.weights[r]);
    }
  }
  for (; i < n; i += kRun) {
    alignas(64) Real copy[kRun];
    for (std::int64_t j = 0; j < kRun; ++j)
      copy[j] = i + j < n && x[i + j] >= static_cast<Real>(-kMaxLogWeight) ? x[i + j]
                                                                           : -static_cast<Real>(INFINITY);
    const Run run = weigh_run(copy, exponent);
    for (int r = 0; r < 4 && i + 8 * r < n; ++r)
      visit(i + 8 * r, run.weights[r]);
  }
}

template <typename Real> BlockScan scan_max(const Real* x, std::int64_t n) {
  using R = Reader<Real>;
  typename R::Vector top[2] = {R::lowest(), R::lowest()};
  bool valid = true;
  for (std::int64_t i = 0; i < n; i += 2 * R::kWidth) {
    const auto a = R::load(x + i, n - i);
    const auto b = n - i > R::kWidth ? R::load(x + i + R::kWidth, n - i - R::kWidth) : R::lowest();
    valid &= R::valid(a) & R::valid(b);
    top[0] = R::maximum(top[0], a);
    top[1] = R::maximum(top[1], b);
  }
  return {R::reduce(R::maximum(top[0], top[1])), valid};
}

// Sums within 8 lanes from the first on.
inline __m512i prefix8(__m512i v) {
  const __m512i zero = _mm512_setzero_si512();
  v = _mm512_add_epi64(v, _mm512_alignr_epi64(v, zero, 7));
  v = _mm512_add_epi64(v, _mm512_alignr_epi64(v, zero, 6));
  return _mm512_add_epi64(v, _mm512_alignr_epi64(v, zero, 4));
}

// Calls visit(first item, its and the next 7 cumulative weights) over n log-weights; returns the last.
template <typename Real, typename Visit>
FG_HD std::int64_t each_prefix(const Real* x, std::int64_t n, std::int32_t exponent, std::int64_t before,
                               Visit visit) {
  const __m512i last = _mm512_set1_epi64(7);
  __m512i carry = _mm512_set1_epi64(before);
  each_weight(x, n, exponent, [&](std::int64_t i, __m512i w) FG_INLINE {
    const __m512i within = prefix8(w);
    visit(i, w, _mm512_add_epi64(within, carry));
    carry = _mm512_add_epi64(carry, _mm512_permutexvar_epi64(last, within));
  });
  return _mm_cvtsi128_si64(_mm512_castsi512_si128(carry));
}

inline void store_weights(std::int64_t* to, std::int64_t i, std::int64_t n, __m512i v) {
  if (i + 8 <= n)
    _mm512_storeu_si512(to + i, v);
  else if (i < n)
    _mm512_mask_storeu_epi64(to + i, static_cast<__mmask8>((1u << (n - i)) - 1), v);
}

template <typename Real>
void sum_weights(const Real* x, std::int64_t n, BlockWeight& block, std::int64_t* prefixes) {
  __m512i sum = _mm512_setzero_si512(), squares = _mm512_setzero_si512();
  const auto square = [&](__m512i w) {
    const __m512i high = _mm512_srli_epi64(w, kSquareDrop);
    squares = _mm512_add_epi64(squares, _mm512_mul_epu32(high, high));
  };
  if (prefixes != nullptr) {
    block.sum =
        each_prefix(x, n, block.exponent, 0, [&](std::int64_t i, __m512i w, __m512i prefix) FG_INLINE {
          square(w);
          store_weights(prefixes, i, n, prefix);
        });
  } else {
    each_weight(x, n, block.exponent, [&](std::int64_t, __m512i w) FG_INLINE {
      square(w);
      sum = _mm512_add_epi64(sum, w);
    });
    block.sum = _mm512_reduce_add_epi64(sum);
  }
  block.squares = _mm512_reduce_add_epi64(squares);
}

template <typename Real>
std::int64_t cumulate(const Real* x, std::int64_t n, std::int32_t exponent, std::int64_t before,
                      std::int64_t* prefixes) {
  return each_prefix(x, n, exponent, before, [&](std::int64_t i, __m512i, __m512i prefix) FG_INLINE {
    store_weights(prefixes, i, n, prefix);
  });
}

#else

// A weight of zero may ask for any shift; its mantissa is zero.
inline int drop_bits(std::int64_t drop) {
  return static_cast<int>(static_cast<std::uint64_t>(drop) < 63 ? drop : 63);
}

inline std::int64_t weight(float x, std::int64_t exponent_bits) {
  const bool alive = x >= static_cast<float>(-kMaxLogWeight);
  const double t = static_cast<double>(alive ? x : 0.0f) * kLog2E;
  const double k = t + kRound;
  const std::int32_t m =
      static_cast<std::int32_t>(exp2_fraction(static_cast<float>(t - (k - kRound))) * 0x1p24f);
  const std::int64_t drop = exponent_bits - bits_of(k);
  return static_cast<std::int64_t>((static_cast<std::uint64_t>(alive ? m : 0) << 26) >> drop_bits(drop));
}

inline std::int64_t weight(double x, std::int64_t exponent_bits) {
  const bool alive = x >= -kMaxLogWeight;
  const double t = (alive ? x : 0.0) * kLog2E;
  const double k = t + kRound;
  const std::int64_t m = static_cast<std::int64_t>(exp2_fraction(t - (k - kRound)) * 0x1p53);
  const std::int64_t drop = exponent_bits + 3 - bits_of(k);
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(alive ? m : 0) >> drop_bits(drop));
}

template <typename Real> BlockScan scan_max(const Real* x, std::int64_t n) {
  Real top = -INFINITY;
  int invalid = 0;
#pragma omp simd reduction(max : top) reduction(| : invalid)
  for (std::int64_t i = 0; i < n; ++i) {
    top = x[i] > top ? x[i] : top;
    invalid |= !(x[i] <= static_cast<Real>(kMaxLogWeight));
  }
  return {static_cast<double>(top), invalid == 0};
}

// Cumulative weights of n log-weights; returns the last.
template <typename Real>
std::int64_t cumulate(const Real* x, std::int64_t n, std::int32_t exponent, std::int64_t before,
                      std::int64_t* prefixes) {
  const std::int64_t e = bits_of(kRound) + exponent;
  for (std::int64_t i = 0; i < n; ++i)
    prefixes[i] = weight(x[i], e);
  for (std::int64_t i = 0; i < n; ++i)
    prefixes[i] = before += prefixes[i];
  return before;
}

inline std::int64_t square(std::int64_t w) {
  const std::uint64_t high = static_cast<std::uint32_t>(w >> kSquareDrop);
  return static_cast<std::int64_t>(high * high);
}

template <typename Real>
void sum_weights(const Real* x, std::int64_t n, BlockWeight& block, std::int64_t* prefixes) {
  const std::int64_t e = bits_of(kRound) + block.exponent;
  std::int64_t sum = 0, squares = 0;
  if (prefixes != nullptr) {
    sum = cumulate(x, n, block.exponent, 0, prefixes);
    squares = square(prefixes[0]);
    for (std::int64_t i = 1; i < n; ++i)
      squares += square(prefixes[i] - prefixes[i - 1]);
  } else {
#pragma omp simd reduction(+ : sum, squares)
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t w = weight(x[i], e);
      sum += w;
      squares += square(w);
    }
  }
  block.sum = sum;
  block.squares = squares;
}

#endif

// Fills `block` from its log-weights, and `prefixes`, if given, with its cumulative weights; false where a
// log-weight is refused.
template <typename Real>
bool weigh_block(const Real* x, std::int64_t n, BlockWeight& block, double& max, std::int64_t* prefixes) {
  const BlockScan scan = scan_max(x, n);
  block = BlockWeight{};
  max = scan.max;
  if (scan.valid && scan.max >= -kMaxLogWeight) {
    block.exponent = block_exponent(scan.max);
    sum_weights(x, n, block, prefixes);
  }
  return scan.valid;
}

// A shift left by `left` and then right by `right`, one of them 0.
struct Shift {
  int left, right;

  explicit Shift(std::int64_t by)
      : left(by > 0 ? static_cast<int>(by) : 0), right(by < -63 ? 63
                                                       : by < 0 ? static_cast<int>(-by)
                                                                : 0) {}
  std::int64_t operator()(std::int64_t x) const { return x << left >> right; }
};

} // namespace
} // namespace fg::FG_LEVEL
