"""The operations as CUDA kernels in C++: those that take fewer launches or passes than Triton can.

``fastguide._cuda`` is built where CMake finds a CUDA compiler (``FASTGUIDE_CUDA``); `launcher` says what it has a kernel
for, and everything else is Triton's. Launchers take the arguments of their namesakes in ``fastguide.triton``: they neither
allocate what they return nor read from the device, and write what went wrong into a status.
"""

from fastguide.cuda._module import available, launcher

__all__ = ["available", "launcher"]
