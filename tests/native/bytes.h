// Where trials get their arguments from, and where their results go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace fg::trial {

inline std::uint64_t mix(std::uint64_t x) { // splitmix64
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

// Order matters, platform does not.
class Digest {
public:
  void add(const void* data, std::size_t n) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < n; ++i)
      state_ = (state_ ^ bytes[i]) * 0x100000001B3u; // FNV-1a
    state_ = mix(state_ ^ n);
  }
  void add(std::int64_t x) { add(&x, sizeof x); }
  std::uint64_t value() const { return state_; }

private:
  std::uint64_t state_ = 0xCBF29CE484222325u;
};

// The given bytes first, so that a fuzzer steers by them, then pseudo-random ones that they determine. C++
// leaves open which argument of a call is evaluated first: take one thing a call, or compilers will disagree.
class Bytes {
public:
  Bytes(const std::uint8_t* data, std::size_t n) : data_(data), left_(n) {
    Digest digest;
    digest.add(data, n);
    state_ = digest.value();
  }

  std::uint64_t word(int bytes = 8) {
    std::uint64_t x = 0;
    if (left_ == 0)
      return (state_ = mix(state_)) >> (64 - 8 * bytes);
    for (; bytes > 0 && left_ > 0; --bytes, --left_)
      x = x << 8 | *data_++;
    return x;
  }
  // In [least, most].
  std::int64_t in(std::int64_t least, std::int64_t most) {
    const std::uint64_t span = static_cast<std::uint64_t>(most - least) + 1;
    return least + static_cast<std::int64_t>(word(span <= 256 ? 1 : span <= 65536 ? 2 : 8) % span);
  }
  bool chance(int percent) { return in(0, 99) < percent; }
  double uniform() { return static_cast<double>(word(4)) * 0x1p-32; }
  // Of variance 1, bounded; no library call, which could differ between platforms.
  double normal() {
    double sum = uniform();
    sum += uniform();
    sum += uniform();
    return (sum - 1.5) * 2.0;
  }
  // A size from 1 on: mostly small, at times about a block's, seldom enough for a team of threads.
  std::int64_t size(std::int64_t large) {
    const std::int64_t kind = in(0, 31);
    return kind < 24 ? in(1, 70) : kind < 30 ? in(1, large / 16 + 1) : in(1, large);
  }

private:
  const std::uint8_t* data_;
  std::size_t left_;
  std::uint64_t state_;
};

// `count` log-weights or logits of one manner: plain, steep, equal, mostly forbidden, far from zero, one
// dominating; seldom at the limits of what is allowed, or hostile.
template <typename Real> std::vector<Real> numbers(Bytes& bytes, std::int64_t count) {
  constexpr Real inf = std::numeric_limits<Real>::infinity();
  const Real hostile[] = {-inf,
                          static_cast<Real>(-1e9),
                          static_cast<Real>(1e9),
                          static_cast<Real>(-1e30),
                          static_cast<Real>(0),
                          -static_cast<Real>(0),
                          std::numeric_limits<Real>::denorm_min(),
                          std::numeric_limits<Real>::lowest(),
                          inf,
                          std::numeric_limits<Real>::quiet_NaN(),
                          static_cast<Real>(1.5e9)};
  const int manner = static_cast<int>(bytes.chance(85) ? bytes.in(0, 6) : bytes.in(7, 9));
  const int refused = manner == 9 && bytes.chance(20) ? 3 : 0; // the last of `hostile` are errors
  const double offsets[] = {0, 0, 0, 0, 3000, -3000, 0, 1e9 - 4096, 4096 - 1e9, 0};
  const double scales[] = {1, 30, 0, 1, 1, 5, 1, 1, 1, 1};
  std::vector<Real> x(static_cast<std::size_t>(count));
  for (Real& v : x) {
    v = static_cast<Real>(offsets[manner] + scales[manner] * bytes.normal());
    if (manner == 3 ? !bytes.chance(3) : bytes.chance(5))
      v = -inf;
    if (manner == 9 && bytes.chance(50))
      v = hostile[bytes.in(0, 7)];
  }
  if (count > 0 && manner == 6)
    x[static_cast<std::size_t>(bytes.in(0, count - 1))] = 300;
  for (int i = 0; count > 0 && i < refused; ++i)
    x[static_cast<std::size_t>(bytes.in(0, count - 1))] = hostile[bytes.in(8, 10)];
  return x;
}

// `count` indices in [0, limit), in the trial of an error some of them outside.
inline std::vector<std::int64_t> indices(Bytes& bytes, std::int64_t count, std::int64_t limit, bool hostile) {
  std::vector<std::int64_t> x(static_cast<std::size_t>(count));
  for (std::int64_t& i : x)
    i = bytes.in(0, limit - 1);
  const std::int64_t outside[] = {-1, limit, INT32_MAX, INT32_MIN};
  for (int n = hostile && count > 0 ? 3 : 0; n > 0; --n)
    x[static_cast<std::size_t>(bytes.in(0, count - 1))] = outside[bytes.in(0, 3)];
  return x;
}

} // namespace fg::trial
