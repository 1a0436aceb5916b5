#include "bind/arguments.h"
#include <vector>

#include <pybind11/stl.h>

#include "bind/register.h"
#include "cpu/pages.h"

namespace fg {

namespace {

constexpr std::int64_t kKeepLock = 8192; // items and draws, a few microseconds

struct Span {
  std::uintptr_t begin, end;

  Span(const void* data, std::int64_t count, std::int64_t size)
      : begin(reinterpret_cast<std::uintptr_t>(data)),
        end(begin + static_cast<std::uintptr_t>(count * size)) {}
  bool meets(const Span& other) const { return begin < other.end && other.begin < end; }
};

bool overlapping(const SelectArgs& a) {
  const std::int64_t rows = a.groups * a.parents;
  const Span log_weights(a.log_weights, rows * a.items, a.is_double ? 8 : 4);
  const Span ancestors(a.ancestors, rows * a.draws, 4), mean(a.log_mean_weight, rows, 8), ess(a.ess, rows, 8);
  return log_weights.meets(ancestors) || log_weights.meets(mean) || log_weights.meets(ess) ||
         ancestors.meets(mean) || ancestors.meets(ess) || mean.meets(ess);
}

PyObject* select(PyObject*, PyObject* const* values, Py_ssize_t count) {
  Arguments in(values, count, 15);
  SelectArgs args{};
  args.log_weights = in.pointer<const void>();
  args.is_double = in.flag();
  args.groups = in.integer();
  args.parents = in.integer();
  args.items = in.integer();
  args.draws = in.integer();
  args.rule = static_cast<Rule>(in.integer());
  args.slots = in.flag();
  args.seeds.each = in.pointer<const std::int64_t>();
  args.seeds.one = in.bits();
  args.step = in.integer();
  args.ancestors = in.pointer<std::int32_t>();
  args.log_mean_weight = in.pointer<double>();
  args.ess = in.pointer<double>();
  args.threads = static_cast<int>(in.integer());
  if (!in.good())
    return nullptr;
  if (overlapping(args)) {
    PyErr_SetString(PyExc_ValueError, "out: its tensors must not overlap log_weights or each other");
    return nullptr;
  }
  // Giving the lock away and taking it back would be a tenth of a small call.
  const bool small = args.groups * args.parents * (args.items + args.draws) <= kKeepLock;
  const Status status = launch(kernels().select, args, small);
  if (status.code == Code::interrupted)
    return nullptr; // what the signal handler raised is set
  return pybind11::make_tuple(static_cast<int>(status.code), status.index).release().ptr();
}

PyMethodDef kSelect[] = {
    {"select", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&select)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr}};

} // namespace

void register_select(pybind11::module_& m) {
  if (PyModule_AddFunctions(m.ptr(), kSelect) != 0)
    throw pybind11::error_already_set();
  m.def("advise_huge_pages",
        [](std::uintptr_t address, std::int64_t bytes) { advise_huge_pages(pointer<void>(address), bytes); });
  m.def("reweight_select",
        [](std::uintptr_t log_weights, std::uintptr_t values, std::uintptr_t previous_values,
           std::uintptr_t log_ratio, std::uintptr_t running, int running_bytes, bool is_double,
           std::int64_t groups, std::int64_t items, std::uintptr_t betas, std::uintptr_t previous_betas,
           double beta, double previous_beta, int rule, double ess_threshold, std::uintptr_t seeds,
           std::uint64_t seed, std::int64_t step, std::uintptr_t new_log_weights, std::uintptr_t new_values,
           std::uintptr_t new_running, std::uintptr_t ancestors, std::uintptr_t resampled,
           std::uintptr_t log_z_increment, std::uintptr_t ess, int kind, std::uintptr_t states, int type,
           std::int64_t columns, const std::vector<std::uintptr_t>& parameters,
           const std::vector<std::int64_t>& settings, int threads) {
          std::vector<const float*> from;
          for (std::uintptr_t p : parameters)
            from.push_back(pointer<const float>(p));
          const EvaluateArgs value{static_cast<ValueKind>(kind),
                                   pointer<const void>(states),
                                   static_cast<StateType>(type),
                                   groups * items,
                                   columns,
                                   from.data(),
                                   settings.data(),
                                   nullptr,
                                   1};
          return run(kernels().reweight_select,
                     ReweightSelectArgs{pointer<const void>(log_weights),
                                        pointer<void>(values),
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
                                        Seeds{pointer<const std::int64_t>(seeds), seed},
                                        step,
                                        pointer<void>(new_log_weights),
                                        pointer<void>(new_values),
                                        pointer<void>(new_running),
                                        pointer<std::int32_t>(ancestors),
                                        pointer<bool>(resampled),
                                        pointer<double>(log_z_increment),
                                        pointer<double>(ess),
                                        kind >= 0 ? &value : nullptr,
                                        threads});
        });
}

} // namespace fg
