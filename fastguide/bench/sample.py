"""A guided run as a whole: what a user gets a second on this machine.

The denoiser of ``masked``, ``uniform`` and ``autoregressive`` is a bundled one and not pretrained: a network of one hidden
layer of 128 units with weights from a fixed seed (``mlp``), or a table of logits by position (``table``). ``protein`` is the
bundled backbone 1UBI with real ProteinMPNN weights.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastguide as fg
from fastguide.bench.output import duration
from fastguide.memory import resolve_memory
from fastguide.models import wrap as wrap_denoiser
from fastguide.ops._checks import count
from fastguide.rewards import resolve
from fastguide.rewards.protocol import Reward
from fastguide.rewards.protocol import wrap as wrap_reward

PROCESSES = ("masked", "uniform", "autoregressive", "protein")
GUIDANCE = ("smc", "svdd", "best-of-n")
DENOISERS = ("mlp", "table")
HIDDEN = 128


@dataclass(frozen=True)
class SampleSettings:
    """Settings of a run; the command line has an option of the same name for each.

    Args:
        process: ``"masked"``, ``"uniform"``, ``"autoregressive"`` (as many steps as positions) or ``"protein"``.
        particles: N.
        branch: children M of a particle, for ``"svdd"``.
        length: positions L; not for ``"protein"``, as ``vocab`` and ``denoiser``.
        vocab: tokens V.
        steps: reverse steps T.
        guidance: ``"smc"``, ``"svdd"`` or ``"best-of-n"``.
        alpha: temperature of the reward.
        reward: ``"pwm"`` (a position-weight matrix from a fixed seed) or ``"file.py:function"``; for ``"protein"`` what
            ``fastguide design`` takes.
        denoiser: ``"mlp"`` or ``"table"``.
        memory: as in `fastguide.sample`.
        seed: of all draws.
        repeats: runs, of which the one of median duration counts.
    """

    process: str = "masked"
    particles: int = 4096
    branch: int | None = None
    length: int | None = None
    vocab: int | None = None
    steps: int = 32
    guidance: str = "smc"
    alpha: float = 0.5
    reward: str | None = None
    denoiser: str | None = None
    memory: str = "auto"
    seed: int = 0
    repeats: int = 3

    def __post_init__(self) -> None:
        for name in ("particles", "steps", "repeats", *(n for n in ("branch", "length", "vocab") if getattr(self, n))):
            count(name, getattr(self, name))
        for name, known in (("process", PROCESSES), ("guidance", GUIDANCE), ("denoiser", (None, *DENOISERS))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: unknown {getattr(self, name)!r}; choose {', '.join(map(str, known))}")
        if self.process == "protein":
            for name in ("length", "vocab", "denoiser"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: the backbone and its network decide it; leave it out with protein")
        if self.branch is not None and self.guidance != "svdd":
            raise ValueError(f"branch: only svdd proposes several children; leave it out with {self.guidance}")
        resolve_memory(self.memory)

    def make_guidance(self) -> Any:
        """Return the algorithm with its settings."""
        if self.guidance == "smc":
            return fg.SMC(alpha=self.alpha)
        if self.guidance == "svdd":
            return fg.SVDD(alpha=self.alpha, branch=self.branch or 8)
        return fg.BestOfN(alpha=self.alpha)


def measure(settings: SampleSettings) -> dict[str, Any]:
    """Run and return the figures.

    Raises:
        ValueError: a setting is wrong. BackendUnavailable: ``"protein"`` without its packages.
    """
    process, denoiser, reward, about = _protein(settings) if settings.process == "protein" else _bundled(settings)
    guidance = settings.make_guidance()

    def run() -> Any:
        return fg.sample(
            process, denoiser, reward, guidance, particles=settings.particles, seed=settings.seed, memory=settings.memory,
            progress=False,
        )  # fmt: skip

    results = []
    with _Peak() as peak:
        for _ in range(settings.repeats):
            results.append(run())
    result = sorted(results, key=lambda r: r.seconds)[len(results) // 2]
    network, rewarded = float(result.trace.seconds_denoiser.sum()), float(result.trace.seconds_reward.sum())
    total = result.seconds
    return {
        "process": settings.process,
        "denoiser": about,
        "reward": reward.name,
        "guidance": settings.guidance,
        "alpha": settings.alpha,
        "particles": settings.particles,
        "branch": guidance.branch,
        "length": process.length,
        "vocab": process.vocab,
        "steps": process.steps,
        "seed": settings.seed,
        "repeats": settings.repeats,
        "seconds": total,
        "seconds_all": sorted(r.seconds for r in results),
        "samples_per_s": settings.particles / total,
        "children_per_s": settings.particles * guidance.branch * process.steps / total,
        "denoiser_rows": result.denoiser_rows,
        "denoiser_rows_per_s": result.denoiser_rows / total,
        "reward_rows": result.reward_rows,
        "reward_rows_per_s": result.reward_rows / total,
        "share_denoiser": network / total,
        "share_reward": rewarded / total,
        "share_sampler": 1.0 - (network + rewarded) / total,
        "peak_memory_bytes": peak.most,
        "memory_before_bytes": peak.before,
    }


def text(figures: dict[str, Any]) -> str:
    """Return the figures as lines of text."""
    f = figures
    memory = "not known"
    if f["peak_memory_bytes"] is not None:
        grown = (f["peak_memory_bytes"] - f["memory_before_bytes"]) / 2**20
        memory = f"{f['peak_memory_bytes'] / 2**20:,.0f} MiB, {grown:,.0f} of them since before the run"
    spread = f"{duration(f['seconds_all'][0])} to {duration(f['seconds_all'][-1])} over {f['repeats']} runs"
    shares = {name: f"{f[f'share_{name}']:.0%}" for name in ("denoiser", "reward", "sampler")}
    lines = {
        "what": f"{f['process']}, L {f['length']}, V {f['vocab']}, {f['steps']} steps; {f['guidance']}, alpha {f['alpha']:g}, "
        f"N {f['particles']:,}, M {f['branch']}; seed {f['seed']}",
        "denoiser": f["denoiser"],
        "reward": f["reward"],
        "time": f"{duration(f['seconds'])} ({spread})",
        "guided samples/s": f"{f['samples_per_s']:,.0f}",
        "children proposed/s": f"{f['children_per_s']:,.0f}",
        "denoiser rows/s": f"{f['denoiser_rows_per_s']:,.0f} ({f['denoiser_rows']:,} rows)",
        "reward rows/s": f"{f['reward_rows_per_s']:,.0f} ({f['reward_rows']:,} rows)",
        "share of time": ", ".join(f"{name} {share}" for name, share in shares.items()),
        "peak memory": memory,
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:>{width}}  {value}" for name, value in lines.items())


def _bundled(settings: SampleSettings) -> tuple[Any, Any, Reward, str]:
    autoregressive = settings.process == "autoregressive"
    length = settings.length or (settings.steps if autoregressive else 64)
    vocab, kind = settings.vocab or 20, settings.denoiser or DENOISERS[0]
    process: Any
    if autoregressive:
        process = fg.AutoregressiveProcess(length, vocab, pad=0, steps=settings.steps)
    else:
        process = (fg.UniformProcess if settings.process == "uniform" else fg.MaskedProcess)(
            length, vocab, settings.steps
        )
    generator = torch.Generator().manual_seed(0)
    network, about = (_mlp if kind == "mlp" else _table)(length, vocab, generator)
    name = settings.reward or "pwm"
    if name == "pwm":
        scores = torch.randn(length, vocab, generator=generator)

        def pwm(x0: Tensor) -> Any:
            return scores.expand(len(x0), -1, -1).gather(2, x0[..., None]).sum((1, 2))

        # A row's sum does not depend on the batch.
        reward = wrap_reward(pwm, batch_invariant=True)
    elif ".py:" in name:
        reward = resolve(name)
    else:
        raise ValueError(f"reward: unknown {name!r}; choose pwm or give file.py:function")
    return process, network, reward, about


def _mlp(length: int, vocab: int, generator: torch.Generator) -> tuple[Any, str]:
    first = torch.randn((vocab + 1) * length, HIDDEN, generator=generator) / length**0.5
    second = torch.randn(HIDDEN, length * vocab, generator=generator) / HIDDEN**0.5
    places = torch.arange(length) * (vocab + 1)

    def mlp(x: Tensor, t: Tensor) -> Tensor:
        hidden = torch.nn.functional.embedding_bag(x + places, first, mode="sum").relu_()
        return torch.mm(hidden, second).view(len(x), length, vocab)

    return wrap_denoiser(mlp), f"bundled, not pretrained: {HIDDEN} hidden units, weights from a fixed seed"


def _table(length: int, vocab: int, generator: torch.Generator) -> tuple[Any, str]:
    table = torch.randn(length, vocab, generator=generator)

    def logits(x: Tensor, t: Tensor) -> Tensor:
        return table.expand(len(x), -1, -1)

    return wrap_denoiser(logits, batch_invariant=True), "bundled, not pretrained: a table of logits by position"


def _protein(settings: SampleSettings) -> tuple[Any, Any, Reward, str]:
    from fastguide.models import ProteinMPNN
    from fastguide.protein import Design, read_structure

    model = ProteinMPNN(Design.create(read_structure(str(files("fastguide") / "data" / "1UBI.pdb"))))
    process = fg.MaskedProcess(model.length, model.vocab, settings.steps)
    return process, model, resolve(settings.reward or "plddt"), "ProteinMPNN, real weights, backbone 1UBI"


class _Peak:
    """The most bytes resident while it is open: of this run where the system can forget earlier peaks, else of the process."""

    most: int | None = None
    before: int | None = None

    def __enter__(self) -> _Peak:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self.before = _resident("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        self.most = _resident("VmHWM")


def _resident(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)
