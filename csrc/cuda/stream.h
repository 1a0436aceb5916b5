// A CUDA stream for those who only pass it on, and so need no headers of CUDA's.
#pragma once

struct CUstream_st;

namespace fg::cuda {

using StreamHandle = CUstream_st*;

} // namespace fg::cuda
