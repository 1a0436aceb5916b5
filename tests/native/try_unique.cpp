#include <map>
#include <string_view>

#include "trial.h"

namespace fg::trial {
namespace {

void try_unique(Bytes& bytes, Digest& digest) {
  constexpr std::uint64_t kWeak[] = {0, 1, 0xFF, std::uint64_t{1} << 63};
  UniqueArgs a{};
  const bool weak = bytes.chance(20);
  a.count = bytes.chance(3) ? 0 : weak ? bytes.in(1, 300) : bytes.size(40000);
  a.row_bytes = bytes.chance(50) ? bytes.in(1, 20) : bytes.in(1, 150);
  a.hash_mask = weak ? kWeak[bytes.in(0, 3)] : ~std::uint64_t{0};
  const std::int64_t kinds = bytes.size(a.count + 1);
  std::vector<unsigned char> rows(static_cast<std::size_t>(a.count * a.row_bytes));
  for (std::int64_t i = 0; i < a.count; ++i) {
    const std::uint64_t kind = static_cast<std::uint64_t>(bytes.in(0, kinds - 1));
    for (std::int64_t b = 0; b < a.row_bytes; ++b) // kinds differ in few bytes
      rows[static_cast<std::size_t>(i * a.row_bytes + b)] =
          static_cast<unsigned char>(b % 5 == 4 ? kind >> (8 * (b / 5 % 3)) : 7);
  }
  a.rows = rows.data();

  const std::int64_t size = a.count * 8;
  const std::vector<Output> blank{Output(size), Output(size), Output(size), Output(8)};
  const Result result =
      agreed(blank, false, [&](const Kernels& kernels, int threads, std::vector<Output>& out) {
        UniqueArgs args = a;
        args.representatives = out[0].as<std::int64_t>();
        args.inverse = out[1].as<std::int64_t>();
        args.counts = out[2].as<std::int64_t>();
        args.distinct = out[3].as<std::int64_t>();
        args.threads = threads;
        return kernels.unique(args);
      });
  FG_REQUIRE(result.status.code == Code::ok);

  std::map<std::string_view, std::int64_t> numbers;
  std::vector<std::int64_t> counts;
  for (std::int64_t i = 0; i < a.count; ++i) {
    const std::string_view row(reinterpret_cast<const char*>(rows.data()) + i * a.row_bytes,
                               static_cast<std::size_t>(a.row_bytes));
    const auto [at, is_new] = numbers.try_emplace(row, static_cast<std::int64_t>(counts.size()));
    if (is_new) {
      FG_REQUIRE(result.outputs[0].as<std::int64_t>()[counts.size()] == i);
      counts.push_back(0);
    }
    ++counts[static_cast<std::size_t>(at->second)];
    FG_REQUIRE(result.outputs[1].as<std::int64_t>()[i] == at->second);
  }
  FG_REQUIRE(*result.outputs[3].as<std::int64_t>() == static_cast<std::int64_t>(counts.size()));
  for (std::size_t k = 0; k < counts.size(); ++k)
    FG_REQUIRE(result.outputs[2].as<std::int64_t>()[k] == counts[k]);
  result.fold_into(digest);
}

const Registered registered("unique", try_unique);

} // namespace
} // namespace fg::trial
