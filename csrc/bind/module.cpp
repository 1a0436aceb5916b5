// Table of contents of fastguide._cpu; each register_*.cpp exports one area.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/process.h"
#include "bind/register.h"
#include "cpu/dispatch.h"

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "Kernels of the CPU backend. They take addresses and sizes; fastguide.ops._native is their only "
            "caller.";
  fg::watch_process();
  m.def("level", [] { return fg::kernels().level; });
  m.def("levels", &fg::level_names);
  m.def("force_level", &fg::force_level);
  fg::register_evaluate(m);
  fg::register_gaussian(m);
  fg::register_log_ratio(m);
  fg::register_select(m);
  fg::register_move(m);
  fg::register_tensor(m);
  fg::register_masked(m);
  fg::register_unique(m);
}
