#include "bind/process.h"

#include <Python.h>
#include <pthread.h>

#include <pybind11/pybind11.h>

#include "cpu/interrupt.h"

namespace fg {
namespace {

bool is_child = false;
unsigned long main_thread = 0; // the only one on which Python handles signals

// Another thread must not wait for the interpreter lock, which the main thread may hold for long.
bool poll() {
  if (PyThread_get_thread_ident() != main_thread)
    return false;
  const PyGILState_STATE lock = PyGILState_Ensure();
  const bool raised = PyErr_CheckSignals() != 0; // the exception stays set on this thread
  PyGILState_Release(lock);
  return raised;
}

// The thread that forks is the main thread of the child.
void note_fork() {
  is_child = true;
  main_thread = PyThread_get_thread_ident();
}

} // namespace

void watch_process() {
  const pybind11::object thread = pybind11::module_::import("threading").attr("main_thread")();
  main_thread = thread.attr("ident").cast<unsigned long>();
  interrupt_poll = &poll;
  pthread_atfork(nullptr, nullptr, &note_fork);
}

bool forked() {
  return is_child;
}

} // namespace fg
