"""The operations that samplers are made of; each takes and returns torch tensors and knows nothing of diffusion."""

from fastguide.ops.evaluate import evaluate
from fastguide.ops.gaussian_step import gaussian_step
from fastguide.ops.log_ratio import gaussian_log_ratio, masked_log_ratio
from fastguide.ops.masked_mode import masked_mode
from fastguide.ops.masked_step import masked_step
from fastguide.ops.move import move
from fastguide.ops.reweight_select import ReweightSelection, reweight_select
from fastguide.ops.select import Selection, select
from fastguide.ops.unique import Unique, unique

__all__ = [
    "ReweightSelection",
    "Selection",
    "Unique",
    "evaluate",
    "gaussian_log_ratio",
    "gaussian_step",
    "masked_log_ratio",
    "masked_mode",
    "masked_step",
    "move",
    "reweight_select",
    "select",
    "unique",
]
