"""What the stand-ins for samplers of masked diffusion share: `fastguide.sample` with its trajectory kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastguide.guidance.best_of_n import BestOfN
from fastguide.guidance.protocol import Guidance
from fastguide.guidance.svdd import SVDD
from fastguide.memory import Memory
from fastguide.models.protocol import Denoiser
from fastguide.processes.bound_masked import BoundMasked
from fastguide.processes.masked import MaskedProcess
from fastguide.processes.protocol import Constraints
from fastguide.rewards.protocol import Reward
from fastguide.sample import sample
from fastguide.values.protocol import Value


class Decoded(NamedTuple):
    """What a run left.

    Attributes:
        states: ``T + 1`` of ``[B, L]`` int64, the states before each step and the samples, which are of equal weight.
        clean: ``T`` of ``[B, L]`` int64, the completion that the network predicted of each state but the last.
    """

    states: list[Tensor]
    clean: list[Tensor]


@dataclass(frozen=True)
class KeptProcess(MaskedProcess):
    """A masked process that writes down the states which each step starts from, and what is predicted of them."""

    kept: Decoded = field(default_factory=lambda: Decoded([], []))

    def bind(
        self, constraints: Constraints, *, groups: int, particles: int, seeds: Tensor, device: torch.device
    ) -> BoundMasked:
        """Return the process of one run."""
        return _BoundKept(self, constraints, groups, particles, device)


class _BoundKept(BoundMasked):
    process: KeptProcess

    def __init__(
        self, process: KeptProcess, constraints: Constraints, groups: int, particles: int, device: torch.device
    ) -> None:
        super().__init__(process, constraints, groups, particles, device)
        self._particles = particles

    def propose(
        self,
        x: Tensor,
        output: Tensor,
        *,
        step: int,
        group: Tensor,
        seed: Tensor,
        ancestors: Tensor,
        branch: int = 1,
        slots: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """Draw children, and write down where they come from; a step may be drawn in parts, which name their slots."""
        states, clean = self.process.kept
        if len(states) == step:
            states.append(torch.empty_like(self.x))
            clean.append(torch.empty_like(self.x))
        where: Any = slice(None) if slots is None else group * self._particles + slots
        states[step][where] = x[ancestors]
        clean[step][where] = self.process.mode(x, output)[ancestors]
        return super().propose(
            x, output, step=step, group=group, seed=seed, ancestors=ancestors, branch=branch, slots=slots, shift=shift
        )


class TokenReward(Reward):
    """A peer's reward of clean tokens ``[n, L]``, and of soft ones ``[n, L, V]`` where it has such.

    Args:
        name: what to call it.
        score: ``tokens -> [n]``. soft: ``weights -> [n]`` with gradients, or None.
    """

    def __init__(
        self, name: str, score: Callable[[Tensor], Tensor], soft: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.name, self._score, self._soft = name, score, soft
        self.differentiable = soft is not None

    def __call__(self, x0: Tensor) -> Tensor:
        return self._score(x0)

    def soft(self, x0: Tensor) -> Tensor:
        """Return the rewards of soft samples."""
        return super().soft(x0) if self._soft is None else self._soft(x0)


def in_batches(ask: Callable[[Tensor], Tensor], n: int, batch: int, device: torch.device) -> Tensor:
    """Return what ``ask(rows [m])`` says of rows 0 to n - 1.

    Calls have the number of rows that theirs have, the last one padded by its last row: on a CPU a small network is 1.6 times
    as fast so as with all rows in one call of changing shape (caches; convolutions are compiled for each shape). Elsewhere
    there is one call, padded to a whole number of batches.
    """
    rows = torch.arange(-(-n // batch) * batch).clamp_(max=n - 1)
    return torch.cat([ask(part) for part in (torch.split(rows, batch) if device.type == "cpu" else [rows])])[:n]


def unguided(x0: Tensor) -> Tensor:
    """Return a reward of 0 for each sample."""
    return torch.zeros(len(x0), dtype=torch.float64)


def svdd(alpha: float, repeats: int) -> Guidance:
    """Return SVDD with ``repeats`` children; with a single one nothing is selected, as in theirs."""
    return BestOfN(alpha=0.0) if repeats == 1 else SVDD(alpha=alpha, branch=repeats)


def decode(
    process: KeptProcess,
    denoiser: Denoiser,
    reward: Callable[..., Any] | Sequence[Callable[..., Any]],
    guidance: Guidance,
    *,
    batch: int,
    conditions: Sequence[Any] | None = None,
    value: Value | None = None,
    predict_survivors: bool = False,
    seed: int,
) -> Decoded:
    """Run guidance on the CPU, where our kernels are; the networks run wherever they are.

    Args:
        process: what to run.
        denoiser: the network.
        reward: one for all rows, or one for each of ``conditions``.
        guidance: as for `fastguide.sample`, as ``value`` and ``seed``.
        batch: rows B of what is returned. They are one group, in which rows may compete, where ``conditions`` is None.
        conditions: B of them: each row is a group by itself.
        value: as above.
        predict_survivors: ask the network of the selected states only, for a value that does not read it.
        seed: as above.
    """
    # What is asked of networks is cut and padded by `in_batches`. Without memory for predictions none is made before states
    # propose.
    memory = Memory(limit=1, micro_batch=4096, ragged=True) if predict_survivors else Memory(ragged=True)
    result = sample(
        process, denoiser, reward, guidance, value=value, particles=batch if conditions is None else 1,
        groups=1 if conditions is None else batch, condition=conditions, seed=seed, memory=memory, progress=False,
    )  # fmt: skip
    samples = result.samples
    if guidance.consistent and guidance.alpha > 0:
        samples = result.draw(batch, seed=seed)
    return Decoded([*process.kept.states, samples], process.kept.clean)
