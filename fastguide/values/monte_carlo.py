"""Values from finished samples: the pretrained process is run to the end, several times from every state.

    v_t(x_t) ≈ alpha · log mean_k exp(r(x_0^k) / alpha),    x_0^k ~ p(· | x_t),   k = 1..K.

As K grows this is the value itself, whatever the process; at any K its exponential is unbiased. It costs K rollouts a distinct
state: ``K · (T − t)`` denoiser rows and K rewards, so it is for few steps, cheap networks, or a look at how good the cheaper
look-aheads are.

With ``depth`` d a rollout ends after d steps, and r(x̂0) of the state it came to stands in for the reward: `PosteriorMean`, d
steps deeper, at K·d denoiser rows a state. At alpha = 0 (`fastguide.Beam`) the best of the K counts, their soft mean otherwise.

Source: Uehara et al., 2501.09685, section 4 (the samples that Monte Carlo regression fits a network to).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastguide.ops._checks import count
from fastguide.states import States
from fastguide.values.draws import soft_mean, state_seeds


@dataclass(frozen=True)
class MonteCarlo:
    """The soft mean of the rewards of ``rollouts`` unguided completions of a state.

    Args:
        rollouts: completions K a state.
        seed: of the rollouts. Equal states have equal rollouts in a run, whatever group or batch they stand in.
        depth: steps after which the denoiser's prediction completes a rollout; None rolls out to the end.
    """

    rollouts: int = 8
    seed: int = 0
    depth: int | None = None

    reads_output: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rollouts", count("rollouts", self.rollouts))
        if self.depth is not None:
            object.__setattr__(self, "depth", count("depth", self.depth))

    @property
    def draws(self) -> int:
        """Rewards a state."""
        return self.rollouts

    def look(self, states: States) -> Tensor:
        """Return clean samples ``[u, K, *shape]``."""
        bound, device, steps = states.scene.bound, states.x.device, states.scene.process.steps
        last = steps if self.depth is None else min(steps, states.step + self.depth)
        count, branch = len(states.x), self.rollouts
        seeds, group = state_seeds(states.x, states.step, self.seed), states.group
        alone = torch.zeros(count, dtype=torch.int64, device=device)
        assert states.output is not None
        x = bound.propose(
            states.x, states.output, step=states.step, group=group, seed=seeds, slots=alone, branch=branch,
            ancestors=torch.arange(count, device=device),
        ).flatten(0, 1)  # fmt: skip
        each = torch.arange(len(x), device=device)
        state, rows = states.state, each // branch
        for step in range(states.step + 1, last):
            out = states.predictor.call(x, step, state, rows)
            x = bound.propose(x, out.output, step=step, group=group, seed=seeds, ancestors=each)[:, 0]
            state, rows = out.state, each
        if last < steps:
            output = states.predictor.call(x, last, state, rows).output
            x = bound.estimate(x, output, step=last, group=group.repeat_interleave(branch))
        return x.view(count, branch, *x.shape[1:])

    def values(self, looked: Tensor, rewards: Callable[[Tensor], Tensor], alpha: float) -> Tensor:
        """Return the soft mean of their rewards."""
        return soft_mean(rewards(looked), alpha)
