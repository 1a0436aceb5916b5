#include "cpu/select.h"
