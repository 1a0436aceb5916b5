"""The table of docs/gpu.md: what each kernel must move, what it moves, and how long that takes at the least.

``python -m bench.gpu.floors`` prints it. Bytes are per item (a particle, or a row), in float32; d is the share of particles
that die, u that of distinct rows. "Least" counts inputs read once and outputs written once; "moved" what this design reads
and writes of the device's memory where nothing stays in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12}
SIZES = (2**20, 2**24)
DEAD, DISTINCT = 0.4, 0.25


@dataclass(frozen=True)
class Floor:
    """One operation at one shape.

    Attributes:
        launches: up to one block of 4,096 items, up to 2^22 items, beyond.
        least, moved: bytes an item.
        most: the largest N whose data fit 80 GB, where that is below 2^24.
    """

    what: str
    launches: str
    least: float
    moved: float
    limit: str
    most: int = 2**24


def in_place(row: int) -> tuple[float, float]:
    """Return least and moved bytes a particle of a move in place: a dead row is read and written."""
    return 4 + 2 * DEAD * row, 8 + 2 * DEAD * row


FLOORS = (
    Floor("select, sorted (CUDA)", "1 / 2 / 3", 8, 12, "instructions, then bandwidth"),
    Floor("select, slots (CUDA)", "1 / 3 / 5", 8, 12.3 + 8 * DEAD, "instructions, then bandwidth"),
    Floor("reweight_select (CUDA)", "1 / 3 / 5", 24, 36.3 + 8 * DEAD, "bandwidth"),
    Floor("move, 76-byte rows (CUDA)", "2", 4 + 2 * 76, 8 + 2 * 76, "bandwidth"),
    Floor("move, 1 KiB rows (CUDA)", "2", 4 + 2 * 1024, 8 + 2 * 1024, "bandwidth", 2**24),
    Floor("move in place, 1 KiB rows (CUDA)", "2", *in_place(1024), "bandwidth"),
    Floor(
        "unique, 76-byte rows (CUDA)", "4 and a memset", 76 + 8 + 16 * DISTINCT, 76 * (2 - DISTINCT) + 24 + 3 * 32 + 52,
        "scattered accesses of the table",
    ),
    Floor("masked_step, L 64, V 22, 1/16 of half revealed (Triton)", "2", 16 * 64 + 2 * 88, 16 * 64 + 2 * 96, "bandwidth"),
    Floor("masked_mode, the same", "2", 16 * 64 + 32 * 88, 16 * 64 + 32 * 96, "bandwidth", 2**24),
    Floor("gaussian_step, 64 numbers (Triton)", "1", 12 * 64 + 4, 12 * 64 + 4, "arithmetic of the normals, then bandwidth"),
    Floor("gaussian_step, 3x32x32 (Triton)", "1", 12 * 3072 + 4, 12 * 3072 + 4, "the same", 2**20),
    Floor("evaluate, linear, 64 numbers (Triton)", "1", 4 * 64 + 4, 4 * 64 + 4, "float64 sums, then bandwidth"),
    Floor("evaluate, PWM, 76 tokens of one byte (Triton)", "1", 76 + 4, 76 + 4, "look-ups in the cache"),
)  # fmt: skip


def table() -> str:
    """Return the Markdown table."""
    names = [f"{gpu}, 2^{n.bit_length() - 1}" for n in SIZES for gpu in BANDWIDTH]
    lines = [
        f"| kernel | launches | bytes, least | bytes, moved | {' | '.join(names)} | limited by |",
        f"|---|---|--:|--:|{'--:|' * len(names)}---|",
    ]
    for floor in FLOORS:
        times = [
            _time(n * floor.least / bandwidth) if n <= floor.most else "—"
            for n in SIZES
            for bandwidth in BANDWIDTH.values()
        ]
        lines.append(
            f"| {floor.what} | {floor.launches} | {floor.least:.0f} | {floor.moved:.0f} | {' | '.join(times)} | {floor.limit} |"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"


if __name__ == "__main__":
    print(table())
