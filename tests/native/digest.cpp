// fastguide_digest [cases] [op...]: prints a digest of each op's results over seeded cases. It depends on the
// number of cases alone: not on the SIMD level, the number of threads, the compiler or the processor.
#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "trial.h"

int main(int argc, char** argv) {
  using namespace fg::trial;
  const std::int64_t cases = argc > 1 ? std::strtoll(argv[1], nullptr, 10) : 1000;
  std::sort(trials().begin(), trials().end(),
            [](const Trial& a, const Trial& b) { return std::strcmp(a.name, b.name) < 0; });
  for (const std::string& level : fg::level_names())
    std::fprintf(stderr, "%s ", level.c_str());
  std::fprintf(stderr, "agree on:\n");
  for (const Trial& trial : trials()) {
    if (argc > 2 && std::none_of(argv + 2, argv + argc, [&](char* a) { return !std::strcmp(a, trial.name); }))
      continue;
    Digest digest;
    for (std::int64_t i = 0; i < cases; ++i) {
      std::string seed = trial.name;
      for (int byte = 0; byte < 4; ++byte)
        seed += static_cast<char>(i >> (8 * byte));
      Digest hash;
      hash.add(seed.data(), seed.size());
      std::uint8_t bytes[8];
      for (int byte = 0; byte < 8; ++byte)
        bytes[byte] = static_cast<std::uint8_t>(hash.value() >> (8 * byte));
      Bytes stream(bytes, sizeof bytes);
      trial.run(stream, digest);
    }
    std::printf("%-18s %016" PRIx64, trial.name, digest.value());
    for (const auto& [code, count] : tally())
      std::printf("  code %d: %" PRId64, static_cast<int>(code), count);
    std::printf("\n");
    std::fflush(stdout);
    tally().clear();
  }
  return 0;
}
