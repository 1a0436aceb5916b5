"""Every configuration of every kernel gives the same bits; what was measured is used, and nothing else is.

Interpreted, tiles differ and warps do not exist; on a GPU these tests compare both.
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastguide import ops
from fastguide.deferred import Deferred, deferred
from fastguide.values.compiled import TritonFunction
from tests.specs import SPECS, assert_same_bits, masked_states
from tests.triton.agreement import NoHostReads, filled_with_nan, flat, on_device
from tests.triton.device import DEVICE

pytest.importorskip("triton")

from fastguide.triton import tune, tuning
from fastguide.triton.tuning import CONFIGS, Config

PLACE = torch.device("cuda", torch.cuda.current_device()) if DEVICE.type == "cuda" else DEVICE


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(0))


def calls() -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
    """Yield operations and arguments that between them launch every kernel, the cheaper first, with several programs each."""
    for spec in SPECS:
        if spec.name in ("evaluate", "gaussian_log_ratio", "gaussian_step"):
            for arguments in spec.samples():
                yield spec.call, arguments
    yield ops.evaluate, {"value": TritonFunction(tune._sum_of_state), "states": normal(300, 5)}
    many, x, long = normal(300, 8), normal(2, 600) * 4, normal(4300, seed=1)
    for rows, rule in ((many, "systematic"), (x, "gumbel_topk"), (long, "residual"), (long, "gumbel_topk")):
        yield ops.select, {"log_weights": rows, "rule": rule, "order": "slots", "seed": 3}
    yield ops.select, {"log_weights": long, "k": 2500}
    for rows in (many, x, long):
        beta = {"beta": 2.0, "previous_beta": 1.0}
        yield ops.reweight_select, {"log_weights": rows, "values": rows, "previous_values": -rows, **beta}
    yield (
        ops.move,
        {"tensors": [normal(3000, 3), integers(9, 3000, 5).to(torch.uint8)], "ancestors": integers(3000, 3000)},
    )
    yield ops.unique, {"rows": integers(3, 40, 76).to(torch.uint8)[integers(40, 300)]}
    yield ops.unique, {"rows": integers(2, 2500, 8).to(torch.uint8)}
    tokens, logits = masked_states(16, 10, 22)
    yield ops.masked_step, {"tokens": tokens, "logits": logits, "reveal_count": 3, "order": "confidence", "branch": 2}
    tokens, logits = masked_states(20, 70, 22)
    yield ops.masked_step, {"tokens": tokens, "logits": logits, "reveal_probability": 0.2, "top_p": 0.9}
    children = ops.masked_step(tokens, logits, reveal_probability=0.2)
    yield ops.masked_log_ratio, {"tokens": tokens, "children": children, "logits": logits, "shift": logits * 0.5}
    tokens, logits = masked_states(2, 3, 2600, masked=1.0)
    yield ops.masked_step, {"tokens": tokens, "logits": logits, "reveal_count": 2, "order": "confidence"}
    children = ops.masked_step(tokens, logits, reveal_probability=0.5)
    yield ops.masked_log_ratio, {"tokens": tokens, "children": children, "logits": logits, "shift": logits * 0.5}


@functools.cache
def by_default() -> list[tuple[Callable[..., Any], dict[str, Any], list[Tensor | None], set[str]]]:
    """Return the calls with their results by default, and the kernels that they launch."""
    found = []
    for call, arguments in calls():
        given = {**on_device(arguments), "backend": "triton"}
        with tuning.fixed(PLACE, {}) as choices:
            expected = flat(call(**given))
        found.append((call, given, expected, set(choices.asked)))
    return found


def test_the_calls_launch_every_kernel() -> None:
    assert set().union(*(asked for *_, asked in by_default())) == set(CONFIGS)


def assert_same_bits_in_every_configuration(kernel: str, calls: int | None = None) -> None:
    launching = [found[:3] for found in by_default() if kernel in found[3]]
    for call, given, expected in launching[:calls]:
        for other in CONFIGS[kernel]:
            with tuning.fixed(PLACE, {kernel: other}), filled_with_nan():
                got = flat(call(**given))
            assert_same_bits(expected, got, f"{call.__name__}, {kernel} with {other}")


@pytest.mark.parametrize("kernel", sorted(CONFIGS))
def test_every_configuration_gives_the_same_bits(kernel: str) -> None:
    assert_same_bits_in_every_configuration(kernel, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", sorted(CONFIGS))
def test_every_configuration_gives_the_same_bits_in_every_call(kernel: str) -> None:
    assert_same_bits_in_every_configuration(kernel)


def test_every_kernel_that_is_launched_has_configurations_of_powers_of_two() -> None:
    launched = set()
    for path in Path(tuning.__file__).parent.glob("*.py"):
        text = path.read_text()
        kernels = set(re.findall(r"@triton\.jit.*\ndef (\w+)\(", text))
        launched |= {f"{path.stem}.{name}" for name in re.findall(r"\b(\w+)\[(?=grid|\()", text) if name in kernels}
    assert launched == set(CONFIGS)
    for configs in CONFIGS.values():
        assert len(set(configs)) == len(configs)
        assert all(x > 0 and x & (x - 1) == 0 for c in configs for x in c)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where choices for the device of the tests are kept, an empty place."""
    monkeypatch.setenv("FASTGUIDE_CACHE", str(tmp_path))
    tuning.forget()
    yield tuning.cache_path(tuning.device_name(PLACE))
    tuning.forget()


def test_what_is_kept_is_used_at_its_size_and_elsewhere_the_default(cache: Path) -> None:
    name, kernel = tuning.device_name(PLACE), "move.check"
    default, other = tuning.config(kernel, 1000, PLACE), CONFIGS[kernel][2]
    assert (
        tuning.write_choices(name, {(kernel, 10): other, ("move.move_rows", 4): CONFIGS["move.move_rows"][1]}) == cache
    )
    assert tuning.config(kernel, 1000, PLACE) == default  # read once a process
    tuning.forget()
    assert [tuning.config(kernel, n, PLACE) for n in (512, 513, 1024, 1025)] == [default, other, other, default]
    assert tuning.config("move.move_rows", 16, PLACE) == CONFIGS["move.move_rows"][1]


def test_the_file_is_read_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(tuning, "read_choices", lambda name: read.append(name) or {})
    for n in range(5):
        tuning.config("move.check", n, PLACE)
    assert read == [tuning.device_name(PLACE)]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: "{",
        lambda kept: "[]",
        lambda kept: json.dumps({**kept, "device": "another"}),
        lambda kept: json.dumps({**kept, "triton": "0.1"}),
        lambda kept: json.dumps({**kept, "kernels": "of before"}),
        lambda kept: json.dumps({name: x for name, x in kept.items() if name != "choices"}),
        lambda kept: json.dumps({**kept, "choices": {"move.check": {"10": [3, 4]}}}),
        lambda kept: json.dumps({**kept, "choices": {"move.check": {"10": [1024, 4, 3]}}}),
        lambda kept: json.dumps({**kept, "choices": {"move.check": {"ten": [2048, 4]}}}),
        lambda kept: json.dumps({**kept, "choices": {"move.other": {"10": [2048, 4]}}}),
    ],
)
def test_a_file_not_to_be_relied_on_is_ignored_with_a_warning(cache: Path, spoil: Callable[[Any], str]) -> None:
    kernel = "move.check"
    default = tuning.config(kernel, 1000, PLACE)
    tuning.write_choices(tuning.device_name(PLACE), {(kernel, 10): CONFIGS[kernel][1]})
    cache.write_text(spoil(json.loads(cache.read_text())))
    tuning.forget()
    with pytest.warns(RuntimeWarning, match="ignored .*, kernels run with their defaults"):
        assert tuning.config(kernel, 1000, PLACE) == default
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuning.config(kernel, 1000, PLACE) == default  # told once


def test_a_file_is_replaced_as_a_whole_or_not_at_all(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, choices = tuning.device_name(PLACE), {("move.check", 10): CONFIGS["move.check"][1]}
    tuning.write_choices(name, choices)
    with monkeypatch.context() as broken:
        broken.setattr(tuning.json, "dump", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            tuning.write_choices(name, {})
    assert tuning.read_choices(name) == choices
    assert list(cache.parent.iterdir()) == [cache]


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastguide.config import cache_folder

    monkeypatch.delenv("FASTGUIDE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert cache_folder() == Path("/shared/fastguide")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "fastguide"
    monkeypatch.setenv("FASTGUIDE_CACHE", "/own")
    assert cache_folder() == Path("/own")


def test_measuring_tries_every_configuration_and_keeps_what_is_faster(cache: Path) -> None:
    """A clock to which one configuration of each of two kernels seems faster, the second not by enough."""
    cheap = {"move.check": (CONFIGS["move.check"][2], 0.5), "unique.mark": (CONFIGS["unique.mark"][1], 0.99)}
    tried: set[tuple[str, Config]] = set()

    def clock(call: Callable[[], Any]) -> float:
        running = tuning._choices[PLACE]
        assert isinstance(running, tuning.Fixed)
        tried.update(running.configs.items())
        cost = 1.0
        for kernel, (config, factor) in cheap.items():
            cost *= factor if running.configs.get(kernel) == config else 1.0
        return cost

    said: list[str] = []
    few = [w for w in tune.WORKLOADS if "move" in w.name or "unique" in w.name]
    assert tune.tune(PLACE, sizes=[3], workloads=few, clock=clock, say=said.append) == cache
    assert said[0] == f"move, 76 bytes, 2^3: move.check {tuple(cheap['move.check'][0])}"
    assert said[2] == "unique, 76 bytes, 2^3: defaults"
    for kernel in ("move.check", "move.move_rows", "unique.claim", "unique.hash_rows", "unique.mark", "unique.name"):
        assert {config for name, config in tried if name == kernel} == set(CONFIGS[kernel][1:])
    assert tuning.read_choices(tuning.device_name(PLACE)) == {("move.check", n): cheap["move.check"][0] for n in (2, 3)}


def test_the_workloads_launch_all_kernels_and_read_nothing_as_a_graph_demands() -> None:
    asked = set()
    for workload in tune.WORKLOADS:
        call = workload.make(1 if "32,000" in workload.name else 8, PLACE)
        with tuning.fixed(PLACE, {}) as choices, deferred(Deferred()), NoHostReads():
            assert all(isinstance(x, Tensor) for x in call())
        asked |= set(choices.asked)
    beyond_a_block = {"reweight_select.follow", "reweight_select.reweigh_blocks"}
    assert {kernel for kernel in set(CONFIGS) - asked if not kernel.startswith("_blocks.")} == beyond_a_block


def test_a_configuration_of_other_bits_is_not_taken(cache: Path) -> None:
    def make(n: int, device: torch.device) -> Callable[[], list[Tensor]]:
        return lambda: [torch.tensor(float(tuning.config("move.check", n, device).tile))]

    def clock(call: Callable[[], Any]) -> float:
        return 1.0 / (1 + len(tuning._choices[PLACE].configs))  # type: ignore[attr-defined]

    with pytest.warns(RuntimeWarning, match="move.check: tile and warps .* give other bits"):
        tune.tune(PLACE, sizes=[4], workloads=[tune.Workload("one", 9, make)], clock=clock, say=lambda line: None)
    assert tuning.read_choices(tuning.device_name(PLACE)) == {}


@pytest.mark.skipif(DEVICE.type != "cuda", reason="no GPU")
def test_the_kernels_are_timed_from_a_graph(cache: Path) -> None:
    tune.tune(PLACE, sizes=[10, 14], say=lambda line: None)
    assert cache.exists()
