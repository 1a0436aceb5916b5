"""The routes into an operation, and that eager calls take the cheapest of those measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

KEPT = json.loads((Path(__file__).parents[2] / "bench" / "results" / "dispatch.json").read_text())["rows"]


@pytest.mark.parametrize("operation", ["select", "masked_step"])
def test_eager_calls_take_the_cheapest_route(operation: str) -> None:
    seconds = {row["route"]: row["seconds"] for row in KEPT if row["operation"] == operation}
    routes = {"eager, as it is", "through the operator", "through custom_op", "compiled"}
    assert min(routes, key=seconds.__getitem__) == "eager, as it is"
    assert min(("launcher", "operator", "custom_op"), key=seconds.__getitem__) == "launcher"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_all_routes_lead_to_one_result() -> None:
    from bench import bench_dispatch

    for found in (bench_dispatch.of_select(), bench_dispatch.of_masked_step()):
        bench_dispatch.same_bits(found)
        found["kernel"]()
