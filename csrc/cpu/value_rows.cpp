#include "cpu/value_rows.h"

#include <cmath>

#include "cpu/value_linear.h"
#include "cpu/value_mlp.h"
#include "cpu/value_motif_count.h"
#include "cpu/value_position_weights.h"
#include "cpu/value_potts.h"
#include "cpu/value_quadratic.h"

namespace fg::FG_LEVEL {
namespace {

constexpr std::int64_t kBytes = 256; // tokens of a vocabulary of this size are kept as bytes

template <typename Value> struct Dense {
  static std::int64_t bytes(const EvaluateArgs& a) { return Value::bytes(a); }
  static Status rows(const EvaluateArgs& a, std::int64_t first, std::int64_t count, float* out,
                     void* workspace) {
    auto* tile = static_cast<float*>(workspace);
    alignas(64) double sums[kDenseRows];
    for (std::int64_t row = 0; row < count; row += kDenseRows) {
      const std::int64_t n = row + kDenseRows < count ? kDenseRows : count - row;
      transpose_rows(static_cast<const float*>(a.states) + (first + row) * a.columns, n, a.columns, tile);
      Value::tile(a, tile, sums);
      round_values(sums, n, out + row);
    }
    return {};
  }
};

template <template <typename> typename Value> struct Tokens {
  template <typename Token> static std::int64_t tokens_bytes(const EvaluateArgs& a) {
    return (Value<Token>::kRows * a.columns * static_cast<std::int64_t>(sizeof(Token)) + 63) / 64 * 64;
  }
  static std::int64_t bytes(const EvaluateArgs& a) {
    return narrow(a) ? tokens_bytes<std::uint8_t>(a) + Value<std::uint8_t>::bytes(a)
                     : tokens_bytes<std::int32_t>(a) + Value<std::int32_t>::bytes(a);
  }
  static bool narrow(const EvaluateArgs& a) { return Value<std::uint8_t>::vocab(a) <= kBytes; }

  template <typename Token>
  static Status rows_of(const EvaluateArgs& a, std::int64_t first, std::int64_t count, float* out,
                        void* workspace) {
    using Kind = Value<Token>;
    auto* tokens = static_cast<Token*>(workspace);
    for (std::int64_t row = 0; row < count; row += Kind::kRows) {
      const std::int64_t n = row + Kind::kRows < count ? Kind::kRows : count - row;
      const std::int64_t outside = read_tokens(a, first + row, n, Kind::vocab(a), tokens);
      if (outside >= 0)
        return {Code::out_of_range, (first + row) * a.columns + outside};
      Kind::tile(a, tokens, n, out + row, static_cast<char*>(workspace) + tokens_bytes<Token>(a));
    }
    return {};
  }
  static Status rows(const EvaluateArgs& a, std::int64_t first, std::int64_t count, float* out,
                     void* workspace) {
    return narrow(a) ? rows_of<std::uint8_t>(a, first, count, out, workspace)
                     : rows_of<std::int32_t>(a, first, count, out, workspace);
  }
};

// A function of the user's own. Where it fails it cannot say so: what it leaves unwritten stays NaN.
struct Function {
  static std::int64_t bytes(const EvaluateArgs&) { return 0; }
  static Status rows(const EvaluateArgs& a, std::int64_t first, std::int64_t count, float* out, void*) {
    const std::int64_t size = a.type == StateType::uint8                                   ? 1
                              : a.type == StateType::float32 || a.type == StateType::int32 ? 4
                                                                                           : 8;
    for (std::int64_t i = 0; i < count; ++i)
      out[i] = NAN;
    const auto function = reinterpret_cast<ValueFunction>(a.settings[0]);
    function(static_cast<const char*>(a.states) + first * a.columns * size, count, a.columns, out);
    for (std::int64_t i = 0; i < count; ++i) {
      if (out[i] != out[i])
        return {Code::invalid_value, first + i};
    }
    return {};
  }
};

// Calls `visit` with the kind of `a`.
template <typename Visit> auto with_kind(const EvaluateArgs& a, Visit visit) {
  switch (a.kind) {
  case ValueKind::linear:
    return visit(LinearValue{});
  case ValueKind::diagonal_quadratic:
    return visit(DiagonalQuadraticValue{});
  case ValueKind::quadratic:
    return visit(Dense<QuadraticValue>{});
  case ValueKind::mlp:
    return visit(Dense<MlpValue>{});
  case ValueKind::position_weights:
    return visit(Tokens<PositionWeights>{});
  case ValueKind::motif_count:
    return visit(Tokens<MotifCount>{});
  case ValueKind::potts:
    return visit(Tokens<PottsValue>{});
  default:
    return visit(Function{});
  }
}

} // namespace

std::int64_t value_bytes(const EvaluateArgs& a) {
  return with_kind(a, [&a](auto kind) { return kind.bytes(a); });
}

std::int64_t value_work(const EvaluateArgs& a) {
  switch (a.kind) {
  case ValueKind::quadratic:
  case ValueKind::potts:
    return a.columns * a.columns;
  case ValueKind::mlp: {
    std::int64_t work = 0;
    for (std::int64_t layer = 0; layer < MlpValue::layers(a); ++layer)
      work += MlpValue::widths(a)[layer] * MlpValue::widths(a)[layer + 1];
    return work / 8;
  }
  case ValueKind::function:
    return 1024 + a.columns; // unknown, and worth a thread where it is much
  default:
    return a.columns;
  }
}

Status value_rows(const EvaluateArgs& a, std::int64_t first, std::int64_t count, float* out,
                  void* workspace) {
  return with_kind(a, [&](auto kind) { return kind.rows(a, first, count, out, workspace); });
}

} // namespace fg::FG_LEVEL
