#include "bind/register.h"

namespace fg {

void register_masked(pybind11::module_&) {}

} // namespace fg
