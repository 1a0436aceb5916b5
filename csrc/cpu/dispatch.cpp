#include "cpu/dispatch.h"

#include <atomic>
#include <stdexcept>

namespace fg {
namespace {

#define FG_ENTRY(name, Args) &FG_TABLE_LEVEL::name,
#define FG_TABLE_LEVEL portable
constexpr Kernels kPortable{"portable", FG_KERNELS(FG_ENTRY)};
#undef FG_TABLE_LEVEL
#ifdef FG_HAVE_AVX2
#define FG_TABLE_LEVEL avx2
constexpr Kernels kAvx2{"avx2", FG_KERNELS(FG_ENTRY)};
#undef FG_TABLE_LEVEL
#endif
#ifdef FG_HAVE_AVX512
#define FG_TABLE_LEVEL avx512
constexpr Kernels kAvx512{"avx512", FG_KERNELS(FG_ENTRY)};
#undef FG_TABLE_LEVEL
#endif
#ifdef FG_HAVE_NEON
#define FG_TABLE_LEVEL neon
constexpr Kernels kNeon{"neon", FG_KERNELS(FG_ENTRY)};
#undef FG_TABLE_LEVEL
#endif

std::vector<const Kernels*> available() {
  std::vector<const Kernels*> levels{&kPortable};
#ifdef FG_HAVE_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    levels.push_back(&kAvx2);
#endif
#ifdef FG_HAVE_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    levels.push_back(&kAvx512);
#endif
#ifdef FG_HAVE_NEON
  levels.push_back(&kNeon); // part of every 64-bit Arm processor
#endif
  return levels;
}

std::atomic<const Kernels*>& in_force() {
  static std::atomic<const Kernels*> level{available().back()};
  return level;
}

} // namespace

const Kernels& kernels() {
  return *in_force().load(std::memory_order_relaxed);
}

std::vector<std::string> level_names() {
  std::vector<std::string> names;
  for (const Kernels* k : available())
    names.emplace_back(k->level);
  return names;
}

void force_level(const std::string& name) {
  for (const Kernels* k : available()) {
    if (name == k->level) {
      in_force().store(k);
      return;
    }
  }
  throw std::invalid_argument("SIMD level '" + name + "' is not available on this processor");
}

} // namespace fg
