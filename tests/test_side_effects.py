"""Importing or calling leaves threads, random states, dtypes, grad mode, warnings and signals as they were."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import fastguide as fg
from tests.oracle.masked import TabularMasked


def surroundings():
    return {
        "threads": torch.get_num_threads(),
        "interop threads": torch.get_num_interop_threads(),
        "torch random state": torch.get_rng_state().tolist(),
        "numpy random state": [str(part) for part in np.random.get_state()],
        "python random state": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warning filters": list(warnings.filters),
        "signal handlers": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
    }


ORACLE = TabularMasked()
TOKENS = torch.full((4, 3), 3)
LOGITS = torch.zeros(4, 3, 3)
CALLS = {
    "select": lambda: fg.ops.select(torch.zeros(9)),
    "reweight_select": lambda: fg.ops.reweight_select(torch.zeros(9), torch.ones(9), torch.zeros(9), 1.0, 1.0),
    "move": lambda: fg.ops.move(torch.zeros(4, 2), torch.tensor([0, 0, 1, 3], dtype=torch.int32)),
    "masked_step": lambda: fg.ops.masked_step(TOKENS, LOGITS, reveal_probability=0.5),
    "masked_mode": lambda: fg.ops.masked_mode(TOKENS, LOGITS),
    "unique": lambda: fg.ops.unique(TOKENS),
    "sample": lambda: fg.sample(
        ORACLE.process, ORACLE.denoiser, ORACLE.reward, fg.SMC(), particles=8, progress=False
    ).best(2),
    "Steering": lambda: fg.Steering(fg.SMC(), particles=4).begin(torch.zeros(4)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_call_leaves_no_trace(name, backend):
    with fg.backend(backend):
        CALLS[name]()
        before = surroundings()
        CALLS[name]()
    assert surroundings() == before


def test_an_error_leaves_no_trace():
    before = surroundings()
    with pytest.raises(fg.RewardError):
        fg.sample(ORACLE.process, ORACLE.denoiser, lambda x0: 1 / 0, fg.SMC(), particles=8, progress=False)
    assert surroundings() == before


def test_gradients_stay_possible_after_a_run():
    CALLS["sample"]()
    x = torch.ones(2, requires_grad=True)
    (x * x).sum().backward()
    assert torch.equal(x.grad, 2 * torch.ones(2))


@pytest.mark.parametrize("order", ["import torch, fastguide", "import fastguide, torch"])
def test_import_leaves_no_trace(order):
    code = (
        "import sys, warnings, signal, random; import torch as t; n, f = t.get_num_threads(), list(warnings.filters); "
        "h, r, s = signal.getsignal(signal.SIGINT), random.getstate(), t.get_rng_state();"
        f"{order}; assert t.get_num_threads() == n and list(warnings.filters) == f; "
        "assert signal.getsignal(signal.SIGINT) == h and random.getstate() == r and t.equal(t.get_rng_state(), s)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
