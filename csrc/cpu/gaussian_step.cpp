// Tile by tile: the noise of some thousand elements into the first cache, while their parents are fetched
// from memory; then one pass that reads parents and noise and writes the children. Children of one particle
// follow one another on a tile, so that its parents are read from memory once.
//
// A register of counters makes 4 kWideLanes normals. A row of few elements does not fill it, so a tile then
// holds the children of several particles, as long as they are of one group and so of one key.
#include "cpu/gaussian_step.h"

#include "cpu/interrupt.h"
#include "cpu/kernels.h"
#include "cpu/normal.h"
#include "cpu/open_positions.h"
#include "cpu/stream.h"
#include "cpu/token_row.h"

namespace fg::FG_LEVEL {
namespace {

constexpr std::int64_t kTile = 1024;         // elements; 4 KiB of noise
constexpr std::int64_t kBlocks = kTile / 4;  // counters that a tile takes
constexpr std::int64_t kLine = 64;           // bytes
constexpr int kAtOnce = kAbreast * kNormals; // normals that are made together

struct None {}; // the type of elements of a shift that is not there
template <typename T> constexpr bool kGiven = true;
template <> constexpr bool kGiven<None> = false;

template <typename T> FG_HD Floats load_some(const T* from, std::int64_t n) {
  return n >= kLanes ? load_logits(from) : load_first(from, static_cast<int>(n));
}

template <typename Prediction, typename Shift> class Task {
public:
  Task(const GaussianArgs& args, Interrupt& of_call)
      : a(args), interrupt(of_call), per_group(args.particles / args.groups), blocks((args.size + 3) / 4),
        tiles_of_row((args.size + kTile - 1) / kTile),
        streamed(args.particles * args.branch * args.size * 4 >= kStreamed) {}

  // Part `part` of `parts` of the work.
  void run(std::int64_t part, std::int64_t parts) const {
    if (2 * blocks <= kBlocks) {
      const std::int64_t children = a.particles * a.branch;
      small_rows(children * part / parts, children * (part + 1) / parts);
    } else {
      const std::int64_t tiles = a.particles * tiles_of_row;
      large_rows(tiles * part / parts, tiles * (part + 1) / parts);
    }
    if (streamed)
      finish_streams();
  }

private:
  const GaussianArgs& a;
  Interrupt& interrupt;
  std::int64_t per_group, blocks, tiles_of_row; // blocks: of a row
  bool streamed;

  // Elements of parents, from one of a row on.
  struct Parents {
    const float* x;
    const Prediction* prediction;
    const Shift* shift;

    // Prefetches the next `kAtOnce` from element i on.
    FG_HD void fetch(std::int64_t i) const {
      fetch(x + i);
      fetch(prediction + i);
      if constexpr (kGiven<Shift>)
        fetch(shift + i);
    }

  private:
    template <typename T> static FG_HD void fetch(const T* from) {
      for (std::int64_t i = 0; i < kAtOnce; i += kLine / static_cast<std::int64_t>(sizeof(T)))
        __builtin_prefetch(from + i);
    }
  };
  Parents parents(std::int64_t particle, std::int64_t from) const {
    const std::int64_t state = a.ancestors.data ? a.ancestors[particle] : particle;
    Parents p{static_cast<const float*>(a.x.data) + state * a.x.stride + from,
              static_cast<const Prediction*>(a.prediction.data) + state * a.prediction.stride + from,
              nullptr};
    if constexpr (kGiven<Shift>)
      p.shift = static_cast<const Shift*>(a.shift.data) + state * a.shift.stride + from;
    return p;
  }

  std::uint32_t slot(std::int64_t particle, std::int64_t child) const {
    const std::int64_t number = a.slots.data ? a.slots[particle] : particle % per_group;
    return static_cast<std::uint32_t>(number * a.branch + child);
  }

  // `n` elements of a child, written from the front as their noise comes to be known.
  class Piece {
  public:
    FG_HD Piece(const Parents& parents, const GaussianCoefficients& c, std::int64_t group, float* to,
                std::int64_t n, bool streamed)
        : p_(parents), of_x_(c.of_x(group)), of_prediction_(c.of_prediction(group)),
          of_shift_(c.of_shift(group)), sigma_(c.sigma(group)), to_(to), n_(n),
          streamed_(streamed && n >= 2 * kLanes) {}

    // Goes on as far as the first `known` elements of the noise allow in whole registers, or to the end.
    template <bool Noise> FG_HD void write(const float* noise, std::int64_t known) {
      if (streamed_ && i_ == 0) {
        i_ = to_boundary(to_) / static_cast<std::int64_t>(sizeof(float));
        if (i_ > 0)
          store_first<Noise>(noise, 0, i_);
      }
      if (streamed_)
        for (; i_ + kLanes <= known; i_ += kLanes)
          stream(to_ + i_, some<Noise>(noise, i_, kLanes));
      else
        for (; i_ + kLanes <= known; i_ += kLanes)
          store(to_ + i_, some<Noise>(noise, i_, kLanes));
      if (known == n_ && i_ < n_)
        store_first<Noise>(noise, i_, n_ - i_);
    }

  private:
    template <bool Noise> FG_HD Floats some(const float* noise, std::int64_t i, std::int64_t n) const {
      Floats y = load_some(p_.x + i, n) * of_x_ + load_some(p_.prediction + i, n) * of_prediction_;
      if constexpr (kGiven<Shift>)
        y = y + load_some(p_.shift + i, n) * of_shift_;
      if constexpr (Noise)
        y = y + load_some(noise + i, n) * sigma_;
      return y;
    }
    template <bool Noise> FG_HD void store_first(const float* noise, std::int64_t i, std::int64_t n) const {
      const Floats y = some<Noise>(noise, i, n);
      __builtin_memcpy(to_ + i, &y, static_cast<std::size_t>(n) * sizeof(float));
    }

    Parents p_;
    float of_x_, of_prediction_, of_shift_, sigma_;
    float* to_;
    std::int64_t n_, i_ = 0;
    bool streamed_;
  };

  // Tiles [first, last) of all rows, which are long.
  void large_rows(std::int64_t first, std::int64_t last) const {
    alignas(64) float noise[kTile];
    const std::uint32_t step = counter_word(a.step, Stream::noise);
    for (std::int64_t t = first; t < last && !interrupt.requested(); ++t) {
      const std::int64_t particle = t / tiles_of_row, from = t % tiles_of_row * kTile;
      const std::int64_t group = particle / per_group, n = a.size - from < kTile ? a.size - from : kTile;
      const std::int64_t next = t + 1 < last ? t + 1 : t;
      const Parents here = parents(particle, from),
                    ahead = parents(next / tiles_of_row, next % tiles_of_row * kTile);
      for (std::int64_t m = 0; m < a.branch; ++m) {
        Piece piece(here, a.coefficients, group, a.children + (particle * a.branch + m) * a.size + from, n,
                    streamed);
        const ULongs slots = ulongs(slot(particle, m));
        ULongs positions = wide_lane_numbers() + static_cast<std::uint64_t>(from / 4);
        for (std::int64_t i = 0; i < n; i += kAtOnce) {
          const std::int64_t known = n - i < kAtOnce ? n : i + kAtOnce;
          if (m == 0)
            ahead.fetch(i);
          if (a.coefficients.sigma(group) == 0) {
            piece.template write<false>(nullptr, known);
            continue;
          }
          Counters counters;
          for (int k = 0; k < kAbreast; ++k) {
            counters.slots[k] = slots;
            counters.positions[k] = positions;
            positions += kWideLanes;
          }
          make_normals(static_cast<std::uint64_t>(a.seeds[group]), counters, step, noise + i);
          piece.template write<true>(noise, known);
        }
      }
    }
  }

  // Children [first, last) of all, whose rows are short.
  void small_rows(std::int64_t first, std::int64_t last) const {
    alignas(64) float noise[kTile + kAtOnce];
    alignas(64) std::uint64_t slots[kBlocks + kAtOnce] = {}, positions[kBlocks + kAtOnce] = {};
    const std::uint32_t step = counter_word(a.step, Stream::noise);
    const std::int64_t children_of_group = per_group * a.branch, together = kBlocks / blocks;
    for (std::int64_t begin = first; begin < last && !interrupt.requested();) {
      const std::int64_t group = begin / children_of_group, end_of_group = (group + 1) * children_of_group;
      std::int64_t end = begin + together < last ? begin + together : last;
      end = end < end_of_group ? end : end_of_group;
      const bool noisy = a.coefficients.sigma(group) != 0;
      std::int64_t known = 0; // counters
      for (std::int64_t c = begin; noisy && c < end; ++c) {
        const std::uint32_t own = slot(c / a.branch, c % a.branch);
        for (std::int64_t b = 0; b < blocks; ++b, ++known) {
          slots[known] = own;
          positions[known] = static_cast<std::uint64_t>(b);
        }
      }
      for (std::int64_t i = 0; i < known; i += kAbreast * kWideLanes) {
        Counters counters;
        __builtin_memcpy(counters.slots, slots + i, sizeof counters.slots);
        __builtin_memcpy(counters.positions, positions + i, sizeof counters.positions);
        make_normals(static_cast<std::uint64_t>(a.seeds[group]), counters, step, noise + 4 * i);
      }
      for (std::int64_t c = begin; c < end; ++c) {
        Piece piece(parents(c / a.branch, 0), a.coefficients, group, a.children + c * a.size, a.size,
                    streamed);
        if (noisy)
          piece.template write<true>(noise + (c - begin) * 4 * blocks, a.size);
        else
          piece.template write<false>(nullptr, a.size);
      }
      begin = end;
    }
  }
};

Status check(const GaussianArgs& a) {
  Trouble trouble;
  const std::int64_t per_group = a.particles / a.groups, most = (0xFFFFFFFF - (a.branch - 1)) / a.branch;
  for (std::int64_t p = 0; p < a.particles; ++p) {
    const std::int64_t state = a.ancestors.data ? a.ancestors[p] : p;
    const std::int64_t number = a.slots.data ? a.slots[p] : p % per_group;
    if (state < 0 || state >= a.states)
      trouble.add(p, Code::out_of_range);
    if (number < 0 || number > most)
      trouble.add(a.particles + p, Code::out_of_range);
  }
  return trouble.status();
}

// A nanosecond an element; a team of threads costs some microseconds.
template <typename Prediction, typename Shift> Status step(const GaussianArgs& a) {
  Interrupt interrupt;
  const Task<Prediction, Shift> task(a, interrupt);
  const int threads = a.particles * a.branch * a.size < 8192 ? 1 : a.threads;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t)
    task.run(t, threads);
  return interrupt.requested() ? Status{Code::interrupted, -1} : Status{};
}

template <typename Prediction> Status step_shifted(const GaussianArgs& a) {
  if (!a.shift.data)
    return step<Prediction, None>(a);
  switch (a.shift.type) {
  case LogitType::float32:
    return step<Prediction, float>(a);
  case LogitType::float16:
    return step<Prediction, Half>(a);
  case LogitType::bfloat16:
    return step<Prediction, BFloat16>(a);
  }
  return {Code::invalid_value, -1};
}

} // namespace

Status gaussian_step(const GaussianArgs& a) {
  const Status status = check(a);
  if (status.code != Code::ok || a.size == 0 || a.branch == 0)
    return status;
  switch (a.prediction.type) {
  case LogitType::float32:
    return step_shifted<float>(a);
  case LogitType::float16:
    return step_shifted<Half>(a);
  case LogitType::bfloat16:
    return step_shifted<BFloat16>(a);
  }
  return {Code::invalid_value, -1};
}

} // namespace fg::FG_LEVEL
