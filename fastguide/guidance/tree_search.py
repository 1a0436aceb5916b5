r"""Tree search: rollouts of the pretrained process that remember what earlier ones found.

A node is a state on the way; the root is the law of the noise. A rollout goes from the root to a clean sample. At a node it
draws a child from the pretrained process while the node has drawn fewer than ``width · visits^growth`` (progressive widening),
and goes on to a known child otherwise:

    "boltzmann":  child c with probability ∝ n_c exp(v_c / alpha);
    "uct":        the largest  (v_c − r_min) / (r_max − r_min) + exploration · sqrt(log visits / visits_c).

n_c is how often c was drawn: equal children are one node. A clean sample is worth its reward, and on the way back up

    v = alpha · log( Σ_c n_c exp(v_c / alpha) / Σ_c n_c ),    at alpha = 0 the largest v_c,

so look-ahead values are never estimated (``value=`` is not read) and nothing is biased by them. The samples are drawn from the
leaves, as by descents ∝ n_c exp(v_c / alpha), and go to the target as rollouts grow: a tree of few rollouts knows few leaves,
and draws them again and again. Rollouts that always draw (``growth=1``) are independent, and their samples those of `BestOfN`;
the less they draw, the more they follow what was found, and the longer a poor first impression of a state stands. At alpha = 0
the samples are the best leaves; ``"uct"`` is the policy that explores then, ``"boltzmann"`` only follows the best child.

Use it to find high rewards where no look-ahead can be trusted, or where a reward is expensive: a rollout costs one reward row
and at most T denoiser rows. For samples of the target itself, `SMC` or independent rollouts come as near for less.

Sources: Jain et al., 2506.20701 (diffusion tree sampling); Kocsis and Szepesvári, 2006 (UCT); Couëtoux et al., 2011
(progressive widening); Uehara et al., 2501.09685, section 6.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fastguide.guidance.protocol import State, check_alpha, is_number, start
from fastguide.guidance.tree.grow import grow
from fastguide.guidance.tree.leaves import draw_leaves, trace_back
from fastguide.guidance.tree.search import Search
from fastguide.ops._checks import choice, count

if TYPE_CHECKING:
    from fastguide.result import Result
    from fastguide.run import Run

POLICIES = ("boltzmann", "uct")


@dataclass(frozen=True)
class TreeSearch:
    """Grow a tree of rollouts for each group, and draw the samples from its leaves.

    ``result.trace`` has a row a batch of rollouts; ``result.manifest()`` says how many there were. The search ends early, and
    its samples are those of the tree so far, where the ``budget`` or the ``memory`` of the run would not hold another batch.

    Args:
        alpha: temperature of the tilt, in units of the reward; 0 looks for the largest reward.
        rollouts: of each group.
        policy: ``"boltzmann"`` or ``"uct"``.
        batch: rollouts of a group that go down at a time. More make larger network calls, and know less of each other.
        width: children that a node draws at its first visit, at least 1.
        growth: in [0, 1], how fast the number of draws grows with the visits; 0 never, 1 draws at every visit.
        exploration: of ``"uct"``, in units of the range of the rewards found.
    """

    alpha: float = 1.0
    rollouts: int = 1_000
    policy: str = "boltzmann"
    batch: int = 16
    width: float = 1.0
    growth: float = 0.5
    exploration: float = 0.3

    branch: ClassVar[int] = 1
    estimates_normalizer: ClassVar[bool] = False
    value_steps: ClassVar[Collection[int] | None] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", check_alpha(self.alpha, positive=False))
        choice("policy", self.policy, POLICIES)
        for name in ("rollouts", "batch"):
            object.__setattr__(self, name, count(name, getattr(self, name)))
        for name, low, high in (("width", 1.0, 1e9), ("growth", 0.0, 1.0), ("exploration", 0.0, 1e9)):
            number = getattr(self, name)
            if not is_number(number) or not low <= number <= high:
                raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {number!r}")

    @property
    def consistent(self) -> bool:
        """Whether the samples go to the target as rollouts grow."""
        return self.alpha > 0

    def begin(self, values: Tensor) -> State:
        """Return the state of samples of these rewards."""
        return start(values, torch.where(values == -torch.inf, -torch.inf, 0.0))

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Raise: the tree is no population that a step could select from."""
        raise TypeError("guidance: TreeSearch runs the loop itself; give it to fastguide.sample")

    def drive(self, run: Run) -> Result:
        """Grow the trees and draw the samples."""
        began = time.perf_counter()
        search = Search(self, run)
        trace = grow(search)
        n = run.steering.particles
        drawn = draw_leaves(search, n)
        trajectories, ancestry = trace_back(search, drawn)
        rewards = search.levels[-1].value[drawn]
        run.steering.begin(rewards)
        result = run.result(trajectories[-1], trace, ancestry, time.perf_counter() - began)
        return replace(
            result,
            rewards=rewards.flatten(),
            provenance={**result.provenance, "rollouts": search.done},
            _replay=lambda group, particle: trajectories[:, group * n + particle],
        )
