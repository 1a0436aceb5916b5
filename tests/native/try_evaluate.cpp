#include <algorithm>
#include <cmath>

#include "logits.h"
#include "trial.h"

namespace fg::trial {
namespace {

void sum_of_bytes(const void* states, std::int64_t rows, std::int64_t columns, float* out) {
  const auto* x = static_cast<const std::uint8_t*>(states);
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < columns; ++i)
      sum += x[row * columns + i];
    out[row] = sum % 997 == 0 ? NAN : static_cast<float>(sum); // NaN: the function failed
  }
}

// All numbers are finite: how a NaN comes out may differ from one processor to the next.
void try_evaluate(Bytes& bytes, Digest& digest) {
  EvaluateArgs a{};
  a.kind = static_cast<ValueKind>(bytes.in(0, 7));
  a.columns = bytes.chance(70) ? bytes.in(1, 24) : bytes.in(1, a.kind == ValueKind::potts ? 40 : 150);
  a.rows = bytes.chance(3) ? 0 : bytes.size(150000 / a.columns + 1);
  const std::int64_t n = a.columns, vocab = bytes.chance(5) ? bytes.in(250, 260) : bytes.in(1, 21);
  const std::int64_t kept = a.kind == ValueKind::potts ? std::min<std::int64_t>(vocab, 21) : vocab;
  const bool dense = a.kind <= ValueKind::mlp;
  const double scale = bytes.chance(20) ? 100 : 1;

  std::vector<std::int64_t> settings;
  std::vector<std::int64_t> sizes; // of the parameters
  switch (a.kind) {
  case ValueKind::linear:
    sizes = {n, 1};
    break;
  case ValueKind::diagonal_quadratic:
    sizes = {n, n, 1};
    break;
  case ValueKind::quadratic:
    sizes = {n * n, n, 1};
    break;
  case ValueKind::mlp: {
    const std::int64_t layers = bytes.in(1, 3);
    settings = {bytes.in(0, 3), layers, n};
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const std::int64_t in = settings.back(), out = layer + 1 < layers ? bytes.in(1, 40) : 1;
      sizes.insert(sizes.end(), {in * out, out});
      settings.push_back(out);
    }
    break;
  }
  case ValueKind::position_weights:
    settings = {bytes.in(1, n), kept};
    sizes = {settings[0] * kept};
    break;
  case ValueKind::motif_count: {
    const std::int64_t motifs = bytes.in(1, 3);
    settings = {kept, motifs};
    for (std::int64_t m = 0; m < motifs; ++m)
      settings.push_back(bytes.in(1, std::min<std::int64_t>(n, 3)));
    std::int64_t tokens = 0;
    for (std::int64_t m = 0; m < motifs; ++m)
      tokens += settings[static_cast<std::size_t>(2 + m)];
    for (; tokens > 0; --tokens)
      settings.push_back(bytes.in(0, std::min<std::int64_t>(kept, 3) - 1));
    break;
  }
  case ValueKind::potts:
    settings = {kept};
    sizes = {n * kept, n * n * kept * kept};
    break;
  case ValueKind::function:
    settings = {static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(&sum_of_bytes))};
    break;
  }
  std::vector<std::vector<float>> parameters;
  std::vector<const float*> from;
  for (const std::int64_t size : sizes)
    parameters.push_back(reals(bytes, size));
  for (const std::vector<float>& p : parameters)
    from.push_back(p.data());
  a.parameters = from.data();
  a.settings = settings.data();

  const std::vector<float> numbers = reals(bytes, dense ? a.rows * n : 0, scale);
  const std::vector<std::int64_t> tokens = indices(bytes, dense ? 0 : a.rows * n, kept, bytes.chance(10));
  const Numbers wide(tokens, true), narrow(tokens, false);
  std::vector<std::uint8_t> small;
  for (const std::int64_t token : tokens)
    small.push_back(static_cast<std::uint8_t>(token));
  a.type = dense                           ? StateType::float32
           : a.kind == ValueKind::function ? StateType::uint8
                                           : static_cast<StateType>(bytes.in(2, 4));
  a.states = dense                        ? static_cast<const void*>(numbers.data())
             : a.type == StateType::uint8 ? small.data()
             : a.type == StateType::int32 ? narrow.data()
                                          : wide.data();

  const std::vector<Output> blank{Output(a.rows * 4)};
  const Result result =
      agreed(blank, false, [&](const Kernels& kernels, int threads, std::vector<Output>& out) {
        EvaluateArgs args = a;
        args.out = out[0].as<float>();
        args.threads = threads;
        return kernels.evaluate(args);
      });
  if (!dense && a.kind != ValueKind::function) {
    const auto token = [&](std::size_t i) { return a.type == StateType::uint8 ? small[i] : tokens[i]; };
    std::size_t first = 0;
    while (first < tokens.size() && 0 <= token(first) && token(first) < kept)
      ++first;
    FG_REQUIRE((result.status.code == Code::out_of_range) == (first < tokens.size()));
    FG_REQUIRE(first == tokens.size() || result.status.index == static_cast<std::int64_t>(first));
  }
  for (std::int64_t row = 0; result.status.code == Code::ok && row < a.rows; ++row)
    FG_REQUIRE(std::isfinite(result.outputs[0].as<float>()[row]));
  result.fold_into(digest);
}

const Registered registered("evaluate", try_evaluate);

} // namespace
} // namespace fg::trial
