"""Results as data frames, as ArviZ data, and on disk."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastguide import guidance as guidances
from fastguide.ancestry import Ancestry
from fastguide.trace import Trace, TraceStep

if TYPE_CHECKING:
    from fastguide.result import Result

FORMAT = 1
"""Of the files that `save` writes."""


def manifest(result: Result) -> dict[str, Any]:
    """Return what a methods section needs: settings, seeds, sizes, versions; only numbers, texts, lists and dicts."""
    import fastguide

    return {
        "guidance": settings(result.guidance),
        "groups": result.groups,
        "particles": result.particles,
        "steps": len(result.trace),
        "seeds": result.seeds.tolist(),
        "shape": list(result.samples.shape[1:]),
        "log_normalizer": float(result.log_normalizer),
        "log_normalizer_standard_error": result.log_normalizer.standard_error,
        "denoiser_rows": result.denoiser_rows,
        "reward_rows": result.reward_rows,
        "seconds": result.seconds,
        "versions": {
            "fastguide": fastguide.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "machine": f"{platform.system()} {platform.machine()}",
        **result.provenance,
    }


def to_dataframe(result: Result) -> Any:
    """Return one row a sample: group, particle, log_weight, weight, reward, and the sample (decoded text, or its values).

    ``weight`` sums to 1 over the groups of one problem.
    """
    pandas = needed("pandas", "to_dataframe")
    n = result.particles
    columns: dict[str, Any] = {
        "group": torch.arange(result.groups).repeat_interleave(n).tolist(),
        "particle": torch.arange(n).repeat(result.groups).tolist(),
        "log_weight": result.log_weights.tolist(),
        "weight": _weights(result).tolist(),
        "reward": result.rewards.tolist(),
    }
    samples: list[Any] = []
    for group in range(result.groups):
        rows = result.samples[group * n : (group + 1) * n]
        length = None if result.lengths is None else int(result.lengths[group])
        seen = result.decode[group](rows if length is None else rows[:, :length])
        samples += seen.tolist() if isinstance(seen, Tensor) else list(seen)
    return pandas.DataFrame({**columns, "sample": samples})


def trace_to_dataframe(trace: Trace) -> Any:
    """Return one row a step and group."""
    pandas = needed("pandas", "to_dataframe")
    rows = []
    for step in trace:
        fields = step._asdict()
        for group in range(len(step.ess)):
            rows.append(
                {"group": group} | {k: v[group].item() if isinstance(v, Tensor) else v for k, v in fields.items()}
            )
    return pandas.DataFrame(rows)


def to_arviz(result: Result, seed: int = 0) -> Any:
    """Return ``arviz.InferenceData``: a chain a group, N equally weighted draws each, and their rewards as sample stats."""
    arviz = needed("arviz", "to_arviz")
    drawn = torch.stack([result.draw_indices(result.particles, group=g, seed=seed) for g in range(result.groups)])
    return arviz.from_dict(
        posterior={"x0": result.samples[drawn].cpu().numpy()},
        sample_stats={"reward": result.rewards[drawn].cpu().numpy()},
        attrs={"created_by": "fastguide", "log_normalizer": float(result.log_normalizer)},
    )


def save(result: Result, path: str | Path) -> Path:
    """Write a result to one file that `load` reads without running any code from it."""
    trace = [step._asdict() for step in result.trace]
    ancestry = result.ancestry
    torch.save(
        {
            "format": FORMAT,
            "guidance": settings(result.guidance),
            "trace": trace,
            "children": torch.stack(ancestry.children),
            "branches": ancestry.branches,
            "log_normalizers": result.log_normalizer.groups,
            "reason": result.log_normalizer.reason,
            "manifest": manifest(result),
            **{name: getattr(result, name) for name in _STORED},
        },
        path,
    )
    return Path(path)


def load(path: str | Path) -> Result:
    """Read what `save` wrote. The copy has no model: it cannot `replay`, and it decodes to tokens or real values."""
    from fastguide.result import LogNormalizer, Result, as_they_are

    held = torch.load(path, weights_only=True)
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise ValueError(f"path: {path} is not a result of this version of fastguide (format {FORMAT})")
    groups, n = len(held["seeds"]), len(held["samples"]) // len(held["seeds"])
    ancestry = Ancestry(groups, n)
    for children, branch in zip(held["children"], held["branches"], strict=True):
        ancestry.append(children.to(torch.int64), branch)
    return Result(
        **{name: held[name] for name in _STORED},
        log_normalizer=LogNormalizer(held["log_normalizers"], held["reason"]),
        trace=Trace(TraceStep(**step) for step in held["trace"]),
        ancestry=ancestry,
        guidance=_rebuilt(held["guidance"]),
        decode=(as_they_are,) * groups,
        _replay=None,
    )


_STORED = ("samples", "log_weights", "rewards", "seeds", "lengths", "problems", "seconds", "alpha", "provenance")


def settings(guidance: Any) -> Any:
    """Return guidance as numbers, texts, lists and dicts; the name of its class stands under ``"class"``."""
    if dataclasses.is_dataclass(guidance) and not isinstance(guidance, type):
        fields = {f.name: settings(getattr(guidance, f.name)) for f in dataclasses.fields(guidance) if f.init}
        return {"class": type(guidance).__name__, **fields}
    if isinstance(guidance, dict):
        return {"class": "dict", "items": [[settings(k), settings(v)] for k, v in guidance.items()]}
    if isinstance(guidance, range):
        return {"class": "range", "bounds": [guidance.start, guidance.stop, guidance.step]}
    if isinstance(guidance, (tuple, list, set, frozenset)):
        return [settings(item) for item in guidance]
    return guidance if isinstance(guidance, (str, int, float, bool)) or guidance is None else repr(guidance)


def _rebuilt(held: Any) -> Any:
    if isinstance(held, list):
        return tuple(_rebuilt(item) for item in held)
    if not isinstance(held, dict):
        return held
    if held["class"] == "dict":
        return {_rebuilt(k): _rebuilt(v) for k, v in held["items"]}
    if held["class"] == "range":
        return range(*held["bounds"])
    kind = getattr(guidances, held["class"], None)
    if kind is None:
        raise ValueError(
            f"guidance: {held['class']} is no class of fastguide.guidance; pickle results of guidance of your own"
        )
    return kind(**{name: _rebuilt(value) for name, value in held.items() if name != "class"})


def _weights(result: Result) -> Tensor:
    """Return ``[G·N]`` normalised weights, over the groups of each problem."""
    weights = torch.empty_like(result.log_weights)
    problems = torch.tensor(result.problems, device=weights.device).repeat_interleave(result.particles)
    for problem in set(result.problems):
        members = problems == problem
        logs = result.log_weights[members]
        weights[members] = torch.softmax(logs, 0) if bool((logs > -torch.inf).any()) else torch.zeros_like(logs)
    return weights


def needed(package: str, what: str) -> Any:
    """Return the package that ``what`` needs, or say how to install it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{what}: needs {package}; pip install {package}") from error
