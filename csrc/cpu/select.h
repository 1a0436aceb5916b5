#pragma once

#define FG_SELECT_KERNELS(X)
