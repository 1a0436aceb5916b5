"""The operations as Triton kernels: one file an operation, its kernels beside their launcher.

Nothing here is imported before a kernel is wanted, so that Triton stays optional; ``numerics`` holds the device functions
that mirror ``csrc/core`` and ``fastguide.reference``. Every kernel gives the bits of the reference at every tile size: floating
point is never contracted (`fastguide.triton._launch.EXACT`), and what crosses a tile is integer. ``tuning`` says how large
tiles are, ``tune`` measures on a GPU which are the fastest.

Launchers never read from the device. What went wrong is written into a status word (`fastguide.triton._launch`), which the
operation reads once.
"""
