// One trial of an op: arguments from a stream of bytes, run by every SIMD level on several numbers of
// threads. They must agree bit for bit; what they agree on must keep the op's promises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "bytes.h"
#include "cpu/dispatch.h"

namespace fg::trial {

struct Trial {
  const char* name;
  void (*run)(Bytes&, Digest&);
};
std::vector<Trial>& trials();

// A file an op: `const Registered registered("select", ...)`.
struct Registered {
  Registered(const char* name, void (*run)(Bytes&, Digest&)) { trials().push_back({name, run}); }
};

// How many trials ended with each code since it was last cleared: not all may be errors.
inline std::map<Code, std::int64_t>& tally() {
  static std::map<Code, std::int64_t> counts;
  return counts;
}

// The build that runs, for messages.
inline std::string& build() {
  static std::string name;
  return name;
}

#define FG_REQUIRE(condition) ((condition) ? void() : ::fg::trial::fail(#condition, __FILE__, __LINE__))
[[noreturn]] inline void fail(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: %s does not hold (%s)\n", file, line, condition, build().c_str());
  std::abort();
}

// Memory that a kernel writes to: of the exact size, so that a sanitizer sees a byte too many.
class Output {
public:
  explicit Output(std::int64_t bytes) : bytes_(static_cast<std::size_t>(bytes), 0xA5) {}
  template <typename T> T* as() { return reinterpret_cast<T*>(bytes_.data()); }
  template <typename T> const T* as() const { return reinterpret_cast<const T*>(bytes_.data()); }
  const std::vector<unsigned char>& bytes() const { return bytes_; }
  bool operator==(const Output&) const = default;

private:
  std::vector<unsigned char> bytes_;
};

struct Result {
  Status status;
  std::vector<Output> outputs; // none where the status leaves them undefined

  void fold_into(Digest& digest) const {
    digest.add(static_cast<std::int64_t>(status.code));
    digest.add(status.index);
    for (const Output& output : outputs)
      digest.add(output.bytes().data(), output.bytes().size());
  }
};

// Calls call(kernels, threads, outputs) -> Status for every build and returns the one result of them all.
// Outputs count where the code is ok, and with `keep` also where it is degenerate.
template <typename Call> Result agreed(const std::vector<Output>& blank, bool keep, Call call) {
  Result first;
  for (const std::string& level : level_names()) {
    force_level(level);
    for (const int threads : {1, 2, 5}) {
      const bool is_first = build().empty();
      build() = level + ", " + std::to_string(threads) + " threads";
      Result result{{}, blank};
      result.status = call(kernels(), threads, result.outputs);
      if (result.status.code != Code::ok && !(keep && result.status.code == Code::degenerate))
        result.outputs.clear();
      if (is_first)
        first = result;
      FG_REQUIRE(result.status.code == first.status.code);
      FG_REQUIRE(result.status.index == first.status.index);
      FG_REQUIRE(result.outputs == first.outputs);
    }
  }
  build().clear();
  ++tally()[first.status.code];
  return first;
}

// The same indices as int32 where they are not to be wide.
class Numbers {
public:
  Numbers(const std::vector<std::int64_t>& values, bool wide) : wide_(wide), values_(values) {
    for (const std::int64_t v : values)
      narrow_.push_back(static_cast<std::int32_t>(v));
  }
  bool wide() const { return wide_; }
  const void* data() const {
    return wide_ ? static_cast<const void*>(values_.data()) : static_cast<const void*>(narrow_.data());
  }

private:
  bool wide_;
  std::vector<std::int64_t> values_;
  std::vector<std::int32_t> narrow_;
};

} // namespace fg::trial
