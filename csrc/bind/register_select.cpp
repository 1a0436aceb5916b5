#include "bind/arguments.h"
#include <vector>

#include <pybind11/stl.h>

#include "bind/register.h"
#include "bind/tensor.h"
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

bool is(PyObject* text, const char* ascii) {
  return PyUnicode_Check(text) && PyUnicode_CompareWithASCIIString(text, ascii) == 0;
}

// An int, no subclass, in [least, most].
bool read_integer(PyObject* number, std::int64_t least, std::int64_t most, std::int64_t& value) {
  if (!PyLong_CheckExact(number))
    return false;
  int overflow = 0;
  value = PyLong_AsLongLongAndOverflow(number, &overflow);
  return overflow == 0 && least <= value && value <= most;
}

bool read_rule(PyObject* text, Rule& rule) {
  constexpr const char* kNames[] = {"systematic", "stratified", "multinomial", "residual",
                                    "argmax",     "topk",       "gumbel_topk"};
  for (int i = 0; i < 7; ++i) {
    if (is(text, kNames[i])) {
      rule = static_cast<Rule>(i);
      return true;
    }
  }
  return false;
}

// The memory that `out`, a Selection, names; false where it does not fit.
bool read_selection(PyObject* out, SelectArgs& args) {
  PlainTensor ancestors, mean, ess;
  if (!read_output(PyTuple_GET_ITEM(out, 0), ancestors) || !read_output(PyTuple_GET_ITEM(out, 1), mean) ||
      !read_output(PyTuple_GET_ITEM(out, 2), ess) || ancestors.element != Element::int32 ||
      mean.element != Element::float64 || ess.element != Element::float64 || ancestors.dimensions != 1 ||
      ancestors.count != args.draws || mean.dimensions != 0 || ess.dimensions != 0)
    return false;
  args.ancestors = static_cast<std::int32_t*>(ancestors.data);
  args.log_mean_weight = static_cast<double*>(mean.data);
  args.ess = static_cast<double*>(ess.data);
  return !overlapping(args);
}

// A new Selection of three new tensors. Its class, a named tuple, would make it in three times the time.
PyObject* new_selection(PyObject* type, SelectArgs& args) {
  void *ancestors = nullptr, *mean = nullptr, *ess = nullptr;
  PyObject* const made[] = {new_tensor(Element::int32, 1, args.draws, ancestors),
                            new_tensor(Element::float64, 0, 1, mean),
                            new_tensor(Element::float64, 0, 1, ess)};
  PyObject* selection = nullptr;
  if (made[0] != nullptr && made[1] != nullptr && made[2] != nullptr) {
    PyObject* three = PyTuple_Pack(3, made[0], made[1], made[2]);
    PyObject* only = three == nullptr ? nullptr : PyTuple_Pack(1, three);
    if (only != nullptr)
      selection = PyTuple_Type.tp_new(reinterpret_cast<PyTypeObject*>(type), only, nullptr);
    Py_XDECREF(only);
    Py_XDECREF(three);
  }
  for (PyObject* tensor : made)
    Py_XDECREF(tensor);
  args.ancestors = static_cast<std::int32_t*>(ancestors);
  args.log_mean_weight = static_cast<double*>(mean);
  args.ess = static_cast<double*>(ess);
  return selection;
}

// The whole of fastguide.ops.select where all is usual: one short row on the CPU, an int as seed, a weight
// that is not zero. None, with nothing done that matters, where anything is not: the caller then finds out
// what.
PyObject* select_small(PyObject*, PyObject* const* values, Py_ssize_t count) {
  if (count != 10) {
    PyErr_Format(PyExc_TypeError, "expected 10 arguments, got %zd", count);
    return nullptr;
  }
  PyObject *type = values[0], *k = values[2], *order = values[4], *degenerate = values[7], *out = values[8];
  PlainTensor x;
  SelectArgs args{};
  std::int64_t seed = 0;
  if (values[9] != Py_None || !prefers_cpu() || !read_tensor(values[1], x) || x.dimensions != 1 ||
      x.count < 1 || x.count > kKeepLock || (x.element != Element::float32 && x.element != Element::float64))
    Py_RETURN_NONE;
  args.log_weights = x.data;
  args.is_double = x.element == Element::float64;
  args.groups = args.parents = args.threads = 1;
  args.items = args.draws = x.count;
  args.slots = is(order, "slots");
  const std::int64_t most = args.slots ? x.count : kKeepLock, least = args.slots ? x.count : 1;
  if ((k != Py_None && !read_integer(k, least, most, args.draws)) || !read_rule(values[3], args.rule) ||
      (!args.slots && !is(order, "sorted")) || !read_integer(values[5], 0, INT64_MAX, seed) ||
      !read_integer(values[6], 0, (1 << 28) - 1, args.step) || !is(degenerate, "raise"))
    Py_RETURN_NONE;
  if (args.rule >= Rule::topk && args.draws > args.items)
    Py_RETURN_NONE;
  args.seeds.one = static_cast<std::uint64_t>(seed);
  PyObject* selection = nullptr;
  if (out == Py_None) {
    selection = new_selection(type, args);
    if (selection == nullptr)
      return nullptr;
  } else {
    if (reinterpret_cast<PyObject*>(Py_TYPE(out)) != type || !read_selection(out, args))
      Py_RETURN_NONE;
    Py_INCREF(out);
    selection = out;
  }
  const Status status = kernels().select(args);
  if (status.code == Code::ok)
    return selection;
  Py_DECREF(selection);
  if (status.code == Code::interrupted)
    return nullptr; // what the signal handler raised is set
  Py_RETURN_NONE;
}

PyMethodDef kSelect[] = {
    {"select", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&select)), METH_FASTCALL, nullptr},
    {"select_small", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&select_small)),
     METH_FASTCALL, nullptr},
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
