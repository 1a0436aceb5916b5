"""Print the table of `docs/methods.md`: total variation to the exact target, at four numbers of particles.

python -m tests.oracle.table
"""

from __future__ import annotations

import fastguide as fg
from tests.guidance.test_exact import CONSISTENT
from tests.oracle.checks import mean_distance, slope
from tests.oracle.masked import TabularMasked

SIZES = (100, 1_000, 10_000, 100_000)
GROUPS = (400, 200, 50, 10)
BIASED = {
    **{f"SVDD {m}": fg.SVDD(alpha=1.0, branch=m) for m in (2, 8, 32)},
    "Beam 2": fg.Beam(branch=2),
    "Beam 2, of every parent": fg.Beam(branch=2, best_of="parent"),
}


def main() -> None:
    oracle = TabularMasked()
    print("| guidance | N = 10² | 10³ | 10⁴ | 10⁵ | slope | × exact draws |\n|---|---|---|---|---|---|---|")
    for name, guidance in (CONSISTENT | BIASED).items():
        pairs = [mean_distance(oracle, guidance, n, groups) for n, groups in zip(SIZES, GROUPS, strict=True)]
        distances = [d for d, _ in pairs]
        row = [f"{d:.4f}" for d in distances]
        if guidance.consistent:
            row += [f"{slope(SIZES, distances):.3f}", f"{pairs[-1][0] / pairs[-1][1]:.2f}"]
        else:
            row += ["biased", ""]
        print(f"| {name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
