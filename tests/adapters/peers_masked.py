"""What AlignInversePro's ``Interpolant`` and SVDD's ``Diffusion`` do, in words of ours: neither is a package.

Calls per step are theirs: networks are asked of all rows, candidate after candidate, parents and children alike; rewards
likewise; rows are drawn by numpy. ``calls`` counts them.
"""

# ruff: noqa: N802, N803, N806 - the names are theirs

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def race(weights: Tensor) -> Tensor:
    """Draw an index of the last axis ∝ weights: the first of exponential clocks."""
    clocks = 1e-10 - (torch.rand_like(weights) + 1e-10).log()
    return (weights / clocks).argmax(-1)


def rows_by(weights: Tensor) -> np.ndarray:
    w = weights.detach().cpu().numpy()
    return np.random.choice(len(w), len(w), p=w / w.sum())


class TheirInterpolant:
    """Their samplers of one backbone, repeated; ``"stability"`` rewards."""

    MASK = 21

    def __init__(self, num_timesteps: int, temp: float, min_t: float = 0.01) -> None:
        self._cfg = SimpleNamespace(
            num_timesteps=num_timesteps, temp=temp, min_t=min_t, do_purity=False, interpolant_type="masking"
        )
        self._device = torch.device("cpu")
        self.calls: Counter[str] = Counter()

    def _decode(self, model: Any, backbone: tuple[Tensor, ...], update: Callable[..., Tensor]):
        X, *rest = backbone

        def ask(tokens: Tensor) -> Tensor:
            self.calls["model"] += 1
            return model(X, tokens, *rest)

        x = torch.full(rest[0].shape, self.MASK)
        states, clean = [x.clone()], []
        ts = torch.linspace(self._cfg.min_t, 1.0, self._cfg.num_timesteps)
        for t, s in pairwise(ts):
            with torch.no_grad():
                logits = ask(x).clone()
            logits[..., self.MASK] = -1e6
            best = logits.argmax(-1)
            clean.append(best)
            log_p = torch.log_softmax(logits / self._cfg.temp, -1)
            weights = log_p.exp() * (s - t)
            weights[..., self.MASK] = 1.0 - s
            open_ = x == self.MASK
            before, x = x, update(ask, x, weights, open_)
            states.append(x)
        return best, torch.where(before == self.MASK, best, before), states, clean

    def _reward(self, reward_model: Any, backbone: tuple[Tensor, ...], tokens: Tensor) -> Tensor:
        self.calls["reward"] += 1
        X, *rest = backbone
        return reward_model(X, F.one_hot(tokens, 22).float(), *rest)

    def sample(self, model, *backbone):
        best, _, states, clean = self._decode(
            model, backbone, lambda ask, x, weights, open_: torch.where(open_, race(weights), x)
        )
        return best, states, clean

    def _best_child(self, ask, x, weights, open_, backbone, reward_model, repeats):
        children = [torch.where(open_, race(weights), x) for _ in range(repeats)]
        scores = []
        for child in children:
            guess = ask(child).argmax(2)
            scores.append(self._reward(reward_model, backbone, torch.where(child == self.MASK, guess, child)))
        scores = torch.stack(scores)
        which = scores.argmax(0)
        return torch.stack([children[which[j]][j] for j in range(len(x))]), scores.amax(0)

    def sample_controlled_SVDD(self, model, *args, repeats=3):
        *backbone, reward_model, _ = args

        def update(ask, x, weights, open_):
            return self._best_child(ask, x, weights, open_, backbone, reward_model, repeats)[0]

        _, completed, states, clean = self._decode(model, tuple(backbone), update)
        return completed, states, clean

    def sample_controlled_NestedIS(self, model, *args, repeats=20):
        *backbone, reward_model, _ = args

        def update(ask, x, weights, open_):
            x, scores = self._best_child(ask, x, weights, open_, backbone, reward_model, repeats)
            return x[rows_by(torch.exp(scores / scores.abs().max()))]

        best, _, states, clean = self._decode(model, tuple(backbone), update)
        return best, states, clean

    def sample_controlled_SMC(self, model, *args, alpha=0.5):
        *backbone, reward_model, _ = args

        def update(ask, x, weights, open_):
            child = torch.where(open_, race(weights), x)
            values = []
            for state in (child, x):
                # The parent's masks, in both.
                guess = torch.where(open_, ask(state).argmax(2), state)
                self._reward(reward_model, backbone, guess)  # asked once for nothing, then by name
                values.append(self._reward(reward_model, backbone, guess))
            return child[rows_by(torch.exp((values[0] - values[1]) / alpha))]

        best, _, states, clean = self._decode(model, tuple(backbone), update)
        return best, states, clean

    def sample_controlled_DPS(self, model, *args):
        *backbone, scale, reward_model = args
        X, *rest = backbone

        def update(ask, x, weights, open_):
            one_hot = F.one_hot(x, 22).float().requires_grad_()
            soft = torch.softmax(ask(one_hot), 2)
            reward_model(X, soft, *rest).mean().backward()
            shift = scale * (one_hot.grad - one_hot.grad[..., self.MASK :])
            return torch.where(open_, race(weights * shift.exp()), x)

        best, _, states, clean = self._decode(model, tuple(backbone), update)
        return best, states, clean


class TheirDiffusion(nn.Module):
    """Their model: ``network(x or one-hot [n, L, 5]) -> logits [n, L, 4]``, and its samplers."""

    parameterization, sampler, mask_index, device = "subs", "ddpm", 4, torch.device("cpu")

    def __init__(self, network: Callable[[Tensor], Tensor], length: int, steps: int, batch: int) -> None:
        super().__init__()
        self.network = network
        self.config = SimpleNamespace(
            loader=SimpleNamespace(eval_batch_size=batch),
            sampling=SimpleNamespace(steps=steps, noise_removal=True),
            model=SimpleNamespace(length=length),
        )
        self.calls: Counter[str] = Counter()

    def noise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Log-linear."""
        keep = 1.0 - 1e-3
        return -torch.log1p(-keep * t), keep / (1 - keep * t)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (len(x),)
        return self._substitute(self.network(x), x)

    def forward2(self, one_hot: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (len(x),)
        return self._substitute(self.network(one_hot), x)

    def _substitute(self, logits: Tensor, x: Tensor) -> Tensor:
        self.calls["model"] += 1
        log_p = F.pad(torch.log_softmax(logits, -1), (0, 1), value=-1e6)
        revealed = torch.where(F.one_hot(x, 5) > 0, 0.0, -1e6)
        return torch.where((x == 4)[..., None], log_p, revealed)

    def _decode(self, num_steps, eps, batch, update) -> Tensor:
        steps, n = num_steps or self.config.sampling.steps, batch or self.config.loader.eval_batch_size
        x = torch.full((n, self.config.model.length), 4)
        times, dt = torch.linspace(1, eps, steps + 1), (1 - eps) / steps
        for time in times[:-1]:
            t = time * torch.ones(n, 1)
            sigma_t, sigma_s = self.noise(t)[0][:, 0], self.noise(t - dt)[0][:, 0]
            now, then = (1 - torch.exp(-sigma)[:, None, None] for sigma in (sigma_t, sigma_s))
            weights = self.forward(x, sigma_t).exp() * (now - then)
            weights[..., 4] = then[..., 0]
            x = update(x, weights.detach(), x == 4, sigma_s)
        return self.forward(x, self.noise(times[-1] * torch.ones(n, 1))[0][:, 0])[..., :4].argmax(-1)

    def _best(self, score, x, weights, open_, sample_M):
        children = [torch.where(open_, race(weights), x) for _ in range(sample_M)]
        scores = torch.softmax(torch.stack([score(child).squeeze() for child in children], 1), 1)
        which = scores.argmax(1)
        return torch.stack([children[which[j]][j] for j in range(len(x))])

    @torch.no_grad()
    def controlled_sample(self, embedding, head, num_steps=None, eps=1e-5, eval_sp_size=None, sample_M=10):
        def score(child):
            return self._scored(head, embedding(F.one_hot(child, 5)[..., :4].float()))

        return self._decode(
            num_steps, eps, eval_sp_size, lambda x, w, open_, _: self._best(score, x, w, open_, sample_M)
        )

    def _scored(self, reward_model, rows: Tensor) -> Tensor:
        self.calls["reward"] += 1
        return reward_model(rows)

    @torch.no_grad()
    def controlled_sample_tweedie(
        self, reward_model, num_steps=None, eps=1e-5, eval_sp_size=None, sample_M=10, options=True, task="dna"
    ):
        def update(x, weights, open_, sigma):
            def score(child):
                if options == "True":
                    guess = torch.where(child == 4, self.forward(child, sigma).argmax(2), child)
                    rows = F.one_hot(guess, 4)
                else:
                    rows = F.one_hot(child, 5)[..., :4]
                return self._scored(reward_model, rows.float().transpose(1, 2))[:, 0]

            return self._best(score, x, weights, open_, sample_M)

        return self._decode(num_steps, eps, eval_sp_size, update)

    @torch.no_grad()
    def controlled_sample_TDS(self, reward_model, alpha, num_steps=None, eps=1e-5, eval_sp_size=None, sample_M=10):
        def update(x, weights, open_, sigma):
            child = torch.where(open_, race(weights), x)
            values = []
            for state in (child, x):
                guess = torch.where(open_, self.forward(state, sigma).argmax(2), state)
                rows = F.one_hot(guess, 4).float().transpose(1, 2)
                values.append(self._scored(reward_model, rows)[:, 0][:, 0])
            return child[rows_by(torch.exp((values[0] - values[1]) / alpha))]

        return self._decode(num_steps, eps, eval_sp_size, update)

    def controlled_sample_DPS(
        self, reward_model, guidance_scale, num_steps=None, eps=1e-5, eval_sp_size=None, sample_M=10
    ):
        def update(x, weights, open_, sigma):
            one_hot = F.one_hot(x, 5).float().requires_grad_()
            x0 = torch.where(open_[..., None], self.forward2(one_hot, x, sigma), one_hot)
            reward_model(torch.softmax(x0, 2).transpose(1, 2)[:, :4])[:, 0].mean().backward()
            shift = guidance_scale * (one_hot.grad - one_hot.grad[..., 4:])
            return torch.where(open_, race(weights * shift.exp()), x)

        return self._decode(num_steps, eps, eval_sp_size, update)
