"""What a user may choose for a design, on the command line or in Python: one dataclass, validated on construction."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fastguide.guidance import SMC, SVDD, Beam, BestOfN, NestedSMC
from fastguide.guidance.protocol import Guidance
from fastguide.memory import resolve_memory
from fastguide.progress import Status

GUIDANCE = ("smc", "nested-smc", "svdd", "beam", "best-of-n")
BRANCHING = ("nested-smc", "svdd", "beam")
"""Those that propose several children of a particle."""
FASTA_STYLES = ("fastguide", "proteinmpnn", "ligandmpnn")
MOST = 10**6
"""Most of anything that is counted: beyond it, memory or patience ends in a way that names no setting."""
MOST_THREADS = 1024
"""OpenMP crashes, rather than fails, where the system cannot start a thread."""
SMALLEST = 1e-6
"""Least alpha and temperature that are not 0: what is divided by them stays within the 1e9 of the kernels."""


@dataclass(frozen=True)
class DesignSettings:
    """Settings of `fastguide.design.run`; the command line has an option of the same name for each.

    Args:
        pdb: a PDB or mmCIF file; None takes the bundled 1UBI.
        chain: names of the chains to design (``"A,B"``), None for all; the others are context.
        guidance: ``"smc"``, ``"nested-smc"``, ``"svdd"``, ``"beam"`` or ``"best-of-n"``.
        reward: text as after ``--reward`` (``"plddt"``, ``"plddt-0.1*gravy"``, ``"my.py:score"``), or a callable from tokens
            ``[n, R_out]`` int64 to ``[n]``.
        alpha: temperature of the tilt ``exp(reward / alpha)``, in units of the reward; beam, which keeps the best, reads none.
        particles: samples that the run holds.
        branch: children a particle proposes; smc and best-of-n read none.
        steps: reverse steps.
        temperature: of the amino-acid draws.
        designs: distinct designs to return, at most.
        seed: of all draws.
        fix: residues to keep. redesign: the only residues to design. tie, omit, bias: see `fastguide.protein.Design.create`.
        weights: name of packaged ProteinMPNN weights, or a file.
        orders: random decoding orders that likelihoods are averaged over.
        fasta_style: header keys and chain separator of ``designs.fasta``.
        memory: bytes for predictions that are kept, as text.
        threads: of torch and the kernels for this run; None leaves them.
        out: folder for the results; None takes ``fastguide_<name>`` in the working directory, numbered if it exists.
        overwrite: replace the results of another run in ``out``.
        progress: show progress, or a callable that takes a `fastguide.progress.Status`.
    """

    pdb: str | Path | None = None
    chain: str | Sequence[str] | None = None
    guidance: str = "svdd"
    reward: str | Callable[..., Any] = "plddt"
    alpha: float = 0.3
    particles: int = 32
    branch: int = 8
    steps: int = 40
    temperature: float = 0.5
    designs: int = 8
    seed: int = 0
    fix: str | Sequence[str] | None = None
    redesign: str | Sequence[str] | None = None
    tie: str | Sequence[str | Sequence[str]] | None = None
    omit: str | Mapping[str, str] | Sequence[Any] | None = None
    bias: str | Mapping[str, Any] | Sequence[Any] | None = None
    weights: str | Path = "v_48_020"
    orders: int = 4
    fasta_style: str = "fastguide"
    memory: str | int = "auto"
    threads: int | None = None
    out: str | Path | None = None
    overwrite: bool = False
    progress: bool | Callable[[Status], object] = True

    def __post_init__(self) -> None:
        for name in ("particles", "branch", "steps", "designs", "orders"):
            _check_count(name, getattr(self, name))
        if self.threads is not None:
            _check_count("threads", self.threads, most=MOST_THREADS)
        for name in ("chain", "fix", "redesign", "tie"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Sequence):
                raise TypeError(f"{name}: expected a text or a list of texts, got {type(value).__name__}")
        for name in ("pdb", "out"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (str, Path)):
                raise TypeError(f"{name}: expected a path, got {type(value).__name__}")
            if value == "":
                raise ValueError(f"{name}: an empty path; name a {'file' if name == 'pdb' else 'folder'}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected a whole number of 0 <= seed < 2**63, got {self.seed!r}")
        if not _is_number(self.temperature) or self.temperature < 0:
            raise ValueError(f"temperature: expected a finite number of at least 0, got {self.temperature!r}")
        for name in ("temperature", "alpha"):
            value = getattr(self, name)
            if _is_number(value) and 0 < value < SMALLEST:
                raise ValueError(f"{name}: {value!r} is too small; give at least {SMALLEST:g}")
        if self.guidance not in GUIDANCE:
            raise ValueError(f"guidance: unknown {self.guidance!r}; choose one of {', '.join(GUIDANCE)}")
        if self.fasta_style not in FASTA_STYLES:
            raise ValueError(f"fasta_style: unknown {self.fasta_style!r}; choose one of {', '.join(FASTA_STYLES)}")
        if not callable(self.reward) and not (isinstance(self.reward, str) and self.reward.strip()):
            raise ValueError(f"reward: expected a text such as 'plddt' or a callable, got {self.reward!r}")
        if not isinstance(self.progress, bool) and not callable(self.progress):
            raise TypeError(f"progress: expected True, False or a callable, got {type(self.progress).__name__}")
        resolve_memory(self.memory)
        self.make_guidance()

    def make_guidance(self) -> Guidance:
        """Return the algorithm with its settings."""
        if self.guidance == "smc":
            return SMC(alpha=self.alpha)
        if self.guidance == "nested-smc":
            return NestedSMC(alpha=self.alpha, branch=self.branch)
        if self.guidance == "svdd":
            return SVDD(alpha=self.alpha, branch=self.branch)
        if self.guidance == "beam":
            return Beam(branch=self.branch)
        return BestOfN(alpha=self.alpha)

    @property
    def unread(self) -> tuple[str, ...]:
        """The settings that the guidance has no use for."""
        branch = () if self.guidance in BRANCHING else ("branch",)
        return (*branch, "alpha") if self.guidance == "beam" else branch

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, those at None left out."""
        found = {}
        for f in fields(self):
            value = "1UBI, bundled" if f.name == "pdb" and self.pdb is None else getattr(self, f.name)
            if value is None or f.name in self.unread or f.name in ("overwrite", "progress"):
                continue
            found[f.name] = value if isinstance(value, (str, int, float, list, tuple, dict)) else _name(value)
        return found

    def command(self, out: Path | None = None) -> str | None:
        """Return the command line that gives the same designs, None where a setting has no text form."""
        words = ["fastguide", "design"]
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in ("overwrite", "progress", "out") or (value == f.default and f.name != "seed"):
                continue
            if not isinstance(value, (str, int, float, Path)):
                return None
            words += [f"--{f.name.replace('_', '-')}", str(value)]
        if out is not None:
            words += ["--out", str(out)]
        return shlex.join(words)


def _check_count(name: str, value: object, most: int = MOST) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
    if value > most:
        raise ValueError(f"{name}: expected at most {most:,}, got {value:,}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _name(value: object) -> str:
    return str(value) if isinstance(value, Path) else str(getattr(value, "__name__", type(value).__name__))
