#include "bind/tensor.h"

#include <pybind11/pybind11.h>

#include "bind/register.h"

namespace fg {
namespace {

// The part of DLPack 1.x that is read here, as its specification lays it out.
struct DlTensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};
struct DlExchange {
  std::uint32_t major, minor;
  DlExchange* previous;
  void *allocate, *from_object, *to_object;
  int (*read)(void* object, DlTensor* out);
  void* stream;
};
constexpr std::int32_t kDlCpu = 1;

// Set once, on import.
struct Torch {
  int (*read)(void*, DlTensor*) = nullptr;
  PyTypeObject* tensor = nullptr;
  PyObject *is_neg = nullptr, *requires_grad = nullptr, *empty_strided = nullptr;
  PyObject *int32 = nullptr, *float64 = nullptr, *no_sizes = nullptr, *one = nullptr;
  PyObject* backend = nullptr; // ContextVar
} torch;

Element element_of(const DlTensor& x) {
  if (x.lanes != 1)
    return Element::none;
  switch (x.code << 8 | x.bits) {
  case 0 << 8 | 32:
    return Element::int32;
  case 0 << 8 | 64:
    return Element::int64;
  case 1 << 8 | 8:
    return Element::uint8;
  case 2 << 8 | 32:
    return Element::float32;
  case 2 << 8 | 64:
    return Element::float64;
  default:
    return Element::none;
  }
}

// Whether the answer to a question about a tensor is "no"; what it raises is dropped.
bool denies(PyObject* answer) {
  const bool no = answer == Py_False;
  if (answer == nullptr)
    PyErr_Clear();
  Py_XDECREF(answer);
  return no;
}

void use_torch(const pybind11::object& tensor, const pybind11::object& empty_strided,
               const pybind11::object& int32, const pybind11::object& float64,
               const pybind11::object& backend) {
  const auto keep = [](pybind11::object x) { return x.release().ptr(); };
  if (!pybind11::hasattr(tensor, "__dlpack_c_exchange_api__"))
    return;
  const pybind11::object capsule = tensor.attr("__dlpack_c_exchange_api__");
  const auto* api = static_cast<DlExchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  while (api != nullptr && api->major != 1)
    api = api->previous;
  if (api == nullptr || api->read == nullptr) {
    PyErr_Clear();
    return;
  }
  torch.tensor = reinterpret_cast<PyTypeObject*>(keep(tensor));
  torch.is_neg = keep(tensor.attr("is_neg"));
  torch.requires_grad = keep(pybind11::str("requires_grad"));
  torch.empty_strided = keep(empty_strided);
  torch.int32 = keep(int32);
  torch.float64 = keep(float64);
  torch.no_sizes = keep(pybind11::tuple(0));
  torch.one = keep(pybind11::make_tuple(1));
  torch.backend = keep(backend);
  torch.read = api->read;
}

} // namespace

bool read_tensor(PyObject* x, PlainTensor& tensor) {
  if (torch.read == nullptr || Py_TYPE(x) != torch.tensor)
    return false;
  DlTensor read;
  if (torch.read(x, &read) != 0) {
    PyErr_Clear(); // of functorch, without memory, ...
    return false;
  }
  if (read.device_type != kDlCpu)
    return false;
  std::int64_t count = 1;
  for (int i = read.ndim - 1; i >= 0; --i) {
    if (read.shape[i] != 1 && read.strides[i] != count)
      return false;
    count *= read.shape[i];
  }
  tensor = {static_cast<char*>(read.data) + read.byte_offset, read.ndim, read.shape, element_of(read), count};
  return denies(PyObject_Vectorcall(torch.is_neg, &x, 1, nullptr));
}

bool read_output(PyObject* x, PlainTensor& tensor) {
  return read_tensor(x, tensor) && denies(PyObject_GetAttr(x, torch.requires_grad));
}

PyObject* new_tensor(Element element, int dimensions, std::int64_t size, void*& data) {
  PyObject* sizes = torch.no_sizes;
  if (dimensions == 0) {
    Py_INCREF(sizes);
  } else {
    PyObject* number = PyLong_FromLongLong(size);
    sizes = number == nullptr ? nullptr : PyTuple_Pack(1, number);
    Py_XDECREF(number);
  }
  if (sizes == nullptr)
    return nullptr;
  PyObject* const arguments[] = {sizes, dimensions == 0 ? torch.no_sizes : torch.one,
                                 element == Element::int32 ? torch.int32 : torch.float64};
  PyObject* made = PyObject_Vectorcall(torch.empty_strided, arguments, 3, nullptr);
  Py_DECREF(sizes);
  DlTensor read;
  if (made != nullptr && torch.read(made, &read) != 0)
    Py_CLEAR(made);
  if (made != nullptr)
    data = static_cast<char*>(read.data) + read.byte_offset;
  return made;
}

bool prefers_cpu() {
  PyObject* chosen = nullptr;
  if (torch.backend == nullptr || PyContextVar_Get(torch.backend, nullptr, &chosen) != 0)
    return false;
  const bool none = chosen == Py_None;
  Py_XDECREF(chosen);
  return none;
}

void register_tensor(pybind11::module_& m) {
  m.def("use_torch", &use_torch);
}

} // namespace fg
