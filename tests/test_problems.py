"""Which rows belong to which problem, told by the host or read from the device."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from fastguide.memory import Memory
from fastguide.models.protocol import wrap
from fastguide.problems import Problems, part_of


def problems_of(conditions):
    """Problems of groups with these conditions; equal numbers are one object."""
    one = [object() for _ in range(10)]
    return Problems(
        wrap(lambda x, t: x), [one[c] for c in conditions], lambda x0: x0.sum(1), None, None, Memory(), 4,
        torch.device("cpu"),
    )  # fmt: skip


@pytest.mark.parametrize("conditions", [[0], [0, 0, 0], [0, 1], [0, 1, 0], [0, 0, 1, 2, 2, 1]])
@pytest.mark.parametrize("each", [1, 5])
def test_spans_say_what_the_numbers_say(conditions, each):
    problems = problems_of(conditions)
    problem = torch.tensor(problems.of_group).repeat_interleave(each)
    spans = problems.spans(len(problem))
    assert [p for p, rows in spans for _ in range(rows)] == problem.tolist()
    assert all(a[0] != b[0] for a, b in pairwise(spans))
    told, read = problems.members(problem, spans), problems.members(problem)
    assert all(torch.equal(a, b) for a, b in zip(told, read, strict=True))
    start = 0
    for part in torch.split(problem, 4):
        own = part_of(spans, start, len(part))
        assert [p for p, rows in own for _ in range(rows)] == part.tolist()
        told, read = problems.members(part, own), problems.members(part)
        assert all(torch.equal(a, b) for a, b in zip(told, read, strict=True))
        start += len(part)


def test_of_rows_that_nobody_told_of_no_part_is_known():
    assert part_of(None, 0, 3) is None
