r"""``particles`` on `fastguide.ops`: its particle filters whole, or its resampling alone.

    from fastguide.adapters import particles                # was: import particles

`SMC` is theirs, with the same arguments, attributes, collectors and history. It weighs and draws ancestors in one pass over the
log-weights, normalises weights only where somebody reads them, and draws and evaluates the normal laws of a bootstrap filter
itself; all other laws and models are called as they are. What else ``particles`` has can be had from here under its own name.

    import fastguide.adapters.particles                     # the one line more
    particles.SMC(fk=…, N=…, resampling="fastguide_systematic")

registers ``fastguide_systematic``, ``fastguide_stratified``, ``fastguide_multinomial`` and ``fastguide_residual`` in
``particles.resampling``, with the signature of its own schemes: normalised weights ``[N]`` and the number of draws to int64
ancestors ``[M]``.

Counts are exact at any N, a population without weight is an error (theirs goes on with NaN), and random numbers follow
``np.random.seed``. As in ``particles``, a log-weight of NaN is a weight of zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fastguide import ops
from fastguide.adapters._seeds import numpy_seed

try:
    import particles as _peer
    from particles import distributions, resampling, state_space_models
except ImportError as error:
    raise ImportError("fastguide.adapters.particles: needs particles; pip install particles") from error

Scheme = Callable[..., "np.ndarray[Any, np.dtype[np.int64]]"]
RULES = ("systematic", "stratified", "multinomial", "residual")


def _select(log_weights: Any, k: int, rule: str) -> ops.Selection:
    return ops.select(torch.from_numpy(np.ascontiguousarray(log_weights)), k, rule=rule, seed=numpy_seed())


def _register(rule: str) -> Scheme:
    def scheme(W: Any, M: int) -> Any:  # noqa: N803 - their names
        return _select(torch.from_numpy(np.ascontiguousarray(W)).log(), M, rule).ancestors.to(torch.int64).numpy()

    scheme.__name__ = f"fastguide_{rule}"
    scheme.__doc__ = f"Resample by ``fastguide.ops.select`` with ``rule={rule!r}``."
    registered: Scheme = resampling.resampling_scheme(scheme)
    return registered


systematic, stratified, multinomial, residual = map(_register, RULES)


class Weights(resampling.Weights):  # type: ignore[misc]
    """Log-weights whose mean, effective sample size and ancestors come of one pass; ``W`` is computed when it is read."""

    def __init__(self, lw: Any = None, rule: str = "systematic", draws: int | None = None) -> None:
        self.lw, self.rule, self.draws = lw, rule, draws
        if lw is not None:
            lw[np.isnan(lw)] = -np.inf
            self.drawn = _select(lw, len(lw) if draws is None else draws, rule)
            self.log_mean, self.ESS = float(self.drawn.log_mean_weight), float(self.drawn.ess)

    @property
    def W(self) -> Any:  # noqa: N802
        """``[N]`` weights that sum to 1."""
        if "_W" not in self.__dict__:
            self._W = resampling.exp_and_normalise(self.lw)
        return self._W

    def add(self, delta: Any) -> Weights:
        """Return the weights times ``exp(delta)``."""
        return Weights(delta if self.lw is None else self.lw + delta, self.rule, self.draws)


class SMC(_peer.SMC):  # type: ignore[misc]
    """``particles.SMC``, see the head of this file; schemes that are not ours (``"ssp"``, your own) are theirs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rule = self.resampling.removeprefix("fastguide_")
        self._rule = rule if rule in RULES else None
        self.reset_weights()

    def reset_weights(self) -> None:
        """Make weights equal, or those of an auxiliary filter after resampling."""
        lw = None
        if self.fk.isAPF and self.A is not None:
            lw = resampling.log_mean_exp(self.logetat, W=self.W) - self.logetat[self.A]
        self.wgts = Weights(lw, self._rule or "systematic", self.N)

    def generate_particles(self) -> None:
        """Draw the first particles."""
        if not self.qmc and _is_own(self.fk.M0, state_space_models.Bootstrap.M0):
            self.X = _draw(self.fk.ssm.PX0(), self.N)
        else:
            super().generate_particles()

    def reweight_particles(self) -> None:
        """Multiply the weights by the potential of the particles."""
        fk = self.fk
        if _is_own(fk.logG, state_space_models.Bootstrap.logG):
            lw = _log_density(fk.ssm.PY(self.t, self.Xp, self.X), fk.data[self.t], len(self.X))
        else:
            lw = fk.logG(self.t, self.Xp, self.X)
        self.wgts = self.wgts.add(lw)

    def resample_move(self) -> None:
        """Resample where the effective sample size is low, and move."""
        fk = self.fk
        self.rs_flag = fk.time_to_resample(self)
        if not self.rs_flag:
            self.A, self.Xp = np.arange(self.N), self.X
        else:
            if self._rule is None:
                self.A = resampling.resampling(self.resampling, self.aux.W, M=self.N)
            else:
                self.A = self.aux.drawn.ancestors.to(torch.int64).numpy()
            self.Xp = self.X[self.A]
            self.reset_weights()
        if _is_own(fk.M, state_space_models.Bootstrap.M):
            self.X = _draw(fk.ssm.PX(self.t, self.Xp), self.Xp.shape[0])
        else:
            self.X = fk.M(self.t, self.Xp)


def _is_own(method: Any, original: Any) -> bool:
    return getattr(method, "__func__", None) is original


def _is_normal(law: Any, n: int, x: Any = 0.0) -> bool:
    """Whether ``law`` is a normal law as we draw it: one number a particle, positive scale; theirs judges the others."""
    return (
        type(law) is distributions.Normal
        and all(np.shape(a) in ((), (1,), (n,)) for a in (law.loc, law.scale, x))
        and bool(np.all(np.greater(law.scale, 0)))
    )


def _tensor(x: Any) -> Any:
    return torch.from_numpy(np.require(x, np.float64, ["C", "W"]))


def _empty(n: int) -> Any:
    return torch.from_numpy(np.empty(n))  # numpy asks for huge pages


def _draw(law: Any, n: int) -> Any:
    """Draw ``[n]`` from a law; the noise of a normal one is the float32 noise of `fastguide.ops.gaussian_step`."""
    if not _is_normal(law, n):
        return law.rvs(size=n)
    zero = torch.zeros(1, n)
    noise = ops.gaussian_step(zero, zero, x_coefficient=0.0, prediction_coefficient=0.0, sigma=1.0, seed=numpy_seed())
    return torch.addcmul(_tensor(law.loc), noise.view(n), _tensor(law.scale), out=_empty(n)).numpy()


def _log_density(law: Any, x: Any, n: int) -> Any:
    if not _is_normal(law, n, x):
        return law.logpdf(x)
    y, constant = (_tensor(x) - _tensor(law.loc)) / _tensor(law.scale), _tensor(law.scale).log()
    constant += 0.5 * math.log(2 * math.pi)
    return torch.addcmul(constant, y, y, value=0.5, out=_empty(n)).neg_().numpy()


def __getattr__(name: str) -> Any:
    return getattr(_peer, name)
