"""A made-up run and design, shaped as real ones are, from a seeded generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastguide.report.data import Entry, Positions, ProteinData, ReportData, RunData, Score
from fastguide.report.diversity import median_distance

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


def run_data(*, particles: int = 32, steps: int = 40, groups: int = 1, branch: int = 1, seed: int = 0) -> RunData:
    """A run whose weights grow uneven and which resamples below half of its particles."""
    rng = np.random.default_rng(seed)
    n = particles
    ess = np.empty((steps, groups))
    resampled = np.zeros((steps, groups), bool)
    unique = np.empty((steps, groups), np.int64)
    parents = np.tile(np.arange(n), (steps, 1))
    for g in range(groups):
        current, roots = float(n), np.arange(n)
        for t in range(steps):
            current *= rng.uniform(0.78, 0.99)
            ess[t, g] = current
            chosen = np.arange(n)
            if branch == 1 and current < n / 2:
                resampled[t, g], current = True, float(n)
                chosen = np.sort(rng.choice(n, n, p=rng.dirichlet(np.full(n, 0.8))))
            roots = roots[chosen]
            unique[t, g] = len(set(roots.tolist()))
            if g == 0:
                parents[t] = chosen
    rise = 84 + 10 * (1 - np.exp(-np.arange(1, steps + 1) / 9))[:, None]
    mean = rise + rng.normal(0, 0.25, (steps, groups))
    rewards = rng.normal(94, 1.4, groups * n)
    weights = rng.dirichlet(np.full(groups * n, 3.0))
    rows = rng.integers(n // 2, n * branch, steps)
    return RunData(
        guidance="SMC(alpha=0.5, ess_threshold=0.5, rule='systematic')",
        particles=n,
        groups=groups,
        branch=branch,
        alpha=0.5,
        ess=ess,
        resampled=resampled,
        unique_ancestors=unique,
        values_mean=mean,
        values_max=mean + rng.uniform(1.5, 3.0, (steps, groups)),
        denoiser_rows=rows,
        reward_rows=rows // 3,
        recomputed_rows=np.zeros(steps, np.int64),
        seconds_denoiser=rng.uniform(0.2, 0.3, steps),
        seconds_reward=rng.uniform(0.02, 0.06, steps),
        seconds_other=rng.uniform(0.002, 0.006, steps),
        parents=parents,
        roots=np.arange(groups * n),
        rewards=rewards,
        weights=weights,
        distinct=groups * n,
        log_normalizer="172.4 ± 0.31",
        seconds=13.2,
        ess_threshold=0.5 if branch == 1 else None,
    )


def unguided_data(run: RunData) -> RunData:
    return replace(run, guidance="BestOfN(alpha=0)", weights=np.full_like(run.weights, 1 / len(run.weights)))


def score(
    name: str, role: str, better: str | None, guided: float, unguided: float, native: float, **more: object
) -> Score:
    rng = np.random.default_rng(len(name))
    spread = max(abs(guided - unguided) / 3, 0.02)
    return Score(
        name=name,
        role=role,  # type: ignore[arg-type]
        better=better,  # type: ignore[arg-type]
        guided=rng.normal(guided, spread, 32),
        weights=rng.dirichlet(np.full(32, 3.0)),
        unguided=rng.normal(unguided, spread * 1.8, 32),
        native=native,
        **more,  # type: ignore[arg-type]
    )


def protein_data(seed: int = 0) -> ProteinData:
    rng = np.random.default_rng(seed)
    native = np.array([LETTERS.index(a) for a in UBIQUITIN])

    def mutate(rate: float, n: int) -> np.ndarray:
        favourite = rng.choice(20, len(native), p=rng.dirichlet(np.full(20, 1.5)))
        out = np.tile(native, (n, 1))
        changed = rng.random(out.shape) < rate
        out[changed] = np.tile(favourite, (n, 1))[changed]
        noise = rng.random(out.shape) < 0.12
        out[noise] = rng.integers(0, 20, int(noise.sum()))
        out[:, :4] = native[:4]
        return out

    guided, unguided = mutate(0.6, 32), mutate(0.45, 32)
    positions = Positions(
        labels=tuple(f"A{i + 1}" for i in range(76)),
        chains=("A",) * 76,
        native=UBIQUITIN,
        kept=tuple(i < 4 for i in range(76)),
    )
    entries = []
    for rank in range(1, 9):
        tokens = guided[rank - 1]
        values = {
            "reward": 97.0 - rank * 0.31,
            "pLDDT V6": 90.1 - rank * 0.2,
            "soluble NLL": 1.31 + rank * 0.011,
            "NLL": 1.12 + 0.01 * rank,
            "confidence": 0.33,
            "recovery": float((tokens == native)[4:].mean()),
            "log-weight": 3.1 - rank,
            "mutations": float((tokens != native).sum()),
        }
        entries.append(Entry(rank, f"1UBI_{rank:04d}", "".join(LETTERS[a] for a in tokens), values))
    return ProteinData(
        positions=positions,
        guided=guided,
        weights=np.full(32, 1 / 32),
        unguided=unguided,
        entries=entries,
        median_distance=median_distance(guided[:8]),
        unguided_distance=median_distance(unguided),
        native=Entry(
            0, "native", UBIQUITIN, {"reward": 91.3, "pLDDT V6": 92.2, "soluble NLL": 1.6, "NLL": 1.5, "mutations": 0.0}
        ),
    )


def report_data(**more: object) -> ReportData:
    run = run_data()
    settings = {
        "pdb": "1UBI.pdb",
        "guidance": "smc",
        "reward": "plddt",
        "alpha": 0.5,
        "particles": 32,
        "seed": 0,
        "fix": "A1-4",
    }
    return ReportData(
        title="Guided design on 1UBI",
        subtitle="72 designed, 4 fixed, 0 tied, 0 biased, 0 omitted, 0 without backbone",
        run=run,
        unguided=unguided_data(run),
        scores=[
            score("pLDDT V7", "reward", "higher", 94.2, 85.3, 91.3),
            score("pLDDT V6", "held-out", "higher", 88.4, 84.6, 92.2),
            score("soluble NLL", "held-out", "lower", 1.42, 1.31, 1.6, unit="nats/residue"),
            score("NLL", "model", "lower", 1.21, 1.1, 1.5, unit="nats/residue"),
            score("instability index", "information", "lower", 31.0, 35.0, 29.0),
        ],
        warnings=[
            "pLDDT V7 rose from 85.3 ± 0.8 to 94.2 ± 0.3, but soluble NLL, which the run did not see, rose from 1.31 ± "
            "0.02 to 1.42 ± 0.02. The designs may exploit weaknesses of the reward: use a larger alpha, or add the "
            "held-out score to the reward."
        ],
        protein=protein_data(),
        entries=protein_data().entries,
        settings=settings,
        manifest={"fastguide": "0.1.0", "torch": "2.13.0", "python": "3.11.7", "weights": "9f86d081884c7d65…"},
        command="fastguide design --pdb 1UBI.pdb --seed 0 --out designs",
        **more,  # type: ignore[arg-type]
    )
