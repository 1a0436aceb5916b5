#pragma once

#include <cstdint>
#include <utility>

#include <pybind11/pybind11.h>

#include "cpu/dispatch.h"

namespace fg {

void register_gaussian(pybind11::module_& m);
void register_log_ratio(pybind11::module_& m);
void register_masked(pybind11::module_& m);
void register_move(pybind11::module_& m);
void register_select(pybind11::module_& m);
void register_unique(pybind11::module_& m);

template <typename T> T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Runs a kernel without the interpreter lock and returns (code, first offending index).
template <typename Args> std::pair<int, std::int64_t> run(Status (*kernel)(const Args&), const Args& args) {
  pybind11::gil_scoped_release unlocked;
  const Status status = kernel(args);
  return {static_cast<int>(status.code), status.index};
}

} // namespace fg
