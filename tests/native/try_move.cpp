#include <cstring>

#include "trial.h"

namespace fg::trial {
namespace {

void try_move(Bytes& bytes, Digest& digest) {
  constexpr std::int64_t kRowBytes[] = {0, 1, 2, 4, 8, 16, 12, 76, 200};
  MoveArgs a{};
  a.in_place = bytes.chance(40);
  a.groups = bytes.in(1, 4);
  a.rows = bytes.size(5000);
  a.draws = a.in_place ? a.rows : bytes.size(5000);
  a.tensors = bytes.in(0, 3);
  a.wide_ancestors = bytes.chance(50);
  const std::int64_t total = a.groups * a.draws;

  std::vector<std::int64_t> ancestors = indices(bytes, total, a.rows, false);
  for (std::int64_t g = 0; a.in_place && g < a.groups; ++g) { // a survivor is its own ancestor
    const std::vector<std::int64_t> survivors = indices(bytes, bytes.in(1, a.rows), a.rows, false);
    std::int64_t* group = ancestors.data() + g * a.rows;
    for (std::int64_t i = 0; i < a.rows; ++i)
      group[i] = survivors[static_cast<std::size_t>(group[i]) % survivors.size()];
    for (const std::int64_t i : survivors)
      group[i] = i;
  }
  if (bytes.chance(15))
    ancestors[static_cast<std::size_t>(bytes.in(0, total - 1))] = bytes.in(-1, a.rows);
  const Numbers numbers(ancestors, a.wide_ancestors);
  a.ancestors = numbers.data();

  Status expected;
  for (std::int64_t i = total - 1; i >= 0; --i) {
    const std::int64_t mine = ancestors[static_cast<std::size_t>(i)];
    if (mine < 0 || mine >= a.rows)
      expected = {Code::out_of_range, i};
  }
  for (std::int64_t i = total - 1; a.in_place && expected.code != Code::out_of_range && i >= 0; --i) {
    const std::int64_t* group = ancestors.data() + i / a.draws * a.draws;
    if (group[group[i % a.draws]] != group[i % a.draws])
      expected = {Code::invalid_value, i};
  }

  std::vector<std::int64_t> row_bytes;
  std::vector<std::vector<unsigned char>> sources;
  std::vector<Output> blank;
  for (std::int64_t k = 0; k < a.tensors; ++k) {
    row_bytes.push_back(kRowBytes[bytes.in(0, 8)]);
    sources.emplace_back(static_cast<std::size_t>(a.groups * a.rows * row_bytes.back()));
    std::uint64_t state = bytes.word();
    for (unsigned char& byte : sources.back())
      byte = static_cast<unsigned char>((state = mix(state)) >> 56);
    blank.emplace_back(total * row_bytes.back());
  }
  a.row_bytes = row_bytes.data();

  const Result result =
      agreed(blank, false, [&](const Kernels& kernels, int threads, std::vector<Output>& out) {
        std::vector<const void*> from;
        std::vector<void*> to;
        for (std::size_t k = 0; k < out.size(); ++k) {
          if (a.in_place && !sources[k].empty())
            std::memcpy(out[k].as<void>(), sources[k].data(), sources[k].size());
          to.push_back(out[k].as<void>());
          from.push_back(a.in_place ? to.back() : sources[k].data());
        }
        const std::vector<Output> before = out;
        MoveArgs args = a;
        args.sources = from.data();
        args.targets = to.data();
        args.threads = threads;
        const Status status = kernels.move(args);
        FG_REQUIRE(status.code == Code::ok || out == before); // nothing is written where an index is wrong
        return status;
      });
  FG_REQUIRE(result.status.code == expected.code);
  FG_REQUIRE(result.status.index == expected.index);
  for (std::size_t k = 0; k < result.outputs.size(); ++k) {
    const std::size_t n = static_cast<std::size_t>(row_bytes[k]);
    for (std::int64_t i = 0; n > 0 && i < total; ++i) {
      const std::int64_t row = i / a.draws * a.rows + ancestors[static_cast<std::size_t>(i)];
      FG_REQUIRE(!std::memcmp(result.outputs[k].bytes().data() + static_cast<std::size_t>(i) * n,
                              sources[k].data() + static_cast<std::size_t>(row) * n, n));
    }
  }
  result.fold_into(digest);
}

const Registered registered("move", try_move);

} // namespace
} // namespace fg::trial
