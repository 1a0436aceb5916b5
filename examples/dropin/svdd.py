from types import SimpleNamespace as Config

import torch

from fastguide.adapters import svdd

diffusion = Config(
    parameterization="subs", sampler="ddpm", mask_index=4, device=torch.device("cpu")
)  # yours: Diffusion
diffusion.config = Config(sampling=Config(steps=128), model=Config(length=50), loader=Config(eval_batch_size=64))
diffusion.noise = lambda t: (-torch.log1p(-0.999 * t), None)
diffusion.forward = lambda x, sigma: torch.tensor([0.4, 0.2, 0.2, 0.2, 1e-9]).log().expand(*x.shape, 5)
reward = lambda one_hot: (one_hot[:, 1:3].sum(1).mean(1) - 0.5)[:, None, None]  # noqa: E731 - yours: G and C

svdd.install(diffusion)  # the one line more
torch.manual_seed(0)
samples = diffusion.controlled_sample_TDS(reward, alpha=0.05, eval_sp_size=64, sample_M=10)
print("share of G and C", ((samples == 1) | (samples == 2)).double().mean().item())
