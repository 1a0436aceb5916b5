r"""How strong guidance should be: the temperature from a pilot run, for a wish that has a meaning of its own.

Guidance at temperature alpha turns the pretrained law p into ``p^alpha ∝ p · exp(r / alpha)``. Two numbers say how far that is:

    KL(p^alpha ‖ p) = E_{p^alpha}[r] / alpha − log E_p[exp(r / alpha)]         in nats,
    ESS fraction    = E_p[exp(r / alpha)]² / E_p[exp(2 r / alpha)]             of unguided samples.

Both are read off the rewards of unguided samples, and both move one way with alpha, so that bisection finds it. A KL of 2 nats
asks for samples of which the pretrained model yields about one in ``e² ≈ 7``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_HALVINGS = 60


class AutoAlpha(float):
    """A temperature that `fastguide.sample` finds by a pilot run; ``alpha="auto"`` stands for ``AutoAlpha()``.

    Args:
        kl: wanted divergence of the target from the pretrained model in nats; 2 where ``ess`` is not given either.
        ess: wanted ESS fraction of unguided samples under the target's weights, in (0, 1).
        pilot: unguided samples to find it by, over all groups; they are drawn apart from those of the run.
    """

    kl: float | None
    ess: float | None
    pilot: int

    def __new__(cls, *, kl: float | None = None, ess: float | None = None, pilot: int = 256) -> AutoAlpha:
        """Check the wish."""
        if kl is not None and ess is not None:
            raise ValueError("kl, ess: give one of them")
        if kl is None and ess is None:
            kl = 2.0
        if isinstance(pilot, bool) or not isinstance(pilot, int) or pilot < 16:
            raise ValueError(f"pilot: expected a whole number of at least 16, got {pilot!r}")
        if ess is not None and not 0.0 < ess < 1.0:
            raise ValueError(f"ess: expected a fraction between 0 and 1, got {ess!r}")
        # Weights of n samples cannot tell a divergence near log n, where a single sample has all the weight.
        if kl is not None and not 0.0 < kl <= math.log(pilot) - 1.0:
            raise ValueError(
                f"kl: expected a number of nats between 0 and {math.log(pilot) - 1:.2f} (log(pilot) − 1), got {kl!r}; a "
                "larger pilot allows more"
            )
        self = super().__new__(cls, math.nan)
        self.kl, self.ess, self.pilot = kl, ess, pilot
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AutoAlpha) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.kl, self.ess, self.pilot))

    def __repr__(self) -> str:
        wish = f"ess={self.ess:g}" if self.kl is None else f"kl={self.kl:g}"
        return f"AutoAlpha({wish}, pilot={self.pilot})"

    def find(self, rewards: Tensor) -> float:
        """Return alpha for the rewards ``[G, n]`` of unguided samples: the mean of the groups' KL or ESS meets the wish.

        Raises:
            ValueError: the rewards of all groups are constant (or forbidden), so that no temperature changes anything.
        """
        kept = torch.where(rewards > -torch.inf, rewards, torch.nan).double()
        spread = kept.nan_to_num(-torch.inf).amax() - kept.nan_to_num(torch.inf).amin()
        if not bool(spread > 0):
            raise ValueError(
                "alpha: the rewards of the pilot run are all equal; there is no strength to choose. Give a number, or a "
                "larger pilot"
            )
        # In units of the spread, the answer lies between 1e-6 and 1e6 for all but pathological rewards.
        low, high = math.log(float(spread)) - 14.0, math.log(float(spread)) + 14.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self._too_strong(rewards.double(), math.exp(middle)):
                low = middle
            else:
                high = middle
        return math.exp(high)

    def _too_strong(self, rewards: Tensor, alpha: float) -> bool:
        kl, ess = divergence(rewards, alpha)
        return float(kl.mean()) > self.kl if self.kl is not None else float(ess.mean()) < (self.ess or 0.0)


def divergence(rewards: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return ``KL(p^alpha ‖ p)`` in nats and the ESS fraction, ``[G]`` each, from rewards ``[G, n]`` of unguided samples."""
    logs = torch.log_softmax(rewards / alpha, dim=1)
    weights = logs.exp()
    n = rewards.shape[1]
    kl = math.log(n) + torch.where(weights > 0, weights * logs, 0.0).sum(1)
    return kl, 1.0 / (n * (weights * weights).sum(1))


def resolve_alpha(alpha: Any) -> Any:
    """Return ``AutoAlpha()`` for ``"auto"``, and anything else as it is."""
    return AutoAlpha() if isinstance(alpha, str) and alpha == "auto" else alpha
