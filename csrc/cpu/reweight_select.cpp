#include "cpu/crew.h"
#include "cpu/row.h"
#include "cpu/select.h"

#include <cstring>

namespace fg::FG_LEVEL {

Status reweight_select(const ReweightSelectArgs&) { return {}; }

} // namespace fg::FG_LEVEL
