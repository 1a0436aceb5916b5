"""Calls a reward: each distinct clean sample once in a run, in fixed shapes, its answer checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastguide import ops
from fastguide.deferred import deferring, require
from fastguide.errors import RewardError
from fastguide.memory import fixed_batches
from fastguide.rewards.protocol import Reward

MEMORY_ROWS = 2**21
"""Most clean samples whose rewards are remembered; beyond it the memory starts afresh, at the cost of repeated rows."""


@dataclass
class RewardCalls:
    """Evaluates one reward.

    Args:
        reward: the reward.
        decode: what turns clean rows ``[n, *shape]`` into what the reward sees.
        call_rows: fixed number of rows of each call to a reward that is not batch invariant.
        ragged: call with as many rows as there are.
        merge: evaluate equal samples of one call once (only for deterministic rewards).
        remember: keep the values from call to call (likewise).

    Attributes:
        computed: samples evaluated so far, padding not counted.
    """

    reward: Reward
    decode: Callable[[Tensor], Any]
    call_rows: int
    ragged: bool = False
    merge: bool = True
    remember: bool = True
    computed: int = 0
    _memory: dict[bytes, float] = field(default_factory=dict)

    def __call__(self, x0: Tensor) -> Tensor:
        """Return ``[n]`` float64 rewards of clean samples ``[n, *shape]``."""
        if self.reward.cheap:
            return self._evaluate(x0)
        on_host = self.reward.device is not None and self.reward.device.type == "cpu"
        # Which samples are distinct the host has to be told; it is where it reads them all the same.
        apart = deferring() and not on_host
        if apart or not (self.merge and self.reward.deterministic):
            return self._evaluate(x0.clone())  # a reward may write into what it is given
        if on_host and x0.device.type != "cpu":
            return self(x0.cpu()).to(x0.device)
        merged = ops.unique(x0)
        rows = x0[merged.representatives]
        # Real-valued samples do not come again.
        recall = self.remember and not rows.is_floating_point()
        values = self._recall(rows) if recall else self._evaluate(rows)
        return values[merged.inverse]

    def soft(self, x0: Tensor, *, tokens: bool) -> Tensor:
        """Return ``[n]`` rewards of what `decode` would give, ``[n, L, V]`` weights of tokens, with gradients where enabled.

        Of real samples any reward that torch can follow will do, whether it says that it is differentiable or not.
        """
        reward, n = self.reward, len(x0)
        evaluate = reward.soft if tokens or reward.differentiable else reward
        values = evaluate(x0 if reward.device is None else x0.to(reward.device))
        if not isinstance(values, Tensor) or values.shape != (n,):
            got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise RewardError(f"reward '{reward.name}': expected soft values of shape [{n}], got {got}", x0)
        if torch.is_grad_enabled() and not values.requires_grad:
            raise TypeError(
                f"reward '{reward.name}': no gradient flows from its value to the sample; write it in torch, without "
                "torch.no_grad or detach"
            )
        return values

    def _recall(self, rows: Tensor) -> Tensor:
        # numpy's void type turns all rows into bytes in one call; token ids fit 32 bits.
        tokens = rows.to("cpu", torch.int32).contiguous().numpy()
        keys = tokens.view(f"V{4 * rows.shape[1]}")[:, 0].tolist()
        values = torch.tensor([self._memory.get(key, math.nan) for key in keys], dtype=torch.float64, device="cpu")
        missing = values.isnan().nonzero()[:, 0]  # no remembered reward is nan
        if len(missing):
            fresh = self._evaluate(rows[missing.to(rows.device)]).cpu()
            values[missing] = fresh
            if len(self._memory) + len(missing) > MEMORY_ROWS:
                self._memory.clear()
            self._memory.update(zip([keys[i] for i in missing.tolist()], fresh.tolist(), strict=True))
        return values.to(rows.device)

    def _evaluate(self, rows: Tensor) -> Tensor:
        self.computed += len(rows)
        if self.reward.batch_invariant or self.ragged:
            return self._call(rows, len(rows))
        parts = []
        for index, real in fixed_batches(len(rows), self.call_rows, rows.device):
            parts.append(self._call(rows[index], real))
        return torch.cat(parts)

    def _call(self, rows: Tensor, real: int) -> Tensor:
        name = self.reward.name
        samples: Any = rows
        values: Any
        try:
            with torch.no_grad():
                samples = self.decode(rows)
                if self.reward.device is not None and isinstance(samples, Tensor):
                    samples = samples.to(self.reward.device)
                values = self.reward(samples)
        # A program turned into a reward may call sys.exit, which would end the run without a word.
        except (Exception, SystemExit) as error:
            raise RewardError(
                f"reward '{name}': raised {type(error).__name__}: {error} (called with {len(rows)} samples)", samples
            ) from error
        if not isinstance(values, Tensor):
            try:
                values = torch.as_tensor(values, dtype=torch.float64, device="cpu")
            except (TypeError, ValueError, RuntimeError):
                raise RewardError(
                    f"reward '{name}': expected one number a sample, a tensor of shape [{len(rows)}], got "
                    f"{type(values).__name__}"
                ) from None
        if values.is_complex():
            raise RewardError(f"reward '{name}': expected real numbers, got {values.dtype}; return the real part")
        if values.shape != (len(rows),):
            column = values.shape == (len(rows), 1)
            advice = "return values[:, 0]" if column else "wrap a one-at-a-time function in fg.rewards.each"
            raise RewardError(
                f"reward '{name}': expected shape [{len(rows)}] (one number a sample), got {list(values.shape)}; {advice}"
            )
        checked: Tensor = values.detach()[:real].to(rows.device, torch.float64)
        # Samples are not kept for a check that is read later.
        known = None if deferring() else samples

        def report(first: int, value: float) -> RewardError:
            if known is None:
                return RewardError(f"reward '{name}': returned {value} for row {first} of a call")
            return RewardError(f"reward '{name}': returned {value} for sample {_show(known[first])}", known[first])

        require(checked < torch.inf, checked, report)
        return checked


def _show(sample: Any) -> str:
    text = str(sample.tolist()) if isinstance(sample, Tensor) else repr(sample)
    return text if len(text) <= 200 else text[:197] + "..."
