r"""Values learned beforehand from trajectories of the pretrained process: no denoiser output and no reward on the way.

`Regression` fits a network to the rewards at the ends of trajectories, from every state on them:

    soft:  exp(v(x_t) / alpha) = E[exp(r(x_0) / alpha) | x_t],       mean:  v(x_t) = E[r(x_0) | x_t].

`SoftQ` fits the fixed point of one step instead, which asks less of chance where trajectories are long,

    v(x_t) ← alpha · log E_p[exp(v(x_{t−1}) / alpha) | x_t],   v(x_0) = r(x_0),

with a copy of the network, renewed every few epochs, on the right.

Both learn the value only as well as the network and the trajectories allow; guidance with weights is exact with either.

Source: Uehara et al., 2501.09685, section 4 (Monte Carlo regression, soft Q-learning); Li et al., 2408.08252.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from fastguide.guidance.best_of_n import BestOfN
from fastguide.guidance.protocol import is_number
from fastguide.memory import Memory
from fastguide.ops._checks import choice, count
from fastguide.processes.protocol import Constraints, Process
from fastguide.run import Run
from fastguide.states import States
from fastguide.values.network import Fit, ValueNetwork, in_fixed_calls, soft_loss, squared_loss, train
from fastguide.values.posterior_mean import PosteriorMean

_HELD_OUT = 8
"""One trajectory in so many is held out."""


class _Learned:
    """What both share: a network that is fitted, and looked at in fixed calls."""

    reads_output = False

    def __init__(self, network: nn.Module | None = None, *, width: int = 128) -> None:
        self.network = network
        self.width = count("width", width)
        self._scale = (0.0, 1.0)

    def look(self, states: States) -> Tensor:
        """Return the values ``[u]`` float64."""
        if self.network is None:
            raise RuntimeError(f"value: call {type(self).__name__}.fit(process, denoiser, reward, …) first")
        center, unit = self._scale
        with torch.no_grad():
            return center + unit * in_fixed_calls(self.network, states.x, states.time)

    def values(self, looked: Tensor, rewards: Callable[[Tensor], Tensor], alpha: float) -> Tensor:
        """Return them."""
        return looked

    def state_dict(self) -> dict[str, Any]:
        """Return the parameters and the scale, for `torch.save`."""
        if self.network is None:
            raise RuntimeError("state_dict: nothing is fitted yet")
        return {"network": self.network.state_dict(), "scale": self._scale}

    def load_state_dict(self, state: dict[str, Any], process: Process) -> None:
        """Take what `state_dict` gave; the network is made for ``process`` if none was given."""
        if self.network is None:
            self.network = self._made(process)
        self.network.load_state_dict(state["network"])
        self._scale = tuple(state["scale"])

    def _made(self, process: Any) -> nn.Module:
        if hasattr(process, "vocab"):
            return ValueNetwork((process.length,), process.vocab + 1, self.width)
        return ValueNetwork(process.shape, None, self.width)

    def _fit(
        self,
        process: Any,
        denoiser: Any,
        reward: Any,
        particles: int,
        epochs: int,
        batch: int,
        rate: float,
        seed: int,
        options: dict[str, Any],
        unit: float | None,
        problem: Callable[[Tensor, Tensor], tuple[Callable[[Tensor], Tensor], Callable[[], None] | None]],
    ) -> Fit:
        particles, epochs, batch = count("particles", particles), count("epochs", epochs), count("batch", batch)
        states, rewards = _trajectories(process, denoiser, reward, particles, seed, options)
        finite = rewards[rewards > -torch.inf]
        if len(finite) < 2:
            raise ValueError("reward: fewer than two of the pretrained samples have a finite reward")
        spread = float(finite.std())
        self._scale = (float(finite.mean()), unit or spread or 1.0)
        # What is forbidden is far below what is not: exp(−20) of a sample's weight.
        scaled = ((rewards - self._scale[0]) / self._scale[1]).clamp(min=-20.0).float()
        generator = torch.Generator(device="cpu").manual_seed(seed)
        # The layers draw their first weights from the global generator, whose state is put back.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.network is None:
                self.network = self._made(process)
        loss_of, after = problem(states, scaled)
        steps, held = len(states) - 1, particles // _HELD_OUT
        fitted = torch.arange(held * steps, particles * steps)

        def batches(generator: torch.Generator) -> list[Tensor]:
            order = fitted[torch.randperm(len(fitted), generator=generator)]
            return list(torch.split(order, batch))

        losses, left_out = train(
            self.network, batches, loss_of, lambda: loss_of(torch.arange(held * steps)), epochs=epochs, rate=rate,
            generator=generator, after_epoch=after,
        )  # fmt: skip
        return Fit(losses, left_out, spread)


class Regression(_Learned):
    """A network fitted to the rewards at the ends of trajectories.

    Args:
        target: ``"soft"``, the soft value at the temperature of the fit, or ``"mean"``.
        network: an ``nn.Module`` from states ``[n, *shape]`` and noise levels ``[n]`` to ``[n]``; a small one where None.
        width: of the hidden layers of that.
    """

    def __init__(self, target: str = "soft", network: nn.Module | None = None, *, width: int = 128) -> None:
        super().__init__(network, width=width)
        choice("target", target, ("soft", "mean"))
        self.target = target

    def fit(
        self,
        process: Process,
        denoiser: Any,
        reward: Any,
        *,
        alpha: float = 1.0,
        particles: int = 4096,
        epochs: int = 20,
        batch: int = 512,
        rate: float = 2e-3,
        seed: int = 0,
        **options: Any,
    ) -> Fit:
        """Draw ``particles`` trajectories of the pretrained process and fit; the same seed fits the same network.

        ``options`` are ``condition``, ``lengths``, ``x_init``, ``bias`` and ``decode``, as for `fastguide.sample`.
        """
        alpha = _positive(alpha)
        loss = soft_loss if self.target == "soft" else squared_loss

        def problem(states: Tensor, scaled: Tensor) -> tuple[Callable[[Tensor], Tensor], None]:
            steps, network = len(states) - 1, self.network
            assert network is not None
            times = torch.tensor(process.times[:-1])

            def loss_of(rows: Tensor) -> Tensor:
                k, particle = rows % steps, rows // steps
                return loss(network(states[k, particle], times[k]), scaled[particle])

            return loss_of, None

        unit = alpha if self.target == "soft" else None
        return self._fit(process, denoiser, reward, particles, epochs, batch, rate, seed, options, unit, problem)


class SoftQ(_Learned):
    """A network fitted to the fixed point of the soft value over one step.

    Args:
        network: as for `Regression`. width: likewise.
        renew: epochs after which the copy that gives the targets is renewed.
    """

    def __init__(self, network: nn.Module | None = None, *, width: int = 128, renew: int = 1) -> None:
        super().__init__(network, width=width)
        self.renew = count("renew", renew)

    def fit(
        self,
        process: Process,
        denoiser: Any,
        reward: Any,
        *,
        alpha: float = 1.0,
        particles: int = 4096,
        epochs: int = 40,
        batch: int = 512,
        rate: float = 2e-3,
        seed: int = 0,
        **options: Any,
    ) -> Fit:
        """As `Regression.fit`. A reward reaches the noise only after ``T · renew`` epochs: give at least as many."""
        alpha = _positive(alpha)

        def problem(states: Tensor, scaled: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[], None]]:
            steps, network = len(states) - 1, self.network
            assert network is not None
            times = torch.tensor(process.times)
            copy, epoch = deepcopy(network), 0

            def loss_of(rows: Tensor) -> Tensor:
                k, particle = rows % steps, rows // steps
                with torch.no_grad():
                    after = copy(states[k + 1, particle], times[k + 1])
                    target = torch.where(k + 1 == steps, scaled[particle], after)
                return soft_loss(network(states[k, particle], times[k]), target)

            def renew() -> None:
                nonlocal epoch
                epoch += 1
                if epoch % self.renew == 0:
                    copy.load_state_dict(network.state_dict())

            return loss_of, renew

        return self._fit(process, denoiser, reward, particles, epochs, batch, rate, seed, options, alpha, problem)


def _trajectories(
    process: Process, denoiser: Any, reward: Any, particles: int, seed: int, options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Return states ``[T + 1, n, *shape]`` of unguided trajectories, and the rewards ``[n]`` of their ends."""
    constraints = Constraints(*(options.pop(name, None) for name in ("x_init", "frozen", "bias", "lengths")))
    condition, decode = options.pop("condition", None), options.pop("decode", None)
    if options:
        raise TypeError(f"fit: unknown argument {', '.join(options)}")
    run = Run(
        process, denoiser, reward, BestOfN(), value=PosteriorMean(), particles=particles, groups=1, condition=condition,
        constraints=constraints, decode=decode, seed=seed, memory=Memory(), device=torch.device("cpu"),
    )  # fmt: skip
    run.history = []
    with torch.no_grad():
        result = run.sample()
    return torch.stack(run.history), result.rewards


def _positive(alpha: float) -> float:
    if not is_number(alpha) or alpha <= 0:
        raise ValueError(f"alpha: expected a finite number above 0, got {alpha!r}")
    return float(alpha)
