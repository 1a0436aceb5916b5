from types import SimpleNamespace

import torch

from fastguide.adapters.align_inverse_pro import Interpolant  # was: from fmif.fm_utils import Interpolant

torch.manual_seed(0)
table = torch.randn(22, 20, 22)
model = lambda *batch: torch.log_softmax(table[batch[1], torch.arange(20)], -1)  # noqa: E731 - yours: [B, L, 22]
reward = lambda *batch: batch[1][:, :, :8].sum(2).mean(1)  # noqa: E731 - yours, of one-hot sequences
batch = (torch.zeros(5, 20, 4, 3), *(torch.ones(5, 20) for _ in range(4)))  # X, mask, chain_M, residue_idx, chains
noise_interpolant = Interpolant(SimpleNamespace(num_timesteps=50, min_t=1e-2, temp=1.0))
noise_interpolant.set_device("cpu")
S_sp, prot_traj, clean_traj = noise_interpolant.sample_controlled_SVDD(
    model, *batch, reward_model=reward, reward_name="stability", repeats=10
)
print("rewards", reward(None, torch.nn.functional.one_hot(S_sp, 22).float()).tolist())
