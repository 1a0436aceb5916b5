#include "cpu/masked.h"
