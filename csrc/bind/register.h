#pragma once

#include <cstdint>
#include <utility>

#include <pybind11/pybind11.h>

#include "bind/process.h"
#include "cpu/dispatch.h"

namespace fg {

void register_evaluate(pybind11::module_& m);
void register_gaussian(pybind11::module_& m);
void register_log_ratio(pybind11::module_& m);
void register_masked(pybind11::module_& m);
void register_move(pybind11::module_& m);
void register_select(pybind11::module_& m);
void register_tensor(pybind11::module_& m);
void register_unique(pybind11::module_& m);

template <typename T> T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Runs a kernel, without the interpreter lock unless it is to be kept. Where its code is `interrupted`, what
// a signal handler raised meanwhile is set as Python's exception.
template <typename Args> Status launch(Status (*kernel)(const Args&), Args& args, bool keep_lock = false) {
  if (forked())
    args.threads = 1;
  if (keep_lock)
    return kernel(args);
  const pybind11::gil_scoped_release unlocked;
  return kernel(args);
}

// The same, giving (code, first offending index) and throwing that exception.
template <typename Args> std::pair<int, std::int64_t> run(Status (*kernel)(const Args&), Args args) {
  const Status status = launch(kernel, args);
  if (status.code == Code::interrupted)
    throw pybind11::error_already_set();
  return {static_cast<int>(status.code), status.index};
}

} // namespace fg
