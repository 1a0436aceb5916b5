#include "trial.h"

namespace fg::trial {

std::vector<Trial>& trials() {
  static std::vector<Trial> all;
  return all;
}

} // namespace fg::trial
