import torch

from fastguide.adapters.fkd import FKD  # was: from fkd_class import FKD

torch.manual_seed(0)
fkd = FKD(
    potential_type="diff", lmbda=10.0, num_particles=64, adaptive_resampling=True, resample_frequency=2,
    resampling_t_start=0, resampling_t_end=20, time_steps=20, reward_fn=lambda x: -(x - 1).square().sum(1),
    device=torch.device("cpu"),
)  # fmt: skip
latents = torch.randn(64, 4)
for i in range(20):
    x0 = latents / (1 + (19 - i) / 20)
    latents, samples = fkd.resample(sampling_idx=i, latents=latents + 0.1 * torch.randn(64, 4), x0_preds=x0)
print("mean reward", float(fkd.population_rs.mean()))
