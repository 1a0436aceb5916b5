import numpy as np
import torch

from fastguide.adapters.das import adaptive_tempering, resampling_function  # was: from das.smc_utils import ...

np.random.seed(0)
torch.manual_seed(0)
resample_fn = resampling_function(resample_strategy="ssp", ess_threshold=0.5)
batch, particles = 4, 256
log_w, zero = torch.zeros(batch, particles), torch.zeros(batch, particles)
twist = 3 * torch.randn(batch, particles)
scale = adaptive_tempering(log_w, zero, twist, zero, zero, min_scale=torch.zeros(batch), ess_threshold=0.4)
indices, is_resampled, log_w = resample_fn(log_w + scale[:, None] * twist)
print("scales", scale.tolist(), "resampled", is_resampled.tolist(), "first ancestors", indices[:, 0].tolist())
