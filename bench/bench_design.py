"""The defaults of `fastguide design` over three seeds: what the written designs score, beside the unguided run, and the cost.

python bench/bench_design.py
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from pathlib import Path

import torch

from fastguide.bench.timing import machine
from fastguide.design import DesignReport, DesignSettings, run

RESULTS = Path(__file__).parent / "results" / "design.json"
SEEDS = (0, 1, 2)


def measure(report: DesignReport) -> dict[str, float]:
    """Figures of one run; ``unguided`` ones are means over its samples."""
    rows, manifest = report.rows, report.manifest
    tokens = torch.stack([row.tokens for row in rows])
    return {
        "plddt_v7": statistics.mean(row.reward for row in rows),
        "plddt_v6": statistics.mean(row.scores["plddt_v6"] for row in rows),
        "soluble_nll": statistics.mean(row.scores["nll_soluble"] for row in rows),
        "unguided_plddt_v7": manifest["means"]["reward"]["unguided"],
        "unguided_plddt_v6": manifest["means"]["plddt_v6"]["unguided"],
        "unguided_soluble_nll": manifest["means"]["nll_soluble"]["unguided"],
        "all_guided_plddt_v7": manifest["means"]["reward"]["guided"],
        "all_guided_soluble_nll": manifest["means"]["nll_soluble"]["guided"],
        "duplicates": len(rows) - len(tokens.unique(dim=0)),
        "median_hamming": report.median_distance,
        "length": tokens.shape[1],
        "denoiser_rows": report.result.denoiser_rows,
        "reward_rows": report.result.reward_rows,
        "seconds": manifest["seconds"]["total"],
        "peak_memory_mb": manifest["peak_memory_bytes"] / 2**20,
    }


def main() -> None:
    settings = {
        f.name: getattr(DesignSettings(), f.name)
        for f in dataclasses.fields(DesignSettings)
        if f.name in ("guidance", "reward", "alpha", "particles", "branch", "steps", "temperature", "designs")
    }
    print(f"defaults: {settings}")
    runs = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(run(seed=seed, out=Path(folder) / "designs", progress=False))
        runs.append(figures)
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
    means = {name: statistics.mean(r[name] for r in runs) for name in runs[0]}
    print("mean:   " + ", ".join(f"{name} {value:.4g}" for name, value in means.items()))
    RESULTS.write_text(
        json.dumps({"machine": machine(), "settings": settings, "runs": runs, "mean": means}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
