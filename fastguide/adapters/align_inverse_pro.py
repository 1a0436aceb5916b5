r"""The samplers of AlignInversePro's ``Interpolant`` (``fmif/fm_utils.py``), on `fastguide.sample`.

    from fastguide.adapters.align_inverse_pro import Interpolant    # was: from fmif.fm_utils import Interpolant

or, on an interpolant that exists already, ``install(noise_interpolant)``; all calls stay as they are.
Each function here takes the interpolant where the method has ``self``, then the method's own arguments, and returns
``(tokens [B, L], prot_traj, clean_traj)``. ``model`` and ``reward_model`` are the user's own. Each
distinct state is asked of the network once, for the value of a step and the draws of the next, and each distinct clean sequence
of a reward: in calls of B rows on a CPU, in one elsewhere. What is right here and not there:

- the tokens returned are the sampled ones (theirs: the network's most probable ones *before* the last update);
- SVDD and nested sampling have a temperature ``alpha``; 0, the best child, is SVDD's default as it is theirs. Nested sampling
  is `fastguide.NestedSMC` (theirs keeps the best child and then draws rows ∝ exp(score / largest score));
- SMC completes a child by the child's own masks (theirs by its parent's, which ignores what the step revealed), weighs in
  logarithms, resamples when the effective sample size asks for it and carries weights otherwise; rows returned are of equal
  weight. It takes the ``repeats`` that theirs is called with and lacks, and has no use for it;
- DPS follows each row's own gradient (theirs that of the batch mean, so that its scale falls with the batch), of a completion
  in which revealed tokens stay what they are, and does not tilt which positions are revealed;
- ``reward_name`` may be any of their four in every sampler.

``compat=True`` does as they do in all but the last. Rows may have backbones of their own, except where they compete (SMC and
nested sampling). ``do_purity`` is refused. Random numbers follow ``torch.manual_seed``.

Their own network (``ProteinMPNNFMIF``), wrapped or not, is run by `fastguide.models.protein_mpnn.unordered` where it is on the
CPU, in evaluation mode, and says of three states of the backbone what our code says; any other model is called as it is.
``model`` may also be a `fastguide.models.ProteinMPNN` of a design in which every residue is free; that never draws X.

Source: Uehara et al., 2501.09685.
"""

# ruff: noqa: N802, N803, N815 - the names are theirs

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastguide.adapters._masked import Decoded, KeptProcess, TokenReward, decode, in_batches, svdd, unguided
from fastguide.adapters._masked_peers import Loop, Seen
from fastguide.adapters._protein_mpnn import recognize
from fastguide.adapters._seeds import torch_seed
from fastguide.guidance.best_of_n import BestOfN
from fastguide.guidance.classifier import ClassifierGuidance
from fastguide.guidance.nested_smc import NestedSMC
from fastguide.guidance.protocol import Guidance
from fastguide.guidance.smc import SMC
from fastguide.models.protocol import Denoiser, Prediction

MASK = 21
"""Their mask token, behind twenty amino acids and X."""

Returned = tuple[Tensor, list[Tensor], list[Tensor]]


class Backbones(NamedTuple):
    """The arguments of a network besides the tokens, one row a backbone."""

    X: Tensor
    mask: Tensor
    chain_M: Tensor
    residue_idx: Tensor
    chain_encoding_all: Tensor

    def take(self, rows: Tensor) -> Backbones:
        """Return the backbones of these rows."""
        return Backbones(*(part[rows.to(part.device)] for part in self))

    def ask(self, network: Callable[..., Any], tokens: Tensor) -> Tensor:
        """Call a network of theirs with tokens, or with weights of them."""
        out: Tensor = network(self.X, tokens.to(self.X.device), *self[1:])
        return out


class Network(Denoiser):
    """Their network. The state of a row is the row of the batch whose backbone it has."""

    differentiable = True

    def __init__(self, model: Callable[..., Any], backbones: Backbones) -> None:
        self.model, self.backbones = model, backbones

    def init(self, n: int, condition: int | None = None) -> Tensor:
        """Return the state of ``n`` rows."""
        return torch.full((n,), condition or 0)

    def __call__(
        self, x: Tensor, t: Tensor | None = None, state: Tensor | None = None, rows: Tensor | None = None
    ) -> Prediction:
        """Return logits ``[n, L, 21]`` of tokens ``[n, L]``, or of weights of them ``[n, L, 22]``."""
        assert state is not None
        row = state if rows is None else state[rows]
        expected = [x.shape[1], MASK + 1]

        def ask(some: Tensor) -> Tensor:
            out = self.backbones.take(row[some]).ask(self.model, x[some])
            if list(out.shape) != [len(some), *expected]:
                raise ValueError(
                    f"model: expected log-probabilities {[len(some), *expected]}, got shape {list(out.shape)}"
                )
            return out[..., :MASK].to("cpu", torch.float32)

        return Prediction(in_batches(ask, len(x), len(self.backbones.mask), self.backbones.X.device), row)

    def key(self, x: Tensor, state: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return tokens and row."""
        return torch.cat([x, (state if rows is None else state[rows])[:, None]], 1)


class _Task:
    """One call of one of their samplers, made ready; ``fast``: their network may be run by our own code."""

    def __init__(self, interpolant: Any, model: Any, *backbones: Tensor, fast: bool = True) -> None:
        cfg = interpolant._cfg
        if getattr(cfg, "do_purity", False):
            raise NotImplementedError("do_purity: not supported; leave it out, or call the interpolant's own method")
        if getattr(cfg, "interpolant_type", "masking") != "masking":
            raise ValueError(f"Unknown aatypes interpolant type {cfg.interpolant_type}")
        self.backbones = Backbones(*backbones)
        self.batch, self.length = self.backbones.mask.shape
        self.device = getattr(interpolant, "_device", self.backbones.X.device)
        self.model = model
        self.same = all(bool((part == part[:1]).all()) for part in self.backbones)
        self.denoiser = model if isinstance(model, Denoiser) else Network(model, self.backbones)
        if fast and self.same and self.denoiser is not model:
            self.denoiser = recognize(model, self.backbones) or self.denoiser
        known = self.denoiser.length_of(None)
        if known is not None and (known != self.length or not self.same):
            raise ValueError(
                f"model: it designs {known} positions of one backbone; the batch has {self.length} positions of "
                f"{'one backbone' if self.same else 'several backbones'}"
            )
        self.vocab: int = getattr(self.denoiser, "vocab", MASK)
        self.process = KeptProcess(self.length, self.vocab, cfg.num_timesteps - 1, temperature=cfg.temp)
        self.seed = torch_seed()

    def one_backbone(self) -> None:
        """Raise where rows that are to compete have backbones of their own."""
        if not self.same:
            raise ValueError(
                "X: rows have different backbones, and their rewards do not compare; call for one at a time"
            )

    def run(self, guidance: Guidance, score: Callable[[Tensor, Tensor], Tensor] | None, soft: Any = None) -> Returned:
        """Return what guidance gives."""

        def reward(row: int) -> Any:
            if score is None:
                return unguided
            rows = partial(torch.full, fill_value=row)
            return TokenReward(
                "reward_model",
                lambda x0: score(x0, rows((len(x0),))),
                None if soft is None else lambda x0: soft(x0, rows((len(x0),))),
            )

        each = range(self.batch)
        kept = decode(
            self.process, self.denoiser, reward(0) if self.same or score is None else [reward(i) for i in each],
            guidance, batch=self.batch, conditions=None if self.same else list(each), seed=self.seed,
        )  # fmt: skip
        return self.returned(kept, kept.states[-1])

    def loop(self, score: Callable[[Tensor, Tensor], Tensor]) -> Loop:
        """Return their loop."""
        state = self.denoiser.init(self.batch, None)
        if not self.same:
            state = torch.arange(self.batch)
        process = self.process
        return Loop(
            self.denoiser, state, times=process.times, reveal=process.reveal_probabilities,
            temperature=process.temperature, length=self.length, mask=self.vocab, score=score, seed=self.seed,
            everywhere=self.denoiser is not self.model,
        )  # fmt: skip

    def returned(self, kept: Decoded, tokens: Tensor) -> Returned:
        """Return what they do: tokens, states and completions, with their mask."""
        states = [x.masked_fill(x == self.vocab, MASK) for x in kept.states]
        return tokens.to(self.device), states, kept.clean

    def score(self, reward_model: Any, reward_name: str) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the reward of tokens ``[n, L]`` on the backbones of rows ``[n]``."""

        device = self.backbones.X.device

        def ask(x0: Tensor, row: Tensor) -> Tensor:
            if reward_name == "stability":
                one_hot = F.one_hot(x0.to(device), MASK + 1).float()

                def some(rows: Tensor) -> Tensor:
                    return self.backbones.take(row[rows]).ask(reward_model, one_hot[rows]).detach().reshape(-1)

                found = in_batches(some, len(x0), self.batch, device)
            elif reward_name == "LDDT":
                found = torch.as_tensor(reward_model.cal_reward(x0.to(device)))
            elif reward_name == "scRMSD":
                found = -torch.as_tensor(reward_model.cal_rmsd_reward(x0.to(device)))
            else:
                found = -torch.as_tensor(reward_model.calculate_energy(x0.to(device)))
            return found.detach().reshape(-1).to("cpu", torch.float64)

        if reward_name not in ("stability", "LDDT", "scRMSD", "stability_rosetta"):
            raise ValueError(
                f"reward_name: unknown {reward_name!r}; choose stability, LDDT, scRMSD or stability_rosetta"
            )
        return ask

    def soft(self, reward_model: Any) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the reward of weights of tokens ``[n, L, V]``, with gradients."""

        def ask(x0: Tensor, row: Tensor) -> Tensor:
            wide = F.pad(x0, (0, MASK + 1 - x0.shape[-1]))
            return self.backbones.take(row).ask(reward_model, wide).reshape(-1).to("cpu")

        return ask


def sample(
    interpolant: Any,
    model: Any,
    X: Tensor,
    mask: Tensor,
    chain_M: Tensor,
    residue_idx: Tensor,
    chain_encoding_all: Tensor,
    *,
    compat: bool = False,
) -> Returned:
    """Draw sequences without guidance.

    Args:
        interpolant: their ``Interpolant``: ``_cfg`` with ``num_timesteps``, ``temp``; ``_device``.
        model: ``(X, tokens [n, L], mask, chain_M, residue_idx, chain_encoding_all) -> [n, L, 22]`` log-probabilities.
        X: ``[B, L, 4, 3]``, as all that follow one row a sequence.
        mask: ``[B, L]``. chain_M: ``[B, L]``. residue_idx: ``[B, L]``. chain_encoding_all: ``[B, L]``.
        compat: see the head of this file.

    Returns:
        tokens ``[B, L]`` int64 in 0..20; states ``[B, L]`` before and after each step, 21 masked; the completions that the
        network predicted of those before.
    """
    task = _Task(interpolant, model, X, mask, chain_M, residue_idx, chain_encoding_all)
    if not compat:
        return task.run(BestOfN(alpha=0.0), None)
    loop = task.loop(lambda x0, row: unguided(x0))
    kept, _ = loop.run(task.batch, loop.children)
    return task.returned(kept, kept.clean[-1])


def sample_controlled_SMC(
    interpolant: Any,
    model: Any,
    X: Tensor,
    mask: Tensor,
    chain_M: Tensor,
    residue_idx: Tensor,
    chain_encoding_all: Tensor,
    reward_model: Any,
    reward_name: str,
    alpha: float = 0.5,
    repeats: int | None = None,
    *,
    ess_threshold: float = 0.5,
    compat: bool = False,
) -> Returned:
    """Draw sequences by sequential Monte Carlo among the rows.

    Args:
        interpolant: as for `sample`, and so are the next six.
        reward_model: their reward: called as ``model`` is with one-hot tokens ``[n, L, 22]`` (``"stability"``), or its method
            ``cal_reward`` (``"LDDT"``), minus ``cal_rmsd_reward`` (``"scRMSD"``) or ``calculate_energy``
            (``"stability_rosetta"``) of tokens.
        reward_name: one of these.
        alpha: temperature of the tilt ``exp(reward / alpha)``, above 0.
        repeats: not read.
        ess_threshold: resample when the effective sample size is below this share of the rows.
        compat: see the head of this file.
    """
    task = _Task(interpolant, model, X, mask, chain_M, residue_idx, chain_encoding_all)
    task.one_backbone()
    score, guidance = task.score(reward_model, reward_name), SMC(alpha=alpha, ess_threshold=ess_threshold)
    if not compat:
        return task.run(guidance, score)
    loop = task.loop(score)
    kept, _ = loop.run(task.batch, loop.smc(guidance.alpha))
    return task.returned(kept, kept.clean[-1])


def sample_controlled_SVDD(
    interpolant: Any,
    model: Any,
    X: Tensor,
    mask: Tensor,
    chain_M: Tensor,
    residue_idx: Tensor,
    chain_encoding_all: Tensor,
    reward_model: Any,
    reward_name: str,
    repeats: int = 3,
    *,
    alpha: float = 0.0,
    compat: bool = False,
) -> Returned:
    """Draw sequences, keeping one of ``repeats`` children of each row at each step.

    Args:
        interpolant: as for `sample_controlled_SMC`, and so are the next eight.
        repeats: children M.
        alpha: temperature at which a child is drawn; 0 keeps the best.
        compat: see the head of this file.
    """
    task = _Task(interpolant, model, X, mask, chain_M, residue_idx, chain_encoding_all)
    score, guidance = task.score(reward_model, reward_name), svdd(alpha, repeats)
    if not compat:
        return task.run(guidance, score)
    loop = task.loop(score)
    kept, _ = loop.run(task.batch, loop.best_child(repeats))
    before = kept.states[-2]
    return task.returned(kept, torch.where(before == task.vocab, kept.clean[-1], before))


def sample_controlled_NestedIS(
    interpolant: Any,
    model: Any,
    X: Tensor,
    mask: Tensor,
    chain_M: Tensor,
    residue_idx: Tensor,
    chain_encoding_all: Tensor,
    reward_model: Any,
    reward_name: str,
    repeats: int = 20,
    *,
    alpha: float = 0.5,
    ess_threshold: float = 0.5,
    compat: bool = False,
) -> Returned:
    """Draw sequences by nested sequential Monte Carlo: rows compete by the mean weight of their ``repeats`` children.

    Args:
        interpolant: as for `sample_controlled_SMC`, and so are the next eight.
        repeats: children M, at least 2.
        alpha: temperature of the tilt ``exp(reward / alpha)``, above 0.
        ess_threshold: as for `sample_controlled_SMC`.
        compat: see the head of this file.
    """
    task = _Task(interpolant, model, X, mask, chain_M, residue_idx, chain_encoding_all)
    task.one_backbone()
    score = task.score(reward_model, reward_name)
    guidance = NestedSMC(alpha=alpha, branch=repeats, ess_threshold=ess_threshold)
    if not compat:
        return task.run(guidance, score)
    loop = task.loop(score)
    kept, _ = loop.run(task.batch, loop.nested(repeats))
    return task.returned(kept, kept.clean[-1])


def sample_controlled_DPS(
    interpolant: Any,
    model: Any,
    X: Tensor,
    mask: Tensor,
    chain_M: Tensor,
    residue_idx: Tensor,
    chain_encoding_all: Tensor,
    guidance_scale: float,
    reward_model: Any,
    *,
    gradient: str | None = None,
    compat: bool = False,
) -> Returned:
    """Draw sequences whose steps lean to where the reward rises.

    Args:
        interpolant: as for `sample`, and so are the next six.
        guidance_scale: factor of the gradient: 1 / alpha.
        reward_model: their reward, differentiable in weights of tokens ``[n, L, 22]``.
        gradient: ``"input"``, through a ``model`` that reads weights of tokens (theirs does after ``finetune_init``), or
            ``"decoded"``, of the reward alone; None is ``"input"`` unless ``model`` is one of ours that cannot.
        compat: see the head of this file.
    """
    task = _Task(interpolant, model, X, mask, chain_M, residue_idx, chain_encoding_all, fast=False)
    soft = task.soft(reward_model)
    if not compat:
        kind = gradient or ("input" if task.denoiser.differentiable else "decoded")
        guidance = ClassifierGuidance(gradient=kind, scale=guidance_scale)
        # The reward of the samples themselves is not read.
        return task.run(guidance, lambda x0, row: unguided(x0), soft)
    loop = task.loop(lambda x0, row: unguided(x0))

    def step(seen: Seen, k: int) -> Seen:
        with torch.enable_grad():
            x = F.one_hot(seen.x, MASK + 1).float().requires_grad_()
            x0 = torch.softmax(task.backbones.ask(model, x), -1)
            torch.autograd.backward(task.backbones.ask(reward_model, x0).mean())
        assert x.grad is not None
        shift = guidance_scale * (x.grad - x.grad[..., MASK:])
        return loop.children(seen, k, shift=shift[..., :MASK])

    kept, _ = loop.run(task.batch, step)
    return task.returned(kept, kept.clean[-1])


SAMPLERS = (
    sample,
    sample_controlled_SMC,
    sample_controlled_SVDD,
    sample_controlled_NestedIS,
    sample_controlled_DPS,
)


def install(interpolant: Any, *, compat: bool = False) -> Any:
    """Put these samplers in the place of the interpolant's own, and return it."""
    for sampler in SAMPLERS:
        setattr(interpolant, sampler.__name__, partial(sampler, interpolant, compat=compat))
    return interpolant


class Interpolant:
    """Stands in for theirs where sequences are drawn; it corrupts no batches to train on.

    Args:
        cfg: theirs, with ``num_timesteps`` and ``temp``.
        compat: see the head of this file.
    """

    def __init__(self, cfg: Any, *, compat: bool = False) -> None:
        self._cfg = cfg
        install(self, compat=compat)

    def set_device(self, device: Any) -> None:
        """Say where tokens are to be returned."""
        self._device = device
