"""Every benchmark runs, and its competitors do the same job: no figure of a wrong result."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastguide import ops
from fastguide.bench import (
    evaluate,
    gaussian_step,
    guided_step,
    masked_step,
    move,
    registry,
    reweight_select,
    run,
    select,
    unique,
)
from fastguide.bench.case import OURS, Bar, Case, Sizes, WrongResultError

SMALL = [
    *(select.one_group(rule, n) for rule in ("systematic", "multinomial") for n in (4, 64, 1000)),
    select.one_group("systematic", 300, torch.float64),
    select.many_groups(500),
    reweight_select.resampling(2000),
    move.half_dead(64),
    masked_step.proposing(200, 16, 5, 0.5, 0.3),
    masked_step.proposing(3, 4, 600, 1.0, 0.5),
    masked_step.branching(30, 16, 5, 0.5, 0.3),
    gaussian_step.proposing(50, 16),
    evaluate.potts(150, 7, 4),
    evaluate.mlp(130, (6, 5, 1)),
    unique.rows(200, torch.uint8),
    unique.rows(200, torch.int64),
    *(guided_step.masked_case(name, 500, inside) for name in guided_step.MASKED for inside in (True, False)),
    *(guided_step.gaussian_case(500, inside) for inside in (True, False)),
]


@pytest.mark.parametrize("case", SMALL, ids=[f"{case.op}-{case.job}-{case.n}" for case in SMALL])
def test_every_competitor_gives_a_right_result(case: Case) -> None:
    for name, call in case.competitors.items():
        case.check(name, call())


@pytest.mark.parametrize(
    ("case", "name", "wrong"),
    [
        (select.one_group("systematic", 1000), OURS, (torch.zeros(1000, dtype=torch.int32),)),
        (select.one_group("systematic", 1000), OURS, (torch.full((1000,), 1000),)),
        (select.many_groups(5000), OURS, torch.randint(8, (5000, 1), generator=torch.Generator().manual_seed(0))),
        (reweight_select.resampling(5000), OURS, torch.zeros(5000)),
        (move.half_dead(64), OURS, torch.zeros(64, move.FLOATS)),
        (masked_step.proposing(200, 16, 5, 0.5, 0.3), OURS, torch.zeros(200, 16, dtype=torch.int64)),
        (masked_step.branching(30, 16, 5, 0.5, 0.3), OURS, torch.full((30, 1, 16), 5)),
        (gaussian_step.proposing(50, 16), OURS, torch.zeros(50, 16)),
        (evaluate.potts(150, 7, 4), OURS, torch.zeros(150)),
        (evaluate.mlp(130, (6, 5, 1)), OURS, torch.zeros(130)),
        (unique.rows(200, torch.uint8), OURS, ops.unique(torch.zeros(200, 76, dtype=torch.uint8))),
    ],
    ids=lambda x: f"{x.op}-{x.job}" if isinstance(x, Case) else "",
)
def test_a_wrong_result_is_told(case: Case, name: str, wrong: Any) -> None:
    with pytest.raises(WrongResultError):
        case.check(name, wrong)


def test_a_masked_draw_from_another_law_is_told() -> None:
    case = masked_step.proposing(2000, 16, 5, 0.5, 0.3)
    right = case.competitors[OURS]()
    drawn = right != masked_step.proposing(2000, 16, 5, 0.5, 0.0).competitors[OURS]()
    uniform = torch.randint(5, right.shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(WrongResultError, match="mean log-probability"):
        case.check(OURS, torch.where(drawn, uniform, right))


def test_a_wrong_peer_is_left_out_and_named() -> None:
    case = Case("op", "job", 4, {OURS: lambda: 1, "peer": lambda: 2}, 0, _is_one)
    outcome = run.measure(case, rounds=3)
    assert list(outcome.times.seconds) == [OURS]
    assert outcome.case.absent == {"peer": "wrong result: not 1"}


def test_a_wrong_result_of_ours_stops_the_run() -> None:
    with pytest.raises(WrongResultError, match="op, job, N = 4: fastguide: not 1"):
        run.measure(Case("op", "job", 4, {OURS: lambda: 2}, 0, _is_one))


def _is_one(name: str, got: Any) -> None:
    if got != 1:
        raise WrongResultError("not 1")


def test_bars_take_the_best_of_each_side() -> None:
    case = Case(
        "op", "job", 4, {OURS: _slowly(3), "ours, out": _slowly(1), "a": _slowly(40), "b": _slowly(20)}, 100, _any
    )
    found = _check(Bar("job", lambda: case, "peers", ("a", "b"), 8.0, (OURS, "ours, out")))
    assert (found["ours"], found["peer"]) == ("ours, out", "b")
    assert found["met"]
    assert not _check(Bar("job", lambda: case, "peers", ("a", "b"), 99.0))["met"]
    most = Bar("job", lambda: case, "b", ("b",), 0.5, at_most=True)
    assert _check(most)["ratio"] < 0.5


def test_a_bar_without_a_peer_says_so() -> None:
    case = Case("op", "job", 4, {OURS: _slowly(1)}, 0, _any, absent={"peer": "not installed"})
    found = _check(Bar("job", lambda: case, "peer", ("peer",), 2.0))
    assert found["met"] is None
    assert found["why"] == "peer: not installed"


def test_bars_of_one_case_share_its_measurement() -> None:
    built = []

    def build() -> Case:
        built.append(1)
        return Case("op", "job", 4, {OURS: _slowly(1), "a": _slowly(20), "b": _slowly(10)}, 0, _any)

    first, second = run.check_bars([Bar("job", build, n, (n,), 2.0) for n in ("a", "b")], 1e9, rounds=3)
    assert len(built) == 1
    assert first["seconds"] == second["seconds"]
    assert (first["peer"], second["peer"]) == ("a", "b")


def _check(bar: Bar) -> dict[str, Any]:
    return run.check_bars([bar], 1e9, rounds=3)[0]


def _slowly(times: int) -> Any:
    return lambda: sum(range(times * 20_000))


def _any(name: str, got: Any) -> None:
    pass


def test_every_kernel_has_cases_and_figures_to_reach() -> None:
    described = [bar.what for bar in registry.bars()]
    for name in registry.KERNELS:
        assert any(what.startswith((name, name.replace("_", " "))) for what in described)
        assert next(registry.cases(name, Sizes((64,)))).n == 64


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="no benchmark 'selct'; did you mean select"):
        registry.choose(["selct"])
