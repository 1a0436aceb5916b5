#include "cpu/unique.h"
