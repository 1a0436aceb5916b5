// Which build of the kernels runs: one per SIMD level, chosen from the processor, or forced by name.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace fg {

const Kernels& kernels();                  // the level in force
std::vector<std::string> level_names();    // the levels this processor can run, lowest first
void force_level(const std::string& name); // throws std::invalid_argument for one it cannot

} // namespace fg
