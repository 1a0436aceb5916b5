// Logits and states of the types that kernels read.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bytes.h"
#include "cpu/masked.h"

namespace fg::trial {

// 16-bit logits by their bits, all classes of numbers alike; NaN and +inf only in the trial of an error.
inline std::vector<std::uint16_t> sixteen_bits(Bytes& bytes, std::int64_t count, LogitType type, bool plain) {
  const unsigned exponent = type == LogitType::float16 ? 0x7C00 : 0x7F80;
  const bool refused = !plain && bytes.chance(10);
  std::vector<std::uint16_t> x(static_cast<std::size_t>(count));
  for (std::uint16_t& v : x) {
    v = static_cast<std::uint16_t>(bytes.word(2));
    if (plain) // below 2, of either sign
      v = static_cast<std::uint16_t>((v & 0xBFFF) | 0x2000);
    if ((v & exponent) == exponent || (type == LogitType::bfloat16 && !plain && (v & 0x7FFF) >= 0x4E00))
      v = refused ? v : static_cast<std::uint16_t>(0x8000 | exponent); // -inf
  }
  return x;
}

inline float to_float(const void* x, LogitType type, std::int64_t i) {
  if (type == LogitType::float32)
    return static_cast<const float*>(x)[i];
  const std::uint32_t v = static_cast<const std::uint16_t*>(x)[i];
  if (type == LogitType::bfloat16)
    return std::bit_cast<float>(v << 16);
  const std::uint32_t exponent = v >> 10 & 31, fraction = v & 0x3FF;
  const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                     : exponent
                         ? std::ldexp(static_cast<float>(fraction + 1024), static_cast<int>(exponent) - 25)
                         : std::ldexp(static_cast<float>(fraction), -24);
  return v & 0x8000 ? -size : size;
}

// `count` finite numbers of moderate size, of a type that the bytes choose.
class Reals {
public:
  Reals(Bytes& bytes, std::int64_t count) : type_(static_cast<LogitType>(bytes.in(0, 2))) {
    if (type_ != LogitType::float32)
      narrow_ = sixteen_bits(bytes, count, type_, true);
    for (std::int64_t i = 0; type_ == LogitType::float32 && i < count; ++i)
      wide_.push_back(static_cast<float>(bytes.normal()));
  }
  LogitType type() const { return type_; }
  const void* data() const {
    return type_ == LogitType::float32 ? static_cast<const void*>(wide_.data()) : narrow_.data();
  }

private:
  LogitType type_;
  std::vector<float> wide_;
  std::vector<std::uint16_t> narrow_;
};

inline std::vector<float> reals(Bytes& bytes, std::int64_t count, double scale = 1) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& v : x)
    v = static_cast<float>(scale * bytes.normal());
  return x;
}

} // namespace fg::trial
