#pragma once

#define FG_UNIQUE_KERNELS(X)
