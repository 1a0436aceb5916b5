from __future__ import annotations

import ctypes
import gc
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastguide as fg
from fastguide.errors import BackendUnavailable, RewardError
from fastguide.ops import evaluate, reweight_select
from fastguide.values.compiled import Function, value
from tests.specs import build, builds

numba = pytest.importorskip("numba")
TOKENS = torch.randint(0, 20, (5_000, 9), generator=torch.Generator().manual_seed(0))
TABLE = np.arange(20.0)


@value
def alternation(x: Any) -> Any:
    changes = 0
    for i in range(1, len(x)):
        changes += x[i] != x[i - 1]
    return changes


@value
def looked_up(x: Any) -> Any:
    return TABLE[x[0]]


@value(batched=True, name="heads")
def first_of_each(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = x[i, 0]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float32, torch.float64])
def test_a_python_function_runs_compiled(dtype: torch.dtype) -> None:
    states = TOKENS.to(dtype)
    expected = (TOKENS[:, 1:] != TOKENS[:, :-1]).sum(1).float()
    for variant in builds():
        assert torch.equal(alternation(states), expected), variant
        assert torch.equal(evaluate(first_of_each, states), TOKENS[:, 0].float()), variant
    assert torch.equal(evaluate(alternation, states[:50], backend="torch"), expected[:50])
    assert torch.equal(evaluate(first_of_each, states[:50], backend="torch"), TOKENS[:50, 0].float())
    assert evaluate(alternation, states[:0], backend="torch").shape == (0,)


def test_it_is_a_reward_with_a_name() -> None:
    assert (alternation.name, first_of_each.name) == ("alternation", "heads")
    assert (alternation + 2 * first_of_each).name == "alternation+2*heads"
    assert alternation.batch_invariant
    process = fg.MaskedProcess(length=9, vocab=20, steps=5)
    result = fg.sample(
        process, lambda x, t: torch.zeros(len(x), 9, 20), looked_up, fg.BestOfN(alpha=1.0), particles=64, progress=False
    )
    assert torch.equal(result.rewards, result.samples[:, 0].to(result.rewards.dtype))


def raising(x: Any) -> Any:
    if x[0] == 19:
        raise ValueError("nineteen")
    return 1.0


def not_a_number(x: Any) -> Any:
    return np.nan if x[0] == 19 else 1.0


def out_of_bounds(x: Any) -> Any:
    return x[9] if x[0] == 19 else 1.0


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising, "value 'raising': raised ValueError: nineteen"),
        (not_a_number, "value 'not_a_number': returned nan"),
        (out_of_bounds, "value 'out_of_bounds': raised IndexError: index 9 is out of bounds for axis 0 with size 9"),
    ],
)
def test_a_failure_names_the_function_and_the_state(function: Any, message: str, backend: str) -> None:
    row = int((TOKENS[:, 0] == 19).nonzero()[0])
    compiled = value(function)
    for level, threads in (("portable", 1), ("portable", 2)):
        with (
            build(level, threads),
            pytest.raises(RewardError, match=rf"{message} for states\[{row}\] = \[19, ") as caught,
        ):
            evaluate(compiled, TOKENS[:2_000], backend=backend)
        assert torch.equal(caught.value.sample, TOKENS[row])
    zeros = torch.zeros(2_000)
    with pytest.raises(RewardError, match=rf"{message} for states\[{row}\]"):
        reweight_select(zeros, compiled, zeros, 1.0, 0.0, states=TOKENS[:2_000], backend=backend)


def test_a_mask_looked_up_beyond_a_table_is_an_error() -> None:
    states = TOKENS.clone()
    states[77, 0] = 20
    with pytest.raises(RewardError, match=r"value 'looked_up': raised IndexError: .* for states\[77\]"):
        looked_up(states)


def test_what_numba_cannot_compile_names_the_function() -> None:
    @value
    def writes(x: Any) -> Any:
        x[0] = 1
        return 1.0

    @value
    def returns_text(x: Any) -> Any:
        return "one"

    for function in (writes, returns_text):
        with pytest.raises(TypeError, match=f"value '{function.name}': numba cannot compile it for states of int64"):
            function(TOKENS)
    with pytest.raises(TypeError, match=r"states: expected one of .*, got torch.float16"):
        alternation(TOKENS.half())
    with pytest.raises(TypeError, match="value: expected a function, got int"):
        value(3)  # type: ignore[call-overload]


def test_without_numba_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(BackendUnavailable, match=r'value .raising.: .*pip install "fastguide\[numba\]"'):
        value(raising)(TOKENS)


def test_threads_stay_as_they_were() -> None:
    with build("portable", 1):
        value(lambda x: x[0])(TOKENS)
        assert torch.get_num_threads() == 1


SIGNATURE = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_float), ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_float)
)


def test_any_address_will_do() -> None:
    def total(states: Any, rows: int, columns: int, out: Any) -> None:
        for i in range(rows):
            out[i] = sum(states[i * columns + j] for j in range(columns))

    callback = SIGNATURE(total)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    types = numba.types
    pointer = types.CPointer(numba.float32)
    compiled = numba.cfunc(numba.void(pointer, numba.int64, numba.int64, pointer))(total_of_rows)
    x = torch.arange(12.0).view(3, 4)
    for given in (callback, address, compiled):
        function = Function(given)
        gc.collect()
        assert function(x).tolist() == [6, 22, 38]
        assert evaluate(function, x.view(3, 2, 2), backend="torch").tolist() == [6, 22, 38]
    with pytest.raises(TypeError, match=r"function: states: the function reads torch.float32, got torch.int64"):
        Function(callback)(x.long())


def total_of_rows(states: Any, rows: Any, columns: Any, out: Any) -> None:
    for i in range(rows):
        s = 0.0
        for j in range(columns):
            s += states[i * columns + j]
        out[i] = s


def test_what_an_address_leaves_unwritten_is_an_error() -> None:
    def half(states: Any, rows: int, columns: int, out: Any) -> None:
        for i in range(min(rows, 2)):
            out[i] = 1.0

    with pytest.raises(RewardError, match=r"value 'half': wrote no number for states\[2\] = \[4.0, 5.0\]"):
        Function(SIGNATURE(half), name="half")(torch.arange(12.0).view(6, 2))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Function("libm"), TypeError, "address: expected a whole number, a ctypes function or .* got str"),
        (lambda: Function(0), ValueError, "address: expected the address of a function, got 0"),
        (lambda: Function(1, torch.float16), TypeError, "dtype: expected one of .* got torch.float16"),
    ],
)
def test_bad_addresses_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_graph_does_not_call_a_function_that_is_gone() -> None:
    function = value(lambda x: x[0] + 1.0)
    function(TOKENS)
    number = function.arguments(torch.int64)[1][0]
    assert torch.equal(torch.ops.fastguide.evaluate(TOKENS, "function", [], [number], None), TOKENS[:, 0] + 1.0)
    del function
    gc.collect()
    with pytest.raises(RuntimeError, match="value: the function is gone"):
        torch.ops.fastguide.evaluate(TOKENS, "function", [], [number], None)


def test_it_compiles_into_one_graph_once_it_is_compiled_itself() -> None:
    alternation(TOKENS)

    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * evaluate(alternation, x)

    assert torch.equal(torch.compile(twice, backend="aot_eager", fullgraph=True)(TOKENS), twice(TOKENS))


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "compiled_value.py"))
    pairs = float(capsys.readouterr().out.split()[1])
    assert pairs > 9, "half of the positions, where a quarter of them pair by chance"
