"""How far guidance and values are from exact: the tables of `docs/methods.md`, printed and kept in ``bench/results``.

python -m tests.oracle.table [section …]        # all sections where none is named
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import fastguide as fg
from fastguide.bench.output import save
from fastguide.guidance import Guidance
from fastguide.guidance.protocol import proposal_of
from tests.guidance.test_exact import CONSISTENT
from tests.guidance.test_gaussian import run as run_mixture
from tests.guidance.test_tds import distance_when_guided_by_values
from tests.guidance.test_tds import normalizer_ratio as guided_ratio
from tests.mutants import MUTANTS, NoRatio
from tests.oracle.autoregressive import HiddenMarkov
from tests.oracle.checks import mean_distance, normalizer_ratio, pooled_distance, sampled, slope, weighted
from tests.oracle.enumerable import Enumerable, noise_floor, total_variation
from tests.oracle.gaussian import CONTINUOUS, Mixture, moments
from tests.oracle.masked import TabularMasked
from tests.oracle.soft import Table
from tests.oracle.steer import wrong
from tests.oracle.uniform import TabularDiscrete
from tests.oracle.values import Tabled

RESULTS = Path(__file__).parents[2] / "bench" / "results"
SIZES = (100, 1_000, 10_000, 100_000)
GROUPS = (400, 200, 100, 20)
GUIDED = {
    "TDS decoded": fg.TDS(gradient="decoded", ess_threshold=0.9),
    "TDS exact": fg.TDS(gradient="exact", ess_threshold=0.9),
    "TDS clipped": fg.TDS(clip=0.5, ess_threshold=0.9),
}
BIASED = {
    **{f"SVDD {m}": fg.SVDD(alpha=1.0, branch=m) for m in (2, 8, 32)},
    "Beam 2": fg.Beam(branch=2),
    "Beam 2, of every parent": fg.Beam(branch=2, best_of="parent"),
    "ClassifierGuidance decoded": fg.ClassifierGuidance(gradient="decoded"),
    "ClassifierGuidance exact": fg.ClassifierGuidance(gradient="exact"),
}
CHILDREN = (1, 2, 4, 8, 16, 32, 64)
SWEEPS = (1, 2, 4, 8, 16, 32)
STEPS = (1, 2, 4, 8, 16, 32, 64)
SEARCHES = {
    f"{policy} {growth:g}": fg.TreeSearch(policy=policy, growth=growth)
    for policy, growth in [*(("boltzmann", g) for g in (0.5, 0.8, 0.9, 0.95, 1.0)), ("uct", 0.8)]
}
TREES = (8, 8, 8, 8)
DRAWS = 100_000
MIXTURE_STEPS, MIXTURE_PARTICLES = 300, (1_000, 20)
MIXTURE = {
    "SMC": fg.SMC(),
    "SMC always": fg.SMC(ess_threshold=1.0),
    "SMC, steps 0 to 99": fg.SMC(value_steps=range(100)),
    "SMC, steps 100 to 199": fg.SMC(value_steps=range(100, 200)),
    "SMC, steps 200 to 299": fg.SMC(value_steps=range(200, 300)),
    "SMC, every tenth step": fg.SMC(value_steps=range(0, 300, 10)),
    "SMC, no step": fg.SMC(value_steps=()),
    "SMC max_difference": fg.SMC(potential="max_difference"),
    "SMC max, steps 100, 150 and 200": fg.SMC(potential="max", value_steps=(100, 150, 200), ess_threshold=0.9),
    "SMC adaptive": fg.SMC(target_ess=0.8, ess_threshold=0.8),
    "NestedSMC 3": fg.NestedSMC(branch=3),
    "TDS through": fg.TDS(clip=1.0),
    "TDS decoded": fg.TDS(gradient="decoded", clip=1.0),
    "PCN, then SMC": fg.PCN(fg.SMC(), moves=4),
    "BestOfN": fg.BestOfN(),
    "Refine, 40 rounds of Metropolis": fg.Refine(fg.BestOfN(), rounds=40, level=0.7, accept="metropolis"),
    "SVDD 8": fg.SVDD(branch=8),
    "ClassifierGuidance": fg.ClassifierGuidance(clip=1.0),
}

Row = dict[str, Any]
"""Column to what stands in it: numbers as they are, rounded where they are shown."""


def convergence(oracle: Enumerable, guidance: Guidance, **options: Any) -> Row:
    """Distances at four sizes; of consistent guidance also slope, ratio to exact draws at the last, and a hundred runs."""
    pairs = [mean_distance(oracle, guidance, n, g, **options) for n, g in zip(SIZES, GROUPS, strict=True)]
    distances = [d for d, _ in pairs]
    row: Row = {f"N = {n:,}": d for n, d in zip(SIZES, distances, strict=True)}
    if not guidance.consistent:
        return {**row, "slope": None, "× exact draws": None, "100 runs": None}
    ratio = pairs[-1][0] / pairs[-1][1]
    pooled = pooled_distance(oracle, guidance, **options)
    return {**row, "slope": slope(SIZES, distances), "× exact draws": ratio, "100 runs": pooled}


def guidance_rows() -> Iterator[Row]:
    """Every guidance on the masked process, values by the reward of the most probable completion."""
    for name, guidance in (CONSISTENT | GUIDED | BIASED).items():
        yield {"guidance": name, **convergence(TabularMasked(), guidance)}


def value_rows() -> Iterator[Row]:
    """Every value under three guidances; "log Ẑ" is its standard deviation at N = 1,000."""
    oracle = TabularMasked()
    denoiser = fg.models.wrap(oracle.denoiser, batch_invariant=True)
    regression, soft_q = fg.Regression(), fg.SoftQ()
    for learned in (regression, soft_q):
        learned.fit(oracle.process, denoiser, Table(oracle), alpha=1.0, particles=4096, epochs=40)
    values = {
        'PosteriorMean("argmax")': fg.PosteriorMean(),
        'PosteriorMean("soft")': fg.PosteriorMean("soft"),
        'PosteriorMean("sample", 1)': fg.PosteriorMean("sample"),
        'PosteriorMean("sample", 8)': fg.PosteriorMean("sample", draws=8),
        "MonteCarlo(8)": fg.MonteCarlo(rollouts=8),
        "Regression": regression,
        "SoftQ": soft_q,
        "exact": Tabled(oracle, oracle.soft_values(1.0)),
    }
    guidances = {
        "SMC": fg.SMC(ess_threshold=0.9),
        "NestedSMC 2": fg.NestedSMC(branch=2, ess_threshold=0.9),
        "SVDD 8": fg.SVDD(alpha=1.0, branch=8),
    }
    for label, guidance in guidances.items():
        for name, value in values.items():
            spread = float(sampled(oracle, guidance, 1_000, 200, value=value).log_normalizer.groups.std())
            row = convergence(oracle, guidance, value=value)
            yield {"guidance": label, "value": name, **row, "log Ẑ": None if math.isnan(spread) else spread}


def process_rows() -> Iterator[Row]:
    """The processes without a mask."""
    kinds = {"uniform": TabularDiscrete(), "autoregressive": HiddenMarkov()}
    names = ("SMC systematic", "NestedSMC 2", "BestOfN", "SVDD 8", "Beam 2")
    for process, oracle in kinds.items():
        for name in names:
            yield {"process": process, "guidance": name, **convergence(oracle, (CONSISTENT | BIASED)[name])}


def children_rows() -> Iterator[Row]:
    """Error against the number of children M: SVDD's exact law, and what Beam leaves to the highest reward."""
    oracle = TabularMasked()
    target, _ = oracle.target(1.0)
    rewards, best = oracle.rewards.flatten(), float(oracle.rewards.max())
    exact, seen = oracle.soft_values(1.0), oracle.posterior_means()
    for m in CHILDREN:
        greedy = oracle.svdd_law(seen, m, 0.0)
        beam = weighted(oracle, fg.Beam(branch=m), 100, 200) if m > 1 else None
        yield {
            "M": m,
            "SVDD, exact values": total_variation(oracle.svdd_law(exact, m, 1.0), target),
            "SVDD, most probable": total_variation(oracle.svdd_law(seen, m, 1.0), target),
            "Beam of every parent, below the best": best - float(greedy @ rewards),
            "Beam of 100, below the best": (
                None if beam is None else best - float(oracle.reward(beam.samples.flatten(0, 1)).mean())
            ),
        }


def sweep_rows() -> Iterator[Row]:
    """ParticleGibbs with 4 particles, the last of so many sweeps, 20,000 chains; beside it that of as many exact draws."""
    oracle = TabularMasked()
    target, _ = oracle.target(1.0)
    for sweeps in SWEEPS:
        guidance = fg.ParticleGibbs(sweeps=sweeps, burn_in=sweeps - 1, ess_threshold=1.0)
        result = sampled(oracle, guidance, 4, 20_000, value=fg.PosteriorMean())
        found = total_variation(oracle.frequencies(result.samples, result.log_weights), target)
        yield {"sweeps": sweeps, "total variation": found, "exact draws": noise_floor(target, 20_000)}


def rollout_rows() -> Iterator[Row]:
    """Distances of 8 trees to the target after so many rollouts, by policy and growth; growth 1 is independent sampling."""
    oracle = TabularMasked()
    target, _ = oracle.target(1.0)
    for name, search in SEARCHES.items():
        distances = []
        for rollouts, trees in zip(SIZES, TREES, strict=True):
            guidance = replace(search, rollouts=rollouts, batch=max(16, rollouts // 32))
            # Systematic draws, so many that they are the law of the leaves.
            samples = sampled(oracle, guidance, DRAWS, trees, value=None).samples.view(trees, DRAWS, -1)
            even = torch.zeros(DRAWS, dtype=torch.float64)
            found = [total_variation(oracle.frequencies(own, even), target) for own in samples]
            distances.append(sum(found) / trees)
        row: Row = {f"{n:,} rollouts": d for n, d in zip(SIZES, distances, strict=True)}
        yield {"policy and growth": name, **row, "slope": slope(SIZES, distances)}


def mixture_rows() -> Iterator[Row]:
    """A mixture of two normals under a quadratic reward, 300 steps, 20 groups of 1,000; log Ẑ has its standard error."""
    process = fg.GaussianProcess(1, steps=MIXTURE_STEPS, schedule="cosine")
    exact = {"closed form": CONTINUOUS, "as run, on a grid": Mixture(process).target(points=801)}
    for name, known in exact.items():
        yield {"guidance": name, "log Z": known.log_z, "±": None, "mean": known.mean, "variance": known.variance}
    for name, guidance in MIXTURE.items():
        found = moments(result := run_mixture(process, guidance, *MIXTURE_PARTICLES))
        estimated = guidance.estimates_normalizer
        yield {
            "guidance": name,
            "log Z": found.log_z if estimated else None,
            "±": result.log_normalizer.standard_error if estimated else None,
            "mean": found.mean,
            "variance": found.variance,
        }


def step_rows() -> Iterator[Row]:
    """ClassifierGuidance by exact soft values in so many steps, 40,000 samples; beside it that of as many exact draws."""
    for steps in STEPS:
        found, floor = distance_when_guided_by_values(steps=steps)
        yield {"steps": steps, "total variation": found, "exact draws": floor}


def fault_rows() -> Iterator[Row]:
    """Mean of Ẑ in units of Z over 20,000 groups of 4, values at random: each fault of `tests/mutants.py`, and without it."""
    oracle = TabularMasked()
    for mutant in (*MUTANTS, NoRatio()):
        kind = type(mutant)
        settings = {name: value for name, value in vars(mutant).items() if value != getattr(kind(), name)}
        (faulty, error), (right, its_error) = (
            guided_ratio(oracle, guidance) if proposal_of(guidance) else normalizer_ratio(oracle, guidance, wrong(0.5))
            for guidance in (mutant, kind.__bases__[0](**vars(mutant)))
        )
        name = ", ".join([kind.__name__, *(f"{name}={value!r}" for name, value in settings.items())])
        yield {"fault": name, "mean Ẑ / Z": faulty, "±": error, "without it": right, "its ±": its_error}


SECTIONS: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {
    "guidance": ("Guidance", guidance_rows),
    "values": ("Values", value_rows),
    "processes": ("Processes without a mask", process_rows),
    "children": ("Children M", children_rows),
    "sweeps": ("Sweeps of particle Gibbs", sweep_rows),
    "rollouts": ("Rollouts of tree search", rollout_rows),
    "mixture": ("Real states", mixture_rows),
    "steps": ("Steps of classifier guidance", step_rows),
    "faults": ("Faults", fault_rows),
}


def line(row: Row) -> str:
    """Return a row of Markdown; slopes have three decimals, ratios two."""
    digits = {"slope": 3, "× exact draws": 2}
    cells = [
        "" if value is None else f"{value:.{digits.get(name, 4)}f}" if isinstance(value, float) else str(value)
        for name, value in row.items()
    ]
    return f"| {' | '.join(cells)} |"


def header(row: Row) -> str:
    return f"| {' | '.join(row)} |\n|{'---|' * len(row)}"


def markdown(tables: dict[str, list[Row]]) -> str:
    """Return all sections."""
    parts = [
        "# Distance to the exact law",
        "`python -m tests.oracle.table`: see `docs/methods.md`, *How far from exact*.",
    ]
    for name, (title, rows) in SECTIONS.items():
        if name in tables:
            found = tables[name]
            parts += [f"## {title}", rows.__doc__ or "", "\n".join([header(found[0]), *map(line, found)])]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=", ".join(SECTIONS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of oracle.json and oracle.md")
    asked = parser.parse_args()
    if unknown := set(asked.sections) - set(SECTIONS):
        parser.error(f"unknown section {', '.join(unknown)}; choose {', '.join(SECTIONS)}")
    kept = asked.out / "oracle.json"
    tables: dict[str, list[Row]] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name in asked.sections or SECTIONS:
        title, make = SECTIONS[name]
        found: list[Row] = []
        print(f"\n{title}\n")
        for row in make():
            if not found:
                print(header(row))
            found.append(row)
            print(line(row), flush=True)
        tables[name] = found
        save(asked.out, "oracle", tables, markdown(tables))


if __name__ == "__main__":
    main()
