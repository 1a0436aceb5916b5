// Table of contents of fastguide._cuda. As _cpu, it takes addresses and sizes, and a stream; it neither
// allocates nor waits.
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cuda/move.h"
#include "cuda/rows.h"
#include "cuda/select.h"
#include "cuda/unique.h"
#if defined(FG_EMULATED)
#include "emulated/cuda.h"
#endif

namespace {

template <typename T> T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

std::vector<void*> pointers(const std::vector<std::uintptr_t>& addresses) {
  std::vector<void*> found;
  for (const std::uintptr_t a : addresses)
    found.push_back(pointer<void>(a));
  return found;
}

fg::cuda::StreamHandle stream(std::uintptr_t handle) {
  return reinterpret_cast<fg::cuda::StreamHandle>(handle);
}

} // namespace

PYBIND11_MODULE(FG_MODULE, m) {
  using namespace fg;
  using Address = std::uintptr_t;
  m.doc() = "Kernels of the CUDA backend; fastguide.cuda is their only caller.";
#if defined(FG_EMULATED)
  m.def("set_few", [](std::int64_t blocks) { cuda::few = blocks; });
  m.def("set_reversed", [](bool reversed) { cuda::reversed = reversed; });
#endif
  m.def("select_bytes", &cuda::select_bytes);
  m.def("select", [](Address log_weights, bool is_double, std::int64_t rows, std::int64_t parents,
                     std::int64_t items, std::int64_t draws, int rule, bool slots, Address seeds,
                     std::uint64_t seed, Address step_at, std::int64_t step, Address ancestors,
                     Address log_mean_weight, Address ess, Address status, Address workspace, Address on) {
    cuda::select({pointer<const void>(log_weights),
                  is_double,
                  rows,
                  parents,
                  items,
                  draws,
                  static_cast<Rule>(rule),
                  slots,
                  {pointer<const std::int64_t>(seeds), seed, pointer<const std::int64_t>(step_at), step},
                  pointer<std::int32_t>(ancestors),
                  pointer<double>(log_mean_weight),
                  pointer<double>(ess),
                  pointer<std::int64_t>(status),
                  pointer<void>(workspace)},
                 stream(on));
  });
  m.def("reweight_select",
        [](Address log_weights, Address values, Address previous_values, Address log_ratio, Address running,
           int running_bytes, bool is_double, std::int64_t groups, std::int64_t items, Address betas,
           Address previous_betas, double beta, double previous_beta, int rule, double ess_threshold,
           Address seeds, std::uint64_t seed, Address step_at, std::int64_t step, Address new_log_weights,
           Address new_values, Address new_running, Address ancestors, Address resampled,
           Address log_z_increment, Address ess, Address status, Address workspace,
           const std::vector<Address>& states, const std::vector<std::int64_t>& row_bytes, Address on) {
          const std::vector<void*> moving = pointers(states);
          if (moving.size() > cuda::kMostStates)
            throw pybind11::value_error("states: too many");
          cuda::reweight_select(
              {pointer<const void>(log_weights),
               pointer<const void>(values),
               pointer<const void>(previous_values),
               pointer<const void>(log_ratio),
               pointer<const void>(running),
               running_bytes,
               is_double,
               groups,
               items,
               pointer<const double>(betas),
               pointer<const double>(previous_betas),
               beta,
               previous_beta,
               static_cast<Rule>(rule),
               ess_threshold,
               {pointer<const std::int64_t>(seeds), seed, pointer<const std::int64_t>(step_at), step},
               pointer<void>(new_log_weights),
               pointer<void>(new_values),
               pointer<void>(new_running),
               pointer<std::int32_t>(ancestors),
               pointer<bool>(resampled),
               pointer<double>(log_z_increment),
               pointer<double>(ess),
               pointer<std::int64_t>(status),
               pointer<void>(workspace),
               moving.data(),
               row_bytes.data(),
               static_cast<int>(moving.size())},
              stream(on));
        });
  m.def("move", [](const std::vector<Address>& sources, const std::vector<Address>& targets,
                   const std::vector<std::int64_t>& row_bytes, Address ancestors, bool wide_ancestors,
                   std::int64_t groups, std::int64_t rows, std::int64_t draws, bool in_place, Address status,
                   Address on) {
    const std::vector<void*> from = pointers(sources), to = pointers(targets);
    cuda::move({from.data(), to.data(), row_bytes.data(), static_cast<std::int64_t>(row_bytes.size()),
                pointer<const void>(ancestors), wide_ancestors, groups, rows, draws, in_place,
                pointer<std::int64_t>(status)},
               stream(on));
  });
  m.def("unique_bytes", &cuda::unique_bytes);
  m.def("unique", [](Address rows, std::int64_t count, std::int64_t row_bytes, std::uint64_t hash_mask,
                     Address representatives, Address inverse, Address counts, Address distinct,
                     Address workspace, Address on) {
    cuda::unique({pointer<const void>(rows), count, row_bytes, hash_mask,
                  pointer<std::int64_t>(representatives), pointer<std::int64_t>(inverse),
                  pointer<std::int64_t>(counts), pointer<std::int64_t>(distinct), pointer<void>(workspace)},
                 stream(on));
  });
}
