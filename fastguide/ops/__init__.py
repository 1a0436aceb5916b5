"""The operations that samplers are made of; each takes and returns torch tensors and knows nothing of diffusion."""

from fastguide.ops.reweight_select import ReweightSelection, reweight_select
from fastguide.ops.select import Selection, select

__all__ = ["ReweightSelection", "Selection", "reweight_select", "select"]
