"""A whole guided step compiles as one graph, and gives what it gives uncompiled."""

from __future__ import annotations

import torch

import fastguide as fg
from fastguide import ops

N, L, V = 40, 6, 5
READS = fg.values.compiled.PositionWeightMatrix(torch.randn(L, V, generator=torch.Generator().manual_seed(1)))


def step(x, logits, noise, log_weights, values, t):
    """Draw, evaluate, weigh, select and move: tokens, and real values that travel with them."""
    tokens = ops.masked_step(x, logits, reveal_probability=0.5, seed=3, step=4)[:, 0]
    moved = ops.gaussian_step(noise, noise, x_coefficient=0.9, prediction_coefficient=0.1, sigma=t, seed=3, step=4)[
        :, 0
    ]
    out = ops.reweight_select(
        log_weights, ops.evaluate(READS, tokens % V), values, 2.0, 1.5, ess_threshold=0.9, seed=3, step=4
    )
    tokens, moved = ops.move([tokens, moved], out.ancestors)
    return tokens, moved, out.log_weights, out.values, out.log_z_increment


def test_a_whole_step_is_one_graph():
    generator = torch.Generator().manual_seed(0)
    arguments = (
        torch.full((N, L), V), torch.randn(N, L, V, generator=generator), torch.randn(N, 3, generator=generator),
        torch.zeros(N), torch.zeros(N),
    )  # fmt: skip
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for found, expected in zip(compiled(*arguments, 0.3), step(*arguments, 0.3), strict=True):
        assert torch.equal(found, expected)
