// Reveals and draws in two stages. The first decides, from Philox words alone, which masked positions of
// which children are revealed (one call serves four positions, a register of lanes as many calls) and lists
// the draws. The second reads the rows of the listed draws, each row once for all the draws it serves:
// - rows of one block (V <= 512): a particle at a time, whose children share its rows;
// - wider rows: sorted over the whole call, because particles that continue the same state share rows too
//   (at the first step all of them do), and one row is work enough for a thread.
#include "cpu/masked.h"

#include <cstdlib>

#include "core/categorical.h"
#include "cpu/interrupt.h"
#include "cpu/lanes.h"
#include "cpu/open_positions.h"
#include "cpu/token_row.h"

namespace fg::FG_LEVEL {
namespace {

struct Draw {
  std::int64_t at;  // in children
  std::int64_t row; // state * length + position
  std::uint32_t slot, position;
  std::uint64_t word;
};

// A growing list; malloc because a standard container would emit code above the baseline under a shared name.
struct Draws {
  Draw* data = nullptr;
  std::int64_t count = 0, capacity = 0;

  Draws() = default;
  Draws(const Draws&) = delete;
  Draws& operator=(const Draws&) = delete;
  ~Draws() { std::free(data); }

  bool reserve(std::int64_t more) {
    if (count + more <= capacity)
      return true;
    const std::int64_t wanted = 2 * capacity + more;
    void* grown = std::realloc(data, static_cast<std::size_t>(wanted) * sizeof(Draw));
    if (!grown)
      return false;
    data = static_cast<Draw*>(grown);
    capacity = wanted;
    return true;
  }
};

// Bit i of an 8-bit number moved to bit 4 i.
struct Spread {
  std::uint32_t of[256];
  constexpr Spread() : of() {
    for (std::uint32_t n = 0; n < 256; ++n)
      for (std::uint32_t i = 0; i < 8; ++i)
        of[n] |= (n >> i & 1u) << (4 * i);
  }
};
constexpr Spread kSpread;

FG_HD std::uint32_t below(ULongs words, std::uint64_t threshold) {
#if defined(FG_LEVEL_avx512)
  const __m512i low = _mm512_and_si512((__m512i)words, _mm512_set1_epi64(0xFFFFFFFF));
  return _mm512_cmplt_epu64_mask(low, _mm512_set1_epi64(static_cast<long long>(threshold)));
#elif defined(FG_LEVEL_avx2)
  const __m256i low = _mm256_and_si256((__m256i)words, _mm256_set1_epi64x(0xFFFFFFFF));
  const __m256i less = _mm256_cmpgt_epi64(_mm256_set1_epi64x(static_cast<long long>(threshold)), low);
  return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(less)));
#else
  std::uint32_t bits = 0;
  for (int i = 0; i < kWideLanes; ++i)
    bits |= static_cast<std::uint32_t>((words[i] & 0xFFFFFFFFu) < threshold) << i;
  return bits;
#endif
}

// Bit i: position 64 * chunk + i of the child in `slot` would be revealed.
FG_HD std::uint64_t revealed(std::uint64_t key, std::uint32_t slot, std::int64_t chunk, const MaskedArgs& a) {
  if (a.threshold > 0xFFFFFFFFu)
    return ~std::uint64_t{0};
  const ULongs step = ulongs(counter_word(a.step, Stream::positions));
  std::uint64_t bits = 0;
  for (int i = 0; i < 16; i += kWideLanes) {
    const std::uint64_t first = static_cast<std::uint64_t>(16 * chunk + i);
    const WordLanes words = philox_lanes(key, ulongs(0), ulongs(slot), wide_lane_numbers() + first, step);
    std::uint64_t some = 0;
    for (int j = 0; j < 4; ++j)
      some |= static_cast<std::uint64_t>(kSpread.of[below(words.w[j], a.threshold)]) << j;
    bits |= some << (4 * i);
  }
  return bits;
}

// Fills in the words of draws [from, draws.count), all of one group.
FG_HD void make_words(Draws& draws, std::int64_t from, std::uint64_t key, const MaskedArgs& a) {
  if (a.inverse_temperature == 0)
    return;
  const std::uint32_t step = static_cast<std::uint32_t>(a.step) * 16u + a.stream;
  for (std::int64_t i = from; i < draws.count; i += kWideLanes) {
    const int n = draws.count - i < kWideLanes ? static_cast<int>(draws.count - i) : kWideLanes;
    std::uint64_t slots[kWideLanes] = {}, positions[kWideLanes] = {}, low[kWideLanes], high[kWideLanes];
    for (int k = 0; k < n; ++k) {
      slots[k] = draws.data[i + k].slot;
      positions[k] = draws.data[i + k].position;
    }
    const WordLanes words =
        philox_lanes(key, ulongs(0), load<ULongs>(slots), load<ULongs>(positions), ulongs(step));
    store(low, words.w[0] & 0xFFFFFFFFu);
    store(high, words.w[1] << 32);
    for (int k = 0; k < n; ++k)
      draws.data[i + k].word = high[k] | low[k];
  }
}

// The arguments with the types of the tokens and logits known.
template <typename Token, typename Logit> struct Task {
  const MaskedArgs& a;
  Interrupt& interrupt;
  const Token* tokens = static_cast<const Token*>(a.tokens);
  Token* children = static_cast<Token*>(a.children);
  std::int64_t per_group = a.particles / a.groups;

  const Logit* logits(std::int64_t state, std::int64_t position) const {
    return static_cast<const Logit*>(a.logits) + state * a.state_stride + position * a.logits_stride;
  }

  // Copies the tokens of a particle to its children and lists their draws, by position and then by child.
  // `bits` has one entry a child.
  bool reveal(std::int64_t particle, Draws& draws, std::uint64_t* bits, Trouble& trouble) const {
    const std::int64_t group = particle / per_group;
    const std::int64_t state = a.ancestors.data ? a.ancestors[particle] : particle;
    const std::int64_t number = a.slots.data ? a.slots[particle] : particle - group * per_group;
    if (state < 0 || state >= a.states) {
      trouble.add(particle, Code::out_of_range);
      return true;
    }
    if (number < 0 || number > (0xFFFFFFFF - (a.branch - 1)) / a.branch) {
      trouble.add(a.particles + particle, Code::out_of_range);
      return true;
    }
    const Token* from = tokens + state * a.length;
    Token* to = children + particle * a.branch * a.length;
    for (std::int64_t m = 0; m < a.branch; ++m)
      __builtin_memcpy(to + m * a.length, from, static_cast<std::size_t>(a.length) * sizeof(Token));

    const std::uint64_t key = static_cast<std::uint64_t>(a.seeds[group]);
    const std::uint32_t slot = static_cast<std::uint32_t>(number * a.branch);
    const std::int64_t length = a.lengths ? a.lengths[group] : a.length;
    for (std::int64_t chunk = 0; 64 * chunk < length && !interrupt.requested(); ++chunk) {
      const int n = length - 64 * chunk < 64 ? static_cast<int>(length - 64 * chunk) : 64;
      bool strange = false;
      const std::uint64_t open = masked(from + 64 * chunk, n, a.vocab, strange);
      if (strange)
        trouble.add(2 * a.particles + state * a.length + 64 * chunk +
                        first_strange(from + 64 * chunk, a.vocab),
                    Code::out_of_range);
      if (!open)
        continue;
      std::uint64_t any = 0;
      for (std::int64_t m = 0; m < a.branch; ++m) {
        bits[m] = open & revealed(key, slot + static_cast<std::uint32_t>(m), chunk, a);
        any |= bits[m];
      }
      if (!draws.reserve(__builtin_popcountll(any) * a.branch + 1))
        return false;
      for (; any; any &= any - 1) {
        const int bit = __builtin_ctzll(any);
        const std::int64_t position = 64 * chunk + bit;
        __builtin_prefetch(logits(state, position));
        __builtin_prefetch(logits(state, position) + (a.vocab < 64 ? a.vocab : 64) - 1);
        for (std::int64_t m = 0; m < a.branch; ++m) {
          draws.data[draws.count] = {(particle * a.branch + m) * a.length + position,
                                     state * a.length + position, slot + static_cast<std::uint32_t>(m),
                                     static_cast<std::uint32_t>(position), 0};
          draws.count += static_cast<std::int64_t>(bits[m] >> bit & 1u);
        }
      }
    }
    return true;
  }

  // Makes the draws [first, last), those of one row next to each other.
  template <typename Row> void draw(Row& rows, const Draw* first, const Draw* last, Trouble& trouble) const {
    const Draw* runs[Row::kRows + 1];
    while (first < last) {
      const Logit* x[Row::kRows];
      const float* b[Row::kRows];
      runs[0] = first;
      for (int r = 0; r < Row::kRows; ++r) {
        const Draw* next = runs[r] < last ? runs[r] : first; // too few rows: one of them twice, without draws
        x[r] = logits(next->row / a.length, next->position);
        b[r] = a.bias ? a.bias + next->position * a.bias_stride : nullptr;
        for (next = runs[r]; next < last && next->row == runs[r]->row;)
          ++next;
        runs[r + 1] = next;
      }
      Code codes[Row::kRows];
      std::int64_t tokens[Row::kRows] = {};
      if (a.inverse_temperature == 0) {
        for (int r = 0; r < Row::kRows; ++r)
          codes[r] = largest_token(x[r], b[r], a.vocab, tokens[r]);
      } else {
        rows.read(x, b, a.inverse_temperature, a.vocab, codes);
      }
      for (int r = 0; r < Row::kRows; ++r) {
        for (const Draw* d = runs[r]; d < runs[r + 1]; ++d) {
          if (codes[r] != Code::ok)
            trouble.add(d->at, codes[r]);
          else
            children[d->at] =
                static_cast<Token>(a.inverse_temperature == 0 ? tokens[r] : rows.draw(r, d->word));
        }
      }
      first = runs[Row::kRows];
    }
  }
};

// Out-of-range indices are reported before bad rows: a kernel that met one has not read every row.
struct Outcome {
  Trouble ranges, rows;
  bool short_of_memory = false;

  void add(const Outcome& other) {
    ranges.key = other.ranges.key < ranges.key ? other.ranges.key : ranges.key;
    rows.key = other.rows.key < rows.key ? other.rows.key : rows.key;
    short_of_memory |= other.short_of_memory;
  }
  Status status() const {
    if (short_of_memory)
      return {Code::out_of_memory, -1};
    return ranges.key != Trouble::kNone ? ranges.status() : rows.status();
  }
};

std::uint64_t* child_bits(const MaskedArgs& a) {
  return static_cast<std::uint64_t*>(std::malloc(static_cast<std::size_t>(a.branch) * sizeof(std::uint64_t)));
}

// Enough to fill the lanes that make their words, and for the rows to have arrived when they are read; few
// enough for the list to stay in the first cache.
constexpr std::int64_t kDrawsTogether = 64;

template <typename Row, typename Token, typename Logit> Status step_narrow(const MaskedArgs& a, int threads) {
  Interrupt interrupt;
  const Task<Token, Logit> task{a, interrupt};
  Outcome outcome;
#pragma omp parallel num_threads(threads)
  {
    Outcome mine;
    Draws draws;
    Row rows;
    std::uint64_t* bits = child_bits(a);
    mine.short_of_memory = !bits;
    std::int64_t group = 0;
    const auto draw_listed = [&] {
      make_words(draws, 0, static_cast<std::uint64_t>(a.seeds[group]), a);
      task.draw(rows, draws.data, draws.data + draws.count, mine.rows);
      draws.count = 0;
    };
#pragma omp for schedule(static)
    for (std::int64_t p = 0; p < a.particles; ++p) {
      if (interrupt.requested())
        continue;
      if (p / task.per_group != group || draws.count >= kDrawsTogether)
        draw_listed();
      group = p / task.per_group;
      mine.short_of_memory = mine.short_of_memory || !task.reveal(p, draws, bits, mine.ranges);
    }
    draw_listed();
    std::free(bits);
#pragma omp critical(fastguide_masked_step)
    outcome.add(mine);
  }
  return interrupt.requested() ? Status{Code::interrupted, -1} : outcome.status();
}

// The draws of all threads, ordered by row.
struct SortedDraws {
  Draw* data;
  std::int64_t* starts; // of the distinct rows, and one past the last draw
  std::int64_t rows = 0;

  SortedDraws(const Draws* parts, int threads, std::int64_t all_rows) {
    std::int64_t count = 0;
    for (int t = 0; t < threads; ++t)
      count += parts[t].count;
    const std::size_t entries = static_cast<std::size_t>(count) + 1;
    std::int64_t* next =
        static_cast<std::int64_t*>(std::calloc(static_cast<std::size_t>(all_rows), sizeof *next));
    data = static_cast<Draw*>(std::malloc(entries * sizeof *data));
    starts = static_cast<std::int64_t*>(std::malloc(entries * sizeof *starts));
    complete = next && data && starts;
    if (complete) {
      for (int t = 0; t < threads; ++t)
        for (std::int64_t i = 0; i < parts[t].count; ++i)
          ++next[parts[t].data[i].row];
      std::int64_t before = 0;
      for (std::int64_t r = 0; r < all_rows; ++r) {
        const std::int64_t here = next[r];
        next[r] = before;
        if (here)
          starts[rows++] = before;
        before += here;
      }
      starts[rows] = before;
      for (int t = 0; t < threads; ++t)
        for (std::int64_t i = 0; i < parts[t].count; ++i)
          data[next[parts[t].data[i].row]++] = parts[t].data[i];
    }
    std::free(next);
  }
  SortedDraws(const SortedDraws&) = delete;
  SortedDraws& operator=(const SortedDraws&) = delete;
  ~SortedDraws() {
    std::free(data);
    std::free(starts);
  }
  bool complete;
};

template <typename Token, typename Logit> Status step_wide(const MaskedArgs& a, int threads) {
  Interrupt interrupt;
  const Task<Token, Logit> task{a, interrupt};
  Outcome outcome;
  Draws* parts = new Draws[static_cast<std::size_t>(threads)];
#pragma omp parallel num_threads(threads)
  {
    Outcome mine;
    std::uint64_t* bits = child_bits(a);
    mine.short_of_memory = !bits;
#pragma omp for schedule(static)
    for (int t = 0; t < threads; ++t) {
      for (std::int64_t p = a.particles * t / threads; p < a.particles * (t + 1) / threads; ++p) {
        if (interrupt.requested())
          break;
        const std::int64_t listed = parts[t].count;
        mine.short_of_memory = mine.short_of_memory || !task.reveal(p, parts[t], bits, mine.ranges);
        make_words(parts[t], listed, static_cast<std::uint64_t>(a.seeds[p / task.per_group]), a);
      }
    }
    std::free(bits);
#pragma omp critical(fastguide_masked_step)
    outcome.add(mine);
  }
  const SortedDraws sorted(parts, threads, a.states * a.length);
  delete[] parts;
  outcome.short_of_memory |= !sorted.complete;
  if (interrupt.requested())
    return {Code::interrupted, -1};
  if (outcome.status().code != Code::ok)
    return outcome.status();

  const std::size_t blocks = static_cast<std::size_t>((a.vocab + kTokenBlock - 1) / kTokenBlock);
#pragma omp parallel num_threads(threads)
  {
    Outcome mine;
    auto* shares = static_cast<std::int64_t*>(std::malloc(blocks * sizeof(std::int64_t)));
    auto* exponents = static_cast<std::int32_t*>(std::malloc(blocks * sizeof(std::int32_t)));
    mine.short_of_memory = !shares || !exponents;
    WideRow<Logit> row(shares, exponents);
#pragma omp for schedule(dynamic, 2)
    for (std::int64_t r = 0; r < sorted.rows; ++r) {
      if (!mine.short_of_memory && !interrupt.requested())
        task.draw(row, sorted.data + sorted.starts[r], sorted.data + sorted.starts[r + 1], mine.rows);
    }
    std::free(shares);
    std::free(exponents);
#pragma omp critical(fastguide_masked_step)
    outcome.add(mine);
  }
  return interrupt.requested() ? Status{Code::interrupted, -1} : outcome.status();
}

// A team of threads costs some microseconds: not for less work than that.
int useful_threads(const MaskedArgs& a) {
  const double positions = static_cast<double>(a.particles * a.branch) * static_cast<double>(a.length);
  const double revealed = static_cast<double>(a.threshold) * 0x1p-32;
  const double nanoseconds = positions * (0.5 + revealed * (5.0 + 0.2 * static_cast<double>(a.vocab)));
  return nanoseconds < 15e3 ? 1 : a.threads;
}

template <typename Token, typename Logit> Status step(const MaskedArgs& a) {
  const int threads = useful_threads(a);
  if (a.vocab > kTokenBlock)
    return step_wide<Token, Logit>(a, threads);
#if defined(FG_LEVEL_avx512)
  if (a.vocab <= SmallRows::kMostTokens)
    return step_narrow<SmallRows, Token, Logit>(a, threads);
#endif
  return step_narrow<NarrowRow, Token, Logit>(a, threads);
}

template <typename Token> Status step_tokens(const MaskedArgs& a) {
  switch (a.logit_type) {
  case LogitType::float32:
    return step<Token, float>(a);
  case LogitType::float16:
    return step<Token, Half>(a);
  case LogitType::bfloat16:
    return step<Token, BFloat16>(a);
  }
  return {Code::invalid_value, -1};
}

} // namespace

Status masked_step(const MaskedArgs& a) {
  if (a.particles == 0 || a.branch == 0 || a.length == 0)
    return {};
  return a.wide_tokens ? step_tokens<std::int64_t>(a) : step_tokens<std::int32_t>(a);
}

} // namespace fg::FG_LEVEL
