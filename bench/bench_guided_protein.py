"""A guided run on real weights: SVDD, 16 particles, branch 8, 19 steps, 1UBI, mean pLDDT (alphaPredict V7), temperature 1.

    python bench/bench_guided_protein.py

A first prototype of this loop took 22 s on two cores of such a machine and reached a mean reward of 94.8 ± 1.4 (s.d. of 16).
"""

from __future__ import annotations

import statistics
from importlib.resources import files

import torch

import fastguide as fg
from fastguide.models import ProteinMPNN
from fastguide.protein import Design, read_structure
from fastguide.rewards import PLDDT

SEEDS = 5


def main() -> None:
    design = Design.create(read_structure(str(files("fastguide") / "data" / "1UBI.pdb")))
    model, reward = ProteinMPNN(design), PLDDT("V7")
    process = fg.MaskedProcess(model.length, model.vocab, steps=19)
    rewards, seconds = [], []
    for seed in range(SEEDS):
        result = fg.sample(
            process, model, reward, fg.SVDD(alpha=0.5, branch=8), particles=16, seed=seed, progress=False
        )
        seconds.append(result.seconds)
        rewards.append(result.rewards)
        print(
            f"seed {seed}: {result.seconds:.2f} s (denoiser {float(result.trace.seconds_denoiser.sum()):.2f}, reward "
            f"{float(result.trace.seconds_reward.sum()):.2f}), {result.denoiser_rows} denoiser rows, {result.reward_rows} "
            f"reward rows, mean reward {float(result.rewards.mean()):.2f} ± {float(result.rewards.std()):.2f} (s.d.)",
            flush=True,
        )
    pooled = torch.cat(rewards)
    error = float(torch.stack([r.mean() for r in rewards]).std()) / SEEDS**0.5
    print(
        f"median {statistics.median(seconds):.2f} s on {torch.get_num_threads()} threads; mean reward of {len(pooled)} samples "
        f"{float(pooled.mean()):.2f} ± {error:.2f} (s.e. over seeds)"
    )


if __name__ == "__main__":
    main()
