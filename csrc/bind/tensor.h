// Tensors in small calls: read and made here where Python would take longer than the kernel. Reading the four
// tensors of a `select` by their attributes costs 1.5 us, by torch's DLPack exchange (2.10 and later) 0.2; a
// tensor from torch.empty 0.7 us, from the function that torch's own generated code calls 0.3.
//
// Only the plainest tensors are read: whoever is told "no" takes the way through Python, which knows all.
#pragma once

#include <cstdint>

#include <Python.h>

namespace fg {

enum class Element { none, float32, float64, uint8, int32, int64 };

// A torch.Tensor, no subclass, on the CPU and contiguous. Holds no reference.
struct PlainTensor {
  void* data;
  int dimensions;
  const std::int64_t* sizes;
  Element element;
  std::int64_t count;

  std::int64_t size(int i) const { return sizes[i]; }
};

// False, with no exception set, where `x` is not as above, and always where torch cannot tell.
bool read_tensor(PyObject* x, PlainTensor& tensor);

// The same for one to be written: none that records gradients.
bool read_output(PyObject* x, PlainTensor& tensor);

// A new tensor of up to one dimension; null, with an exception set, where there is no memory. `data` becomes
// its address.
PyObject* new_tensor(Element element, int dimensions, std::int64_t size, void*& data);

// What the calling context asks for, as in fastguide.config: whether that is the CPU backend.
bool prefers_cpu();

} // namespace fg
