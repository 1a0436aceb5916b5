"""What FK steering and DAS do, in words of ours: they are not packages that could be installed.

The calls per step are theirs: one of decoder and reward where a step resamples; a Python loop over the batch with a copy to the
host for each element; up to 500 gradients of the effective sample size for each. Where ``FG_PEERS`` names a folder with clones,
under their repositories' names, `clone` finds the originals there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def clone(file: str) -> Any:
    """Return the module ``file``, ``repository/path.py``, of a clone in ``FG_PEERS``, or None where there is none."""
    path = Path(os.environ.get("FG_PEERS") or "/nowhere") / file
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FKD_CLASS = "Fk-Diffusion-Steering/discrete_diffusion/fkd_class.py"
DAS_UTILS = "DAS/das/smc_utils.py"


class TheirFKD:
    def __init__(
        self, kind: str, lmbda: float, n: int, adaptive: bool, at_end: bool, steps: set[int], last: int, reward
    ):
        self.kind, self.lmbda, self.n, self.adaptive, self.at_end = kind, lmbda, n, adaptive, at_end
        self.steps, self.last, self.reward = steps | {last}, last, reward
        self.rewards, self.product = torch.zeros(n), torch.ones(n)

    def resample(self, i: int, latents: Tensor, x0: Tensor):
        if i not in self.steps or (self.kind == "is" and i != self.last):
            return latents, None
        r = self.reward(x0)
        if self.kind == "max":
            r = torch.max(r, self.rewards)
        elif self.kind == "add":
            r = r + self.rewards
        w = torch.exp(self.lmbda * (r - self.rewards if self.kind == "diff" else r))
        if i == self.last and self.kind in ("max", "add", "rt"):
            w = w / self.product
        w = torch.clamp(w, 0, 1e10)
        w[torch.isnan(w)] = 0.0
        if w.sum() == 0:
            w = torch.ones_like(w)
        if self.adaptive or (i == self.last and self.at_end):
            share = w / w.sum()
            if 1.0 / share.pow(2).sum() >= 0.5 * self.n:
                self.rewards = r
                return latents, x0
        index = torch.multinomial(w, self.n, replacement=True)
        self.rewards = r[index]
        self.product = self.product[index] * w[index]
        return latents[index], x0[index]


def their_resampling(
    scheme: Callable[..., np.ndarray], log_w: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``scheme``: of ``particles.resampling``, which theirs is taken from."""
    normal = torch.log_softmax(log_w, -1)
    weights, p = normal.exp(), log_w.shape[1]
    ess = 1.0 / weights.square().sum(-1)
    indices, resampled = torch.zeros(log_w.shape, dtype=torch.int32), torch.zeros(len(log_w), dtype=torch.bool)
    for i, e in enumerate(ess):
        if e < p * threshold:
            indices[i] = torch.from_numpy(scheme(W=np.array(weights[i].cpu()), M=p))
            resampled[i] = True
            log_w[i] = -torch.log(torch.tensor([float(p)]))
        else:
            indices[i] = torch.arange(p)
            log_w[i] = normal[i]
    return indices, resampled, log_w


def their_tempering(base: Tensor, twist: Tensor, low: Tensor, threshold: float, iterations: int = 500) -> Tensor:
    out, p = torch.zeros(len(low)), twist.shape[1]
    for i in range(len(low)):
        scale = low[i : i + 1].clone().requires_grad_()
        optimizer = torch.optim.Adam([scale], lr=1e-4)

        def closure(scale=scale, i=i, optimizer=optimizer):
            optimizer.zero_grad()
            w = torch.softmax(base[i] + scale * twist[i], -1)
            loss = (w.sum() ** 2 / (w**2).sum() - threshold * p) ** 2
            loss.backward()
            return loss

        for _ in range(iterations):
            before = scale.clone()
            optimizer.step(closure)
            scale.data = scale.clamp(low[i], 1.0)
            if torch.abs(scale - before) < 1e-6:
                break
        out[i] = scale.detach()[0]
    return out
