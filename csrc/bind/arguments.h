// Arguments of a function called by the vector protocol. pybind11 spends 0.3 us on the fifteen of `select`, a
// tenth of a small call; reading them one by one costs a tenth of that.
#pragma once

#include <cstdint>

#include <Python.h>

namespace fg {

// Reads integers from left to right. A wrong number or type leaves an exception set; look once, with `good`,
// after the last.
class Arguments {
public:
  Arguments(PyObject* const* values, Py_ssize_t given, Py_ssize_t wanted) : next_(values) {
    if (given != wanted)
      PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", wanted, given);
    good_ = given == wanted;
  }
  std::int64_t integer() { return good_ ? PyLong_AsLongLong(*next_++) : 0; }
  // Negative integers stand for their 64 bits.
  std::uint64_t bits() { return good_ ? PyLong_AsUnsignedLongLongMask(*next_++) : 0; }
  bool flag() { return integer() != 0; }
  template <typename T> T* pointer() { return reinterpret_cast<T*>(static_cast<std::uintptr_t>(bits())); }
  bool good() const { return good_ && PyErr_Occurred() == nullptr; }

private:
  PyObject* const* next_;
  bool good_;
};

} // namespace fg
