r"""The controlled samplers of SVDD's DNA and RNA models (``diffusion_gosai.py``, class ``Diffusion``), on `fastguide.sample`.

    from fastguide.adapters import svdd
    svdd.install(model.ref_model)        # the one line more; all calls stay as they are

Each function takes the model where the method has ``self``, then the method's own arguments, and returns tokens ``[B, L]``.
Each distinct state is asked of the network once, for the value of a step and the draws of the next, and each distinct clean
sequence of a reward: in calls of B rows on a CPU, in one elsewhere. What is right here and not there:

- `controlled_sample_TDS` is guided by the reward's gradient, which it corrects for (theirs has none), weighs in logarithms,
  resamples when the effective sample size asks for it and carries weights otherwise; sequences returned are of equal weight;
- `controlled_sample_DPS` follows each sequence's own gradient (theirs that of the batch mean, so that its scale falls with the
  batch) of a completion in which revealed tokens stay what they are, and does not tilt which positions are revealed;
- ``options=True`` of `controlled_sample_tweedie` means what ``"True"`` does (theirs, the default, scores masked sequences);
- `controlled_sample` and `controlled_sample_tweedie` have a temperature ``alpha``; 0, the best child, is the default;
- the last step draws what is still masked (theirs, some 1e-5 of the positions, takes the most probable token).

``compat=True`` does as they do. Only ``parameterization="subs"`` and ``sampler="ddpm"`` are supported. Random numbers follow
``torch.manual_seed``.

Source: Li et al., 2408.08252.
"""

# ruff: noqa: N802, N803 - the names are theirs

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastguide.adapters._masked import KeptProcess, TokenReward, decode, in_batches, svdd, unguided
from fastguide.adapters._masked_peers import Loop, Seen
from fastguide.adapters._seeds import torch_seed
from fastguide.guidance.classifier import ClassifierGuidance
from fastguide.guidance.protocol import Guidance
from fastguide.guidance.smc import SMC
from fastguide.guidance.tds import TDS
from fastguide.models.protocol import Denoiser, Prediction
from fastguide.states import States
from fastguide.values.protocol import Value

Score = Callable[[Tensor], Tensor]


class Network(Denoiser):
    """Their network. Our noise level t is their time ``eps + (1 - eps) t``."""

    differentiable = True

    def __init__(self, model: Any, eps: float, batch: int) -> None:
        self.model, self.eps, self.batch = model, eps, batch

    def sigma(self, t: Tensor) -> Tensor:
        """Return their noise ``[n]`` at our levels ``[n]``."""
        time = self.eps + (1.0 - self.eps) * t.to(self.model.device)
        sigma: Tensor = self.model.noise(time[:, None])[0]
        return sigma.reshape(-1)

    def masked(self, t: Tensor) -> Tensor:
        """Return the share of positions that is masked ``[n]`` float64 at our levels ``[n]``."""
        return -torch.expm1(-self.sigma(t).double()).cpu()

    def __call__(self, x: Tensor, t: Tensor | None = None, state: Any = None, rows: Tensor | None = None) -> Prediction:
        """Return log-probabilities ``[n, L, V]`` of tokens ``[n, L]``, or of weights of them ``[n, L, V + 1]``."""
        assert t is not None
        sigma, model = self.sigma(t), self.model

        def ask(some: Tensor) -> Tensor:
            there, noise = x[some].to(model.device), sigma[some.to(sigma.device)]
            soft = x.is_floating_point()
            out = model.forward2(there, there.argmax(-1), noise) if soft else model.forward(there, noise)
            return out[..., : model.mask_index].to("cpu", torch.float32)  # type: ignore[no-any-return]

        return Prediction(in_batches(ask, len(x), self.batch, torch.device(model.device)))


class OfState:
    """The value of a state is its own score, masks and all: see `fastguide.values.Value`."""

    reads_output = False

    def look(self, states: States) -> Tensor:
        """Return the states."""
        return states.x

    def values(self, looked: Tensor, rewards: Callable[[Tensor], Tensor], alpha: float) -> Tensor:
        """Return their scores."""
        return rewards(looked)


class _Task:
    """One call of one of their samplers, made ready."""

    def __init__(self, model: Any, num_steps: int | None, eps: float, eval_sp_size: int | None) -> None:
        if model.parameterization != "subs" or model.sampler != "ddpm":
            raise NotImplementedError(
                f'model: expected parameterization "subs" and sampler "ddpm", got {model.parameterization!r} and '
                f"{model.sampler!r}; call the model's own method"
            )
        config = model.config
        self.model = model
        self.batch = config.loader.eval_batch_size if eval_sp_size is None else eval_sp_size
        steps = config.sampling.steps if num_steps is None else num_steps
        self.vocab = int(model.mask_index)
        self.network = Network(model, eps, self.batch)
        whole = float(self.network.masked(torch.ones(1)))

        def revealed(t: float) -> float:
            return 1.0 if t == 0.0 else 1.0 - float(self.network.masked(torch.tensor([t]))) / whole

        self.process = KeptProcess(config.model.length, self.vocab, steps, schedule=revealed)
        self.seed = torch_seed()

    def run(self, guidance: Guidance, score: Score, soft: Score | None = None, value: Value | None = None) -> Tensor:
        """Return what guidance gives."""
        kept = decode(
            self.process, self.network, TokenReward("reward_model", score, soft), guidance, batch=self.batch, value=value,
            predict_survivors=value is not None, seed=self.seed,
        )  # fmt: skip
        return kept.states[-1].to(self.model.device)

    def loop(self, score: Score) -> Loop:
        """Return their loop, whose last step leaves a few masks."""
        levels = self.network.masked(torch.tensor((*self.process.times[:-1], 0.0)))
        return Loop(
            self.network, None, times=self.process.times, reveal=(1.0 - levels[1:] / levels[:-1]).tolist(),
            temperature=1.0, length=self.process.length, mask=self.vocab, score=lambda x0, row: score(x0), seed=self.seed,
        )  # fmt: skip

    def finish(self, loop: Loop, seen: Seen) -> Tensor:
        """Return what the last states become: the most probable token where they are still masked."""
        x = loop.complete(seen.x, seen.logits, seen.x) if self.model.config.sampling.noise_removal else seen.x
        return x.to(self.model.device)

    def one_hot(self, x: Tensor) -> Tensor:
        """Return one-hot tokens ``[n, L, V]``, zeros where masked."""
        return F.one_hot(x.to(self.model.device), self.vocab + 1)[..., : self.vocab]

    def score(self, reward_model: Any, task: str = "dna") -> Score:
        """Return the reward of tokens ``[n, L]``: the first of its numbers."""

        def ask(x0: Tensor) -> Tensor:
            rows = self.one_hot(x0)
            if task == "rna_saluki":
                return _first(reward_model(self.model.transform_samples_saluki(rows).float()))
            return _first(reward_model(rows.float().transpose(1, 2)))

        return lambda x0: self.in_batches(ask, x0)

    def in_batches(self, ask: Score, x: Tensor) -> Tensor:
        """Return what a network says of tokens ``[n, L]``."""
        return in_batches(lambda rows: ask(x[rows]), len(x), self.batch, torch.device(self.model.device))

    def soft(self, reward_model: Any) -> Score:
        """Return the reward of weights of tokens ``[n, L, V]``, with gradients."""

        def ask(x0: Tensor) -> Tensor:
            out: Tensor = reward_model(x0.to(self.model.device).transpose(1, 2))
            return out.reshape(len(x0), -1)[:, 0].to("cpu")

        return ask


def _first(out: Tensor) -> Tensor:
    """Return the first number of each row, ``[n]`` float64."""
    return out.detach().reshape(len(out), -1)[:, 0].to("cpu", torch.float64)


def controlled_sample(
    model: Any,
    pre_scorer_embedding: Any,
    pre_scorer_head: Any,
    num_steps: int | None = None,
    eps: float = 1e-5,
    eval_sp_size: int | None = None,
    sample_M: int = 10,
    *,
    alpha: float = 0.0,
    compat: bool = False,
) -> Tensor:
    """Keep one of ``sample_M`` children of each sequence at each step, by a learned value of masked sequences.

    Args:
        model: their ``Diffusion``.
        pre_scorer_embedding: of one-hot sequences ``[n, L, 4]``, zeros where masked.
        pre_scorer_head: of what the embedding gives: one number a sequence.
        num_steps: of the model's configuration where None.
        eps: the last time.
        eval_sp_size: sequences B; of the configuration where None.
        sample_M: children M.
        alpha: temperature at which a child is drawn; 0 keeps the best.
        compat: see the head of this file.
    """
    task = _Task(model, num_steps, eps, eval_sp_size)

    def ask(x: Tensor) -> Tensor:
        return _first(pre_scorer_head(pre_scorer_embedding(task.one_hot(x).float())))

    score = partial(task.in_batches, ask)
    if not compat:
        return task.run(svdd(alpha, sample_M), score, value=OfState())
    return _best_of_state(task, score, sample_M)


def controlled_sample_tweedie(
    model: Any,
    reward_model: Any,
    num_steps: int | None = None,
    eps: float = 1e-5,
    eval_sp_size: int | None = None,
    sample_M: int = 10,
    options: bool | str = True,
    task: str = "dna",
    *,
    alpha: float = 0.0,
    compat: bool = False,
) -> Tensor:
    """Keep one of ``sample_M`` children of each sequence at each step, by the reward of its completion.

    Args:
        model: as for `controlled_sample`, and so are the next three after ``reward_model``.
        reward_model: of one-hot sequences ``[n, 4, L]``, float32; the first of its numbers counts.
        sample_M: children M.
        options: True or ``"True"``, the reward of the completion that the network predicts; anything else, of the masked
            sequence, its masks zero.
        task: ``"rna_saluki"`` shows the reward what the model's ``transform_samples_saluki`` makes of sequences.
        alpha: temperature at which a child is drawn; 0 keeps the best.
        compat: see the head of this file.
    """
    ready = _Task(model, num_steps, eps, eval_sp_size)
    score = ready.score(reward_model, task)
    completed = options == "True" if compat else str(options) == "True"
    if not compat:
        return ready.run(svdd(alpha, sample_M), score, value=None if completed else OfState())
    if not completed:
        return _best_of_state(ready, score, sample_M)
    loop = ready.loop(score)
    return ready.finish(loop, loop.run(ready.batch, loop.best_child(sample_M))[1])


def controlled_sample_TDS(
    model: Any,
    reward_model: Any,
    alpha: float,
    num_steps: int | None = None,
    eps: float = 1e-5,
    eval_sp_size: int | None = None,
    sample_M: int = 10,
    *,
    gradient: str | None = "decoded",
    ess_threshold: float = 0.5,
    compat: bool = False,
) -> Tensor:
    """Draw sequences by twisted sequential Monte Carlo.

    Args:
        model: as for `controlled_sample_tweedie`, and so are the next five but ``alpha``.
        alpha: temperature of the tilt ``exp(reward / alpha)``, above 0.
        sample_M: not read.
        gradient: what guides proposals: ``"decoded"``, the gradient of the reward; ``"input"``, also through the network's
            ``forward2``; ``"exact"``, rewards of all substitutions; None, nothing, for rewards without a gradient.
        ess_threshold: resample when the effective sample size is below this share of the sequences.
        compat: see the head of this file.
    """
    task = _Task(model, num_steps, eps, eval_sp_size)
    score = task.score(reward_model)
    settings: dict[str, Any] = {"alpha": alpha, "ess_threshold": ess_threshold}
    guidance = SMC(**settings) if gradient is None else TDS(**settings, gradient=gradient)
    if not compat:
        return task.run(guidance, score, task.soft(reward_model))
    loop = task.loop(score)
    return task.finish(loop, loop.run(task.batch, loop.smc(guidance.alpha))[1])


def controlled_sample_DPS(
    model: Any,
    reward_model: Any,
    guidance_scale: float,
    num_steps: int | None = None,
    eps: float = 1e-5,
    eval_sp_size: int | None = None,
    sample_M: int = 10,
    *,
    gradient: str = "input",
    compat: bool = False,
) -> Tensor:
    """Draw sequences whose steps lean to where the reward rises.

    Args:
        model: as for `controlled_sample_tweedie`, and so are the next five but ``guidance_scale``.
        guidance_scale: factor of the gradient: 1 / alpha.
        sample_M: not read.
        gradient: as for `controlled_sample_TDS`, but None.
        compat: see the head of this file.
    """
    task = _Task(model, num_steps, eps, eval_sp_size)
    if not compat:
        guidance = ClassifierGuidance(gradient=gradient, scale=guidance_scale)
        return task.run(guidance, unguided, task.soft(reward_model))  # the reward of the samples themselves is not read
    loop, vocab = task.loop(unguided), task.vocab

    def step(seen: Seen, k: int) -> Seen:
        there = seen.x.to(model.device)
        t = torch.full((len(seen.x),), loop.times[k + 1])
        with torch.enable_grad():
            x = F.one_hot(there, vocab + 1).float().requires_grad_()
            out = model.forward2(x, there, task.network.sigma(t))
            x0 = torch.softmax(torch.where((there == vocab)[..., None], out, x), 2)
            torch.autograd.backward(reward_model(x0.transpose(1, 2)[:, :vocab])[:, 0].mean())
        assert x.grad is not None
        shift = guidance_scale * (x.grad - x.grad[..., vocab:])
        return loop.children(seen, k, shift=shift[..., :vocab].cpu())

    return task.finish(loop, loop.run(task.batch, step)[1])


def _best_of_state(task: _Task, score: Score, branch: int) -> Tensor:
    """Run their loop with the score of masked sequences; the network is asked of those that are kept."""
    loop = task.loop(score)

    def step(seen: Seen, k: int) -> Seen:
        x = loop.draw(seen, k, branch)
        best = loop.score(x, torch.zeros(len(x), dtype=torch.int64)).view(-1, branch).argmax(1)
        kept = x[best + branch * torch.arange(len(best))]
        return loop.see(kept, seen.row, seen.state, seen.at, k + 1)

    return task.finish(loop, loop.run(task.batch, step)[1])


SAMPLERS = (controlled_sample, controlled_sample_tweedie, controlled_sample_TDS, controlled_sample_DPS)


def install(model: Any, *, compat: bool = False) -> Any:
    """Put these samplers in the place of the model's own, and return it."""
    for sampler in SAMPLERS:
        object.__setattr__(model, sampler.__name__, partial(sampler, model, compat=compat))
    return model
