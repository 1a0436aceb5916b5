#include "bind/register.h"

namespace fg {

void register_unique(pybind11::module_&) {}

} // namespace fg
