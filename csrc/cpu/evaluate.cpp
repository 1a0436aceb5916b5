#include "cpu/evaluate.h"

#include "cpu/crew.h"
#include "cpu/interrupt.h"
#include "cpu/value_rows.h"

namespace fg::FG_LEVEL {
namespace {

// Keeps the status of the lower index; a call meets one code only.
inline void keep_first(Status& first, const Status& found) {
  if (found.code != Code::ok && (first.code == Code::ok || found.index < first.index))
    first = found;
}

} // namespace

// Runs of rows are handed out as threads come for them, because a function may take long over some of them.
Status evaluate(const EvaluateArgs& a) {
  const std::int64_t wanted = a.rows * value_work(a) / kWorthAThread + 1;
  const int threads = static_cast<int>(wanted < a.threads ? wanted : a.threads);
  std::int64_t run = (a.rows + 4 * threads - 1) / (4 * threads);
  run = threads == 1 || run > kValueRows ? kValueRows : (run + 15) / 16 * 16;
  const std::int64_t runs = (a.rows + run - 1) / run;
  Status first;
  Interrupt interrupt;
#pragma omp parallel num_threads(threads)
  {
    alignas(64) char stack[kStack];
    const Memory memory(stack, value_bytes(a));
    Status own = memory.data != nullptr ? Status{} : Status{Code::out_of_memory, -1};
#pragma omp for schedule(dynamic)
    for (std::int64_t i = 0; i < runs; ++i) {
      if (interrupt.requested())
        continue;
      const std::int64_t begin = i * run, count = begin + run < a.rows ? run : a.rows - begin;
      if (memory.data != nullptr)
        keep_first(own, value_rows(a, begin, count, a.out + begin, memory.data));
    }
#pragma omp critical(fastguide_evaluate)
    keep_first(first, own);
  }
  return interrupt.requested() ? Status{Code::interrupted, -1} : first;
}

} // namespace fg::FG_LEVEL
