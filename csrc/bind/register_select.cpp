#include "bind/register.h"

namespace fg {

void register_select(pybind11::module_&) {}

} // namespace fg
