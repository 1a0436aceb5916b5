"""Diffusion processes: the mathematics of one reverse step, with no network and no guidance in them."""

from fastguide.processes.masked import MaskedProcess

__all__ = ["MaskedProcess"]
