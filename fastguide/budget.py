"""What a run may spend, and whether it can still afford to look ahead.

A run always ends with samples and their rewards. So long as the budget covers the rest of the run *without* looking ahead,
values are read; from there on the values of the parents stand in for them, and the remaining steps follow the pretrained model.
For guidance with weights the target stays exact (weights telescope whatever number stands in), only less of the way is guided.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastguide.guidance.protocol import is_number


@dataclass(frozen=True)
class Budget:
    """A limit that no run exceeds; None does not limit.

    Args:
        denoiser_rows: states that the denoiser is asked for, those that had to be asked for again included.
        reward_rows: clean samples that the reward evaluates.
        seconds: wall time. The rest of the run is foreseen from the cost of its rows so far, so it can end a little late.
    """

    denoiser_rows: int | None = None
    reward_rows: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("denoiser_rows", "reward_rows"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"budget: {name}: expected a whole number of at least 1 or None, got {value!r}")
        if self.seconds is not None and not (is_number(self.seconds) and self.seconds > 0):
            raise ValueError(f"budget: seconds: expected a positive number or None, got {self.seconds!r}")


@dataclass
class Spending:
    """What a run has spent so far: rows and seconds of network and reward.

    Attributes:
        ended: the step at which the budget ended the guidance, None so far.
    """

    budget: Budget
    denoiser_rows: int = 0
    reward_rows: int = 0
    seconds: float = 0.0
    seconds_denoiser: float = 0.0
    seconds_reward: float = 0.0
    ended: int | None = None

    def covers(self, denoiser_rows: int, reward_rows: int) -> bool:
        """Whether the budget covers so many rows more."""
        budget = self.budget
        if budget.denoiser_rows is not None and self.denoiser_rows + denoiser_rows > budget.denoiser_rows:
            return False
        if budget.reward_rows is not None and self.reward_rows + reward_rows > budget.reward_rows:
            return False
        if budget.seconds is None:
            return True
        foreseen = self.seconds
        foreseen += denoiser_rows * self.seconds_denoiser / max(1, self.denoiser_rows)
        foreseen += reward_rows * self.seconds_reward / max(1, self.reward_rows)
        return foreseen <= budget.seconds

    def require(self, denoiser_rows: int, reward_rows: int) -> None:
        """Raise unless the budget covers a run that never looks ahead."""
        for name, needed in (("denoiser_rows", denoiser_rows), ("reward_rows", reward_rows)):
            allowed = getattr(self.budget, name)
            if allowed is not None and allowed < needed:
                raise ValueError(
                    f"budget: {name}: {allowed:,} cannot pay for a run of this size without any guidance, which needs up "
                    f"to {needed:,}; use fewer particles or steps"
                )
