// Changes and draws in two stages. The first decides which positions of which children change, copies the
// parents with the changes to the mask, and lists the draws. The second reads the rows of the listed draws,
// each row once for all the draws it serves:
// - rows of one block (V <= 512): a few particles at a time, whose children share rows;
// - wider rows: sorted over the whole call, because particles that continue the same state share rows too
//   (at the first step all of them do), and one row is work enough for a thread.
// Where confidence decides what is revealed, a stage before them ranks the masked positions of the states.
#include "cpu/masked.h"

#include <type_traits>

#include "core/categorical.h"
#include "cpu/changes.h"
#include "cpu/draws.h"
#include "cpu/interrupt.h"
#include "cpu/small_rows.h"
#include "cpu/token_row.h"

namespace fg::FG_LEVEL {
namespace {

template <typename Row> double confidence(const Row& rows, int r) {
  if constexpr (Row::kRows == 1)
    return rows.confidence();
  else
    return rows.confidence(r);
}

constexpr std::int64_t kPlainChunks = 16;
constexpr std::int64_t kRowsBetweenLooks = 256; // for an interrupt; a look costs a fifth of a small row

// What the stages share, with the types of the tokens and logits known.
template <typename Token, typename Logit> struct Task {
  const MaskedArgs& a;
  Interrupt& interrupt;
  const std::uint64_t* ranks = nullptr; // [states, length], where confidence decides
  const Token* tokens = static_cast<const Token*>(a.tokens);
  Token* children = static_cast<Token*>(a.children);
  std::int64_t per_group = a.particles / a.groups;
  std::int64_t most_slot = (0xFFFFFFFF - (a.branch - 1)) / a.branch;

  RowSettings settings() const {
    return {a.inverse_temperature == 0 ? 1.0f : a.inverse_temperature, a.vocab, a.top_k, a.top_p};
  }
  RowData<Logit> row(std::int64_t state, std::int64_t position) const {
    return {logits(state, position), a.bias ? a.bias + position * a.bias_stride : nullptr,
            a.shift ? a.shift + state * a.shift_state_stride + position * a.shift_stride : nullptr};
  }
  const Logit* logits(std::int64_t state, std::int64_t position) const {
    return static_cast<const Logit*>(a.logits) + state * a.state_stride + position * a.logits_stride;
  }

  FG_HD void fetch(std::int64_t state, std::int64_t position) const {
    const Logit* x = logits(state, position);
    __builtin_prefetch(x);
    __builtin_prefetch(x + (a.vocab < 64 ? a.vocab : 64) - 1);
  }

  std::int64_t state_of(std::int64_t particle) const {
    return a.ancestors.data ? a.ancestors[particle] : particle;
  }
  // A division is as long as the scan of a short row.
  std::int64_t group_of(std::int64_t particle) const { return a.groups == 1 ? 0 : particle / per_group; }
  std::int64_t length_of(std::int64_t group) const { return a.lengths ? a.lengths[group] : a.length; }
  std::int64_t count_of(std::int64_t group) const { return a.counts ? a.counts[group] : a.count; }

  struct Place {
    std::int64_t group, state;
    std::uint32_t slot; // of its first child
  };
  // False, with the trouble noted, where an index is out of range.
  FG_HD bool locate(std::int64_t particle, Place& place, Outcome& outcome) const {
    const std::int64_t group = group_of(particle), state = state_of(particle);
    const std::int64_t number = a.slots.data ? a.slots[particle] : particle - group * per_group;
    if (state < 0 || state >= a.states) {
      outcome.ranges.add(particle, Code::out_of_range);
      return false;
    }
    if (number < 0 || number > most_slot) {
      outcome.ranges.add(a.particles + particle, Code::out_of_range);
      return false;
    }
    place = {group, state, static_cast<std::uint32_t>(number * a.branch)};
    return true;
  }

  // Writes the children of a particle but for their draws, which it lists by position and then by child.
  // False where there was no memory.
  FG_HD bool change(std::int64_t particle, Changes& changes, Draws& draws, Outcome& outcome) const {
    Place place;
    if (!locate(particle, place, outcome))
      return true;
    const auto [group, state, slot] = place;
    const Token* from = tokens + state * a.length;
    Token* to = children + particle * a.branch * a.length;
    changes.find(from, state, group, slot, ranks ? ranks + state * a.length : nullptr, to, outcome.ranges);
    for (std::int64_t m = 0; m < a.branch; ++m) {
      if (m > 0)
        __builtin_memcpy(to + m * a.length, from, static_cast<std::size_t>(a.length) * sizeof(Token));
      if (a.remask_threshold)
        for (std::int64_t c = 0; c < changes.used_chunks(); ++c)
          for (std::uint64_t left = changes.remasked(m, c); left; left &= left - 1)
            to[m * a.length + 64 * c + __builtin_ctzll(left)] = static_cast<Token>(a.vocab);
    }
    for (std::int64_t c = 0; c < changes.used_chunks() && !interrupt.requested(); ++c) {
      std::uint64_t any = 0;
      for (std::int64_t m = 0; m < a.branch; ++m)
        any |= changes.revealed(m, c);
      if (!any)
        continue;
      if (!draws.reserve(__builtin_popcountll(any) * a.branch + 1))
        return false;
      for (; any; any &= any - 1) {
        const int bit = __builtin_ctzll(any);
        const std::int64_t position = 64 * c + bit;
        fetch(state, position);
        for (std::int64_t m = 0; m < a.branch; ++m) {
          draws.data[draws.count] = {(particle * a.branch + m) * a.length + position,
                                     state,
                                     slot + static_cast<std::uint32_t>(m),
                                     static_cast<std::uint32_t>(position),
                                     static_cast<std::uint64_t>(a.seeds[group]),
                                     0};
          draws.count += static_cast<std::int64_t>(changes.revealed(m, c) >> bit & 1u);
        }
      }
    }
    return true;
  }

  // Whether a probability alone decides what changes, and each particle has one child of few chunks.
  bool plain() const {
    return a.count < 0 && !a.remask_threshold && a.branch == 1 && a.length <= 64 * kPlainChunks;
  }
  // `change` of plain particles [first, last), of kPlainChunks chunks together or fewer. Stage by stage, so
  // that the copies and the random words of one do not wait for the branches of another.
  FG_HD bool change_plain(std::int64_t first, std::int64_t last, Draws& draws, Outcome& outcome) const {
    struct Chunk {
      Place place;
      std::int64_t particle, number;
      std::uint64_t bits;
    } chunks[kPlainChunks];
    std::int64_t count = 0, revealed = 0;
    for (std::int64_t p = first; p < last; ++p) {
      Place place;
      if (!locate(p, place, outcome))
        continue;
      const Token* from = tokens + place.state * a.length;
      Token* to = children + p * a.length;
      const std::int64_t length = length_of(place.group);
      for (std::int64_t c = 0; 64 * c < length; ++c) {
        const int n = length - 64 * c < 64 ? static_cast<int>(length - 64 * c) : 64;
        bool strange = false;
        chunks[count++] = {place, p, c, masked(from + 64 * c, n, a.vocab, strange, to + 64 * c)};
        if (strange)
          outcome.ranges.add(2 * a.particles + place.state * a.length + 64 * c +
                                 first_strange(from + 64 * c, a.vocab),
                             Code::out_of_range);
      }
      if (length < a.length)
        __builtin_memcpy(to + length, from + length,
                         static_cast<std::size_t>(a.length - length) * sizeof(Token));
    }
    for (std::int64_t i = 0; i < count; ++i) {
      Chunk& chunk = chunks[i];
      chunk.bits = chosen(chunk.bits, static_cast<std::uint64_t>(a.seeds[chunk.place.group]),
                          chunk.place.slot, chunk.number, a.step, a.reveal_threshold);
      revealed += __builtin_popcountll(chunk.bits);
    }
    if (!draws.reserve(revealed))
      return false;
    for (std::int64_t i = 0; i < count; ++i) {
      const Chunk& chunk = chunks[i];
      for (std::uint64_t left = chunk.bits; left; left &= left - 1) {
        const std::int64_t position = 64 * chunk.number + __builtin_ctzll(left);
        fetch(chunk.place.state, position);
        draws.data[draws.count++] = {chunk.particle * a.length + position,
                                     chunk.place.state,
                                     chunk.place.slot,
                                     static_cast<std::uint32_t>(position),
                                     static_cast<std::uint64_t>(a.seeds[chunk.place.group]),
                                     0};
      }
    }
    return true;
  }

  // Makes the draws [first, last), those of one row next to each other.
  template <typename Row> void draw(Row& rows, const Draw* first, const Draw* last, Trouble& trouble) const {
    for (std::int64_t done = 1; first < last; ++done) {
      if (done % kRowsBetweenLooks == 0 && interrupt.requested())
        return;
      const RowData<Logit> data = row(first->state, first->position);
      std::int64_t token = 0;
      const bool certain = a.inverse_temperature == 0;
      const Code code = certain ? largest_token(data.x, data.bias, a.vocab, token) : rows.read(data);
      for (const Draw& of = *first; first < last && first->same_row(of); ++first) {
        if (code != Code::ok)
          trouble.add(first->at, code);
        else
          children[first->at] = static_cast<Token>(certain ? token : rows.draw(first->word));
      }
    }
  }

  // Makes draws, those of one row next to each other, a row a lane; returns where those left begin, which are
  // too few to fill the lanes unless `all` are asked for.
  const Draw* draw(SmallRows<Logit>& rows, const Draw* first, const Draw* last, bool all,
                   Trouble& trouble) const {
    constexpr int kRows = SmallRows<Logit>::kRows;
    for (std::int64_t done = 1; first < last; ++done) {
      if (done % kRowsBetweenLooks == 0 && interrupt.requested())
        return last;
      const Draw* runs[kRows + 1] = {first};
      RowData<Logit> data[kRows];
      int n = 0;
      std::int64_t longest = 0;
      for (; n < kRows && runs[n] < last; ++n) {
        const Draw* next = runs[n];
        data[n] = row(next->state, next->position);
        while (next < last && next->same_row(*runs[n]))
          ++next;
        longest = next - runs[n] > longest ? next - runs[n] : longest;
        runs[n + 1] = next;
      }
      if (n < kRows && !all)
        return first;
      for (int r = n; r < kRows; ++r)
        data[r] = data[0];
      Code codes[kRows];
      rows.read(data, codes);
      for (std::int64_t i = 0; i < longest; ++i) {
        std::uint64_t words[kRows] = {};
        std::int32_t tokens[kRows];
        for (int r = 0; r < n; ++r)
          words[r] = runs[r] + i < runs[r + 1] ? runs[r][i].word : 0;
        rows.draw(words, tokens);
        for (int r = 0; r < n; ++r) {
          if (runs[r] + i >= runs[r + 1])
            continue;
          if (codes[r] != Code::ok)
            trouble.add(runs[r][i].at, codes[r]);
          else
            children[runs[r][i].at] = static_cast<Token>(tokens[r]);
        }
      }
      first = runs[n];
    }
    return first;
  }

  // How many positions of each state are to be ranked: as many as the longest particle that needs it has.
  bool ranked_lengths(std::int64_t* lengths) const {
    __builtin_memset(lengths, 0, static_cast<std::size_t>(a.states) * sizeof *lengths);
    bool any = false;
    for (std::int64_t p = 0; p < a.particles; ++p) {
      const std::int64_t group = group_of(p), state = state_of(p), length = length_of(group);
      if (state < 0 || state >= a.states || length <= lengths[state] || count_of(group) == 0)
        continue;
      std::int64_t masks = 0;
      for (std::int64_t i = 0; i < length; ++i)
        masks += tokens[state * a.length + i] == a.vocab;
      if (masks <= count_of(group))
        continue;
      lengths[state] = length;
      any = true;
    }
    return any;
  }

  // Writes the keys of `kRows` masked positions or fewer.
  template <typename Row>
  FG_HD void rank(Row& rows, std::int64_t state, const std::int64_t* positions, int n,
                  std::uint64_t* keys) const {
    RowData<Logit> data[Row::kRows];
    Code codes[Row::kRows];
    for (int r = 0; r < Row::kRows; ++r) {
      data[r] = row(state, positions[r < n ? r : 0]);
      data[r].shift = nullptr;
    }
    if constexpr (Row::kRows == 1)
      codes[0] = rows.read(data[0]);
    else
      rows.read(data, codes);
    for (int r = 0; r < n; ++r)
      keys[positions[r]] = codes[r] == Code::ok ? confidence_key(confidence(rows, r)) : refusal_key(codes[r]);
  }
};

// The first bad row among those that particle needed ranked.
template <typename Token, typename Logit>
void report_refusals(const Task<Token, Logit>& task, std::int64_t p, Trouble& trouble) {
  const MaskedArgs& a = task.a;
  const std::int64_t group = task.group_of(p), state = task.state_of(p), length = task.length_of(group);
  if (state < 0 || state >= a.states || task.count_of(group) == 0)
    return;
  std::int64_t masks = 0;
  for (std::int64_t i = 0; i < length; ++i)
    masks += task.tokens[state * a.length + i] == a.vocab;
  if (masks <= task.count_of(group))
    return;
  for (std::int64_t i = 0; i < length; ++i) {
    const std::uint64_t key = task.ranks[state * a.length + i];
    if (task.tokens[state * a.length + i] == a.vocab && is_refusal(key))
      trouble.add(p * a.branch * a.length + i, static_cast<Code>(key - refusal_key(Code::ok)));
  }
}

// Ranks the masked positions of the states that need it.
template <typename Row, typename Token, typename Logit>
Outcome rank_states(const Task<Token, Logit>& task, std::uint64_t* keys, int threads) {
  const MaskedArgs& a = task.a;
  Outcome outcome;
  Buffer<std::int64_t> lengths(a.states);
  outcome.short_of_memory = !lengths.data;
  if (outcome.short_of_memory || !task.ranked_lengths(lengths.data))
    return outcome;
  bool refused = false;
#pragma omp parallel num_threads(threads) reduction(|| : refused)
  {
    Row rows(task.settings());
    const bool complete = rows.complete();
#pragma omp for collapse(2) schedule(dynamic, 1)
    for (std::int64_t s = 0; s < a.states; ++s) {
      for (std::int64_t from = 0; from < a.length; from += 64) {
        if (task.interrupt.requested())
          continue;
        std::int64_t waiting[Row::kRows];
        int n = 0;
        for (std::int64_t i = from; i < from + 64 && i < lengths[s] && complete; ++i) {
          keys[s * a.length + i] = kUnranked;
          if (task.tokens[s * a.length + i] != a.vocab)
            continue;
          waiting[n++] = i;
          if (n == Row::kRows) {
            task.rank(rows, s, waiting, n, keys + s * a.length);
            n = 0;
          }
        }
        if (n)
          task.rank(rows, s, waiting, n, keys + s * a.length);
        for (std::int64_t i = from; i < from + 64 && i < lengths[s] && complete; ++i)
          refused = refused || is_refusal(keys[s * a.length + i]);
      }
    }
    if (!complete) {
#pragma omp critical(fastguide_masked_step)
      outcome.short_of_memory = true;
    }
  }
  if (refused && !outcome.short_of_memory)
    for (std::int64_t p = 0; p < a.particles; ++p)
      report_refusals(task, p, outcome.ranks);
  return outcome;
}

// Enough for the rows to have arrived when they are read; few enough for the list to stay in the first cache.
constexpr std::int64_t kDrawsTogether = 64;

template <typename Row, typename Token, typename Logit>
void step_narrow(const Task<Token, Logit>& task, int threads, Outcome& outcome) {
  const MaskedArgs& a = task.a;
  const bool plain = task.plain();
  const std::int64_t together = plain ? kPlainChunks / ((a.length + 63) / 64) : 1;
#pragma omp parallel num_threads(threads)
  {
    Outcome mine;
    Draws draws;
    Row rows(task.settings());
    Changes changes(a);
    mine.short_of_memory = !changes.complete();
    std::int64_t ready = 0; // draws left over that have their words
    const auto draw_listed = [&]([[maybe_unused]] bool all) {
      make_words(draws.data + ready, draws.count - ready, a);
      const Draw *first = draws.data, *last = first + draws.count;
      if constexpr (Row::kRows == 1) {
        task.draw(rows, first, last, mine.rows);
        draws.count = 0;
      } else {
        draws.drop_first(task.draw(rows, first, last, all, mine.rows) - first);
      }
      ready = draws.count;
    };
#pragma omp for schedule(static) nowait
    for (std::int64_t p = 0; p < a.particles; p += together) {
      if (task.interrupt.requested() || mine.short_of_memory)
        continue;
      const std::int64_t last = p + together < a.particles ? p + together : a.particles;
      mine.short_of_memory =
          plain ? !task.change_plain(p, last, draws, mine) : !task.change(p, changes, draws, mine);
      if (draws.count >= kDrawsTogether)
        draw_listed(false);
    }
    if (draws.count)
      draw_listed(true);
#pragma omp critical(fastguide_masked_step)
    outcome.add(mine);
  }
}

template <typename Token, typename Logit>
void step_wide(const Task<Token, Logit>& task, int threads, Outcome& outcome) {
  const MaskedArgs& a = task.a;
  Draws* parts = new Draws[static_cast<std::size_t>(threads)];
#pragma omp parallel num_threads(threads)
  {
    Outcome mine;
    Changes changes(a);
    mine.short_of_memory = !changes.complete();
#pragma omp for schedule(static)
    for (int t = 0; t < threads; ++t) {
      for (std::int64_t p = a.particles * t / threads; p < a.particles * (t + 1) / threads; ++p) {
        if (task.interrupt.requested())
          break;
        const std::int64_t listed = parts[t].count;
        mine.short_of_memory = mine.short_of_memory || !task.change(p, changes, parts[t], mine);
        make_words(parts[t].data + listed, parts[t].count - listed, a);
      }
    }
#pragma omp critical(fastguide_masked_step)
    outcome.add(mine);
  }
  const SortedDraws sorted(parts, threads, a.states, a.length);
  delete[] parts;
  outcome.short_of_memory |= !sorted.complete;
  if (outcome.status().code != Code::ok || task.interrupt.requested())
    return;

#pragma omp parallel num_threads(threads)
  {
    Outcome mine;
    WideRow<Logit> row(task.settings());
    mine.short_of_memory = !row.complete();
#pragma omp for schedule(dynamic, 2)
    for (std::int64_t r = 0; r < sorted.rows; ++r) {
      if (!mine.short_of_memory && !task.interrupt.requested())
        task.draw(row, sorted.data + sorted.starts[r], sorted.data + sorted.starts[r + 1], mine.rows);
    }
#pragma omp critical(fastguide_masked_step)
    outcome.add(mine);
  }
}

// A team of threads costs some microseconds: not for less work than that.
int useful_threads(const MaskedArgs& a) {
  const double positions = static_cast<double>(a.particles * a.branch) * static_cast<double>(a.length);
  const double revealed = a.count < 0 ? static_cast<double>(a.reveal_threshold) * 0x1p-32 : 1.0;
  const double nanoseconds = positions * (0.5 + revealed * (5.0 + 0.2 * static_cast<double>(a.vocab)));
  return nanoseconds < 15e3 ? 1 : a.threads;
}

template <typename Row, typename Token, typename Logit> Status step_rows(const MaskedArgs& a) {
  const int threads = useful_threads(a);
  Interrupt interrupt;
  Task<Token, Logit> task{a, interrupt};
  Outcome outcome;
  Buffer<std::uint64_t> keys;
  if (a.confidence) {
    keys.resize(a.states * a.length);
    task.ranks = keys.data;
    outcome.short_of_memory = !keys.data;
    if (keys.data)
      outcome.add(rank_states<Row>(task, keys.data, threads));
    if (outcome.short_of_memory)
      return outcome.status();
  }
  if constexpr (std::is_same_v<Row, WideRow<Logit>>)
    step_wide(task, threads, outcome);
  else
    step_narrow<Row>(task, threads, outcome);
  return interrupt.requested() ? Status{Code::interrupted, -1} : outcome.status();
}

template <typename Token, typename Logit> Status step(const MaskedArgs& a) {
  if (a.vocab > kTokenBlock)
    return step_rows<WideRow<Logit>, Token, Logit>(a);
  if (a.vocab <= SmallRows<Logit>::kMostTokens && a.inverse_temperature != 0)
    return step_rows<SmallRows<Logit>, Token, Logit>(a);
  return step_rows<NarrowRow<Logit>, Token, Logit>(a);
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
