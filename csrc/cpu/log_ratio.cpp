// Gaussian: one pass over the children and their parents, in double; kSums partial sums of fixed stride,
// folded in halves, so that the result does not depend on the width of a register.
//
// Masked: log p - log q at a revealed position is log(sum of e^(lp + shift) / sum of e^lp) - shift, and the
// two sums are those of the integer weights that tokens are drawn by. Three passes: which rows any child
// needs; their sums, each row once for all the children that share it; the sum over the positions of each
// child, in order.
#include "cpu/log_ratio.h"

#include <cstdlib>

#include "core/categorical.h"
#include "core/log.h"
#include "cpu/interrupt.h"
#include "cpu/kernels.h"
#include "cpu/open_positions.h"
#include "cpu/token_row.h"

namespace fg::FG_LEVEL {
namespace {

constexpr int kSums = 32; // part of the contract: another number would give other last bits
constexpr int kSumRegisters = kSums / kWideLanes;

// `kSums` elements, as doubles.
struct Elements {
  Doubles v[kSumRegisters];
};
template <typename T> FG_HD Elements elements(const T* from, std::int64_t n) {
  Elements e;
#pragma GCC unroll 8
  for (int i = 0; i < kSums / kLanes; ++i) {
    const std::int64_t left = n - i * kLanes;
    const Floats v = left >= kLanes ? load_logits(from + i * kLanes)
                     : left > 0     ? load_first(from + i * kLanes, static_cast<int>(left))
                                    : Floats{};
    HalfFloats half[2];
    __builtin_memcpy(half, &v, sizeof v);
    e.v[2 * i] = to_doubles(half[0]);
    e.v[2 * i + 1] = to_doubles(half[1]);
  }
  return e;
}

template <typename Prediction, typename Shift>
double gaussian_ratio(const float* child, const float* x, const Prediction* prediction, const Shift* shift,
                      const GaussianLogRatioArgs& a, std::int64_t group) {
  const double of_x = a.coefficients.of_x(group), of_prediction = a.coefficients.of_prediction(group),
               of_shift = a.coefficients.of_shift(group), sigma = a.coefficients.sigma(group);
  Elements sums{};
  for (std::int64_t i = 0; i < a.size; i += kSums) {
    const std::int64_t n = a.size - i;
    const Elements c = elements(child + i, n), at = elements(x + i, n), p = elements(prediction + i, n),
                   s = elements(shift + i, n);
#pragma GCC unroll 16
    for (int k = 0; k < kSumRegisters; ++k) {
      const Doubles e = s.v[k] * of_shift;
      const Doubles d = c.v[k] - (at.v[k] * of_x + p.v[k] * of_prediction);
      sums.v[k] += e * (e - d * 2.0);
    }
  }
  double sum[kSums];
  __builtin_memcpy(sum, sums.v, sizeof sum);
  for (int width = kSums / 2; width > 0; width /= 2)
    for (int k = 0; k < width; ++k)
      sum[k] += sum[k + width];
  return sum[0] / (2.0 * (sigma * sigma));
}

template <typename Prediction, typename Shift> Status gaussian(const GaussianLogRatioArgs& a) {
  const std::int64_t children = a.particles * a.branch, per_group = a.particles / a.groups;
  const int threads = children * a.size < 8192 ? 1 : a.threads;
  Interrupt interrupt;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (std::int64_t c = 0; c < children; ++c) {
    if (interrupt.requested())
      continue;
    const std::int64_t particle = c / a.branch;
    const std::int64_t state = a.ancestors.data ? a.ancestors[particle] : particle;
    a.ratios[c] = gaussian_ratio(
        a.children + c * a.size, static_cast<const float*>(a.x.data) + state * a.x.stride,
        static_cast<const Prediction*>(a.prediction.data) + state * a.prediction.stride,
        static_cast<const Shift*>(a.shift.data) + state * a.shift.stride, a, particle / per_group);
  }
  return interrupt.requested() ? Status{Code::interrupted, -1} : Status{};
}

template <typename Prediction> Status gaussian_shifted(const GaussianLogRatioArgs& a) {
  switch (a.shift.type) {
  case LogitType::float32:
    return gaussian<Prediction, float>(a);
  case LogitType::float16:
    return gaussian<Prediction, Half>(a);
  case LogitType::bfloat16:
    return gaussian<Prediction, BFloat16>(a);
  }
  return {Code::invalid_value, -1};
}

// One logit as it is weighed, before any shift.
template <typename Logit> FG_HD float scaled(const Logit* x, const float* bias, float scale) {
  const float y = load_first(x, 1)[0];
  return (bias ? y + *bias : y) * scale;
}

// Memory of zeros; null where there was none.
template <typename T> struct Zeros {
  T* data;
  explicit Zeros(std::int64_t count)
      : data(static_cast<T*>(std::calloc(static_cast<std::size_t>(count > 0 ? count : 1), sizeof(T)))) {}
  Zeros(const Zeros&) = delete;
  Zeros& operator=(const Zeros&) = delete;
  ~Zeros() { std::free(data); }
};

template <typename Token, typename Logit> class MaskedRatio {
public:
  explicit MaskedRatio(const MaskedLogRatioArgs& args)
      : a(args), rows(args.states * args.length), needed(rows), sums(rows), least(rows) {}

  Status run() {
    if (!needed.data || !sums.data || !least.data)
      return {Code::out_of_memory, -1};
    const double positions = static_cast<double>(a.particles * a.branch) * static_cast<double>(a.length);
    const int threads = positions * 20.0 < 15e3 && a.vocab <= kTokenBlock ? 1 : a.threads;
    Trouble ranges, tokens;
#pragma omp parallel num_threads(threads)
    {
      Trouble mine;
#pragma omp for schedule(static)
      for (std::int64_t p = 0; p < a.particles; ++p)
        mark(p, mine);
#pragma omp critical(fastguide_log_ratio)
      ranges.key = mine.key < ranges.key ? mine.key : ranges.key;
    }
    if (ranges.key != Trouble::kNone)
      return ranges.status();
    const Status measured = a.vocab <= kTokenBlock ? measure_all<NarrowRow<Logit>>(threads)
                                                   : measure_all<WideRow<Logit>>(threads);
    if (measured.code != Code::ok)
      return measured;
#pragma omp parallel num_threads(threads)
    {
      Trouble mine;
#pragma omp for schedule(static)
      for (std::int64_t p = 0; p < a.particles; ++p)
        for (std::int64_t c = p * a.branch; c < (p + 1) * a.branch; ++c)
          a.ratios[c] = ratio(p, c, mine);
#pragma omp critical(fastguide_log_ratio)
      tokens.key = mine.key < tokens.key ? mine.key : tokens.key;
    }
    return tokens.status();
  }

private:
  const MaskedLogRatioArgs& a;
  std::int64_t rows;
  Zeros<unsigned char> needed; // whether a child needs the row
  Zeros<double> sums;          // log of the sum of its weights with the shift over that without
  Zeros<float> least;          // the least logit that is kept

  std::int64_t state_of(std::int64_t particle) const {
    return a.ancestors.data ? a.ancestors[particle] : particle;
  }
  std::int64_t length_of(std::int64_t particle) const {
    return a.lengths ? a.lengths[particle / (a.particles / a.groups)] : a.length;
  }
  const Token* tokens_of(std::int64_t state) const {
    return static_cast<const Token*>(a.tokens) + state * a.length;
  }
  const Token* child(std::int64_t c) const { return static_cast<const Token*>(a.children) + c * a.length; }
  const Logit* logits(std::int64_t row) const {
    return static_cast<const Logit*>(a.logits) + row / a.length * a.state_stride +
           row % a.length * a.logits_stride;
  }
  const float* bias(std::int64_t row) const {
    return a.bias ? a.bias + row % a.length * a.bias_stride : nullptr;
  }
  const float* shifts(std::int64_t row) const {
    return a.shift + row / a.length * a.shift_state_stride + row % a.length * a.shift_stride;
  }

  // Bit i: position 64 * chunk + i, below `length`, was the mask in the parent and is not in the child.
  static std::uint64_t revealed(const Token* parent, const Token* child, std::int64_t chunk,
                                std::int64_t length, std::int64_t vocab, bool& strange_parent,
                                bool& strange_child) {
    const int n = length - 64 * chunk < 64 ? static_cast<int>(length - 64 * chunk) : 64;
    Token unused[64];
    const std::uint64_t open = masked(parent + 64 * chunk, n, vocab, strange_parent, unused);
    return open & ~masked(child + 64 * chunk, n, vocab, strange_child, unused);
  }

  void mark(std::int64_t p, Trouble& trouble) {
    const std::int64_t state = state_of(p), length = length_of(p);
    if (state < 0 || state >= a.states) {
      trouble.add(p, Code::out_of_range);
      return;
    }
    const Token* parent = tokens_of(state);
    for (std::int64_t c = p * a.branch; c < (p + 1) * a.branch; ++c) {
      for (std::int64_t chunk = 0; 64 * chunk < length; ++chunk) {
        bool parent_is_strange = false, child_is_strange = false;
        std::uint64_t bits =
            revealed(parent, child(c), chunk, length, a.vocab, parent_is_strange, child_is_strange);
        if (parent_is_strange)
          trouble.add(a.particles + state * a.length + 64 * chunk +
                          first_strange(parent + 64 * chunk, a.vocab),
                      Code::out_of_range);
        if (child_is_strange)
          trouble.add(a.particles + rows + c * a.length + 64 * chunk +
                          first_strange(child(c) + 64 * chunk, a.vocab),
                      Code::out_of_range);
        for (; bits; bits &= bits - 1) // particles of several threads may need one row
          __atomic_store_n(needed.data + state * a.length + 64 * chunk + __builtin_ctzll(bits),
                           static_cast<unsigned char>(1), __ATOMIC_RELAXED);
      }
    }
  }

  template <typename Row> Status measure_all(int threads) {
    const RowSettings settings{a.inverse_temperature, a.vocab, a.top_k, a.top_p};
    Trouble trouble;
    bool lacking = false;
    Interrupt interrupt;
#pragma omp parallel num_threads(threads)
    {
      Trouble mine;
      Row reader(settings);
      bool stopped = false;
#pragma omp for schedule(dynamic, 1 + 4096 / a.vocab)
      for (std::int64_t r = 0; r < rows; ++r) {
        if (r % kAhead == 0 && interrupt.requested())
          stopped = true;
        if (stopped)
          continue;
        fetch(r + kAhead);
        if (reader.complete() && needed.data[r])
          measure(r, reader, mine);
      }
#pragma omp critical(fastguide_log_ratio)
      {
        trouble.key = mine.key < trouble.key ? mine.key : trouble.key;
        lacking |= !reader.complete();
      }
    }
    if (interrupt.requested())
      return {Code::interrupted, -1};
    return lacking ? Status{Code::out_of_memory, -1} : trouble.status();
  }

  static constexpr std::int64_t kAhead = 64; // rows; one in twenty is needed at a usual step

  void fetch(std::int64_t row) const {
    if (row >= rows || !needed.data[row])
      return;
    const std::int64_t last = a.vocab < kTokenBlock ? a.vocab - 1 : 0;
    __builtin_prefetch(logits(row));
    __builtin_prefetch(logits(row) + last);
    __builtin_prefetch(shifts(row));
    __builtin_prefetch(shifts(row) + last);
  }

  template <typename Row> void measure(std::int64_t row, Row& reader, Trouble& trouble) {
    Code code = reader.read({logits(row), bias(row), nullptr});
    if (code != Code::ok) {
      trouble.add(2 * row, code);
      return;
    }
    const RowSum without = reader.sum();
    code = reader.read({logits(row), bias(row), shifts(row)});
    if (code != Code::ok) {
      trouble.add(2 * row + 1, code);
      return;
    }
    const RowSum with = reader.sum();
    sums.data[row] =
        static_cast<double>(with.exponent - without.exponent) * kLn2 +
        (log_fixed(static_cast<double>(with.total)) - log_fixed(static_cast<double>(without.total)));
    least.data[row] = without.least;
  }

  double ratio(std::int64_t particle, std::int64_t c, Trouble& trouble) const {
    const std::int64_t state = state_of(particle), length = length_of(particle);
    const Token* own = child(c);
    bool strange = false; // none is: `mark` has looked
    double sum = 0;
    for (std::int64_t chunk = 0; 64 * chunk < length; ++chunk) {
      std::uint64_t bits = revealed(tokens_of(state), own, chunk, length, a.vocab, strange, strange);
      for (; bits; bits &= bits - 1) {
        const std::int64_t i = 64 * chunk + __builtin_ctzll(bits), row = state * a.length + i, token = own[i];
        const float* b = bias(row);
        const float y = scaled(logits(row) + token, b ? b + token : nullptr, a.inverse_temperature);
        const float shifted = y + shifts(row)[token];
        if (!(y >= least.data[row] && shifted >= kLeast))
          trouble.add(2 * rows + c * a.length + i, Code::degenerate);
        sum += sums.data[row] - (static_cast<double>(shifted) - static_cast<double>(y));
      }
    }
    return sum;
  }
};

template <typename Token> Status masked_ratio(const MaskedLogRatioArgs& a) {
  switch (a.logit_type) {
  case LogitType::float32:
    return MaskedRatio<Token, float>(a).run();
  case LogitType::float16:
    return MaskedRatio<Token, Half>(a).run();
  case LogitType::bfloat16:
    return MaskedRatio<Token, BFloat16>(a).run();
  }
  return {Code::invalid_value, -1};
}

} // namespace

Status gaussian_log_ratio(const GaussianLogRatioArgs& a) {
  for (std::int64_t p = 0; a.ancestors.data && p < a.particles; ++p) {
    if (a.ancestors[p] < 0 || a.ancestors[p] >= a.states)
      return {Code::out_of_range, p};
  }
  switch (a.prediction.type) {
  case LogitType::float32:
    return gaussian_shifted<float>(a);
  case LogitType::float16:
    return gaussian_shifted<Half>(a);
  case LogitType::bfloat16:
    return gaussian_shifted<BFloat16>(a);
  }
  return {Code::invalid_value, -1};
}

Status masked_log_ratio(const MaskedLogRatioArgs& a) {
  return a.wide_tokens ? masked_ratio<std::int64_t>(a) : masked_ratio<std::int32_t>(a);
}

} // namespace fg::FG_LEVEL
