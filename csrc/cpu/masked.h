#pragma once

#define FG_MASKED_KERNELS(X)
