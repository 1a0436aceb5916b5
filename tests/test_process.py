"""Kernels in a process that gets signals, forks, and holds other users of OpenMP."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str, timeout: float = 60.0) -> str:
    """Run `code` in an interpreter of its own and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Each takes far more than two seconds on any processor, in one call. None is of gaussian_step or gaussian_log_ratio: they
# read or write every number once, and two seconds of that take more memory than a test may ask for.
LONG_CALLS = {
    "evaluate": "ops.evaluate(POTTS, torch.zeros(1 << 17, 1024, dtype=torch.uint8))",
    "select of many rows": "ops.select(torch.zeros(1, 1, 1 << 16).expand(1 << 9, 8, 1 << 16), rule='gumbel_topk', k=1 << 8)",
    "masked_log_ratio": (
        "ops.masked_log_ratio(torch.full((1, 1), 1 << 17).expand(1 << 19, 1), "
        "torch.zeros(1 << 19, 1, 1, dtype=torch.int64), LOGITS, LOGITS)"
    ),
    "masked_mode": "ops.masked_mode(torch.full((1, 1), 1 << 17).expand(1 << 19, 1), LOGITS)",
    "masked_step of few tokens": (
        "ops.masked_step(torch.full((1, 1), 400).expand(1, 1 << 20), LOGITS_400, reveal_probability=0.9, branch=1 << 6)"
    ),
    "masked_step of many tokens": (
        "ops.masked_step(torch.full((1, 1), 1 << 17).expand(1 << 19, 1), LOGITS, reveal_probability=1.0)"
    ),
}
INTERRUPTED = """
import os, signal, threading, time, torch
from fastguide import ops
from fastguide.values import compiled
POTTS = compiled.Potts(torch.zeros(1024, 2), torch.zeros(1024, 1024, 2, 2))
LOGITS = torch.zeros(1, 1, 1 << 17).expand(1 << 19, 1, 1 << 17)
LOGITS_400 = torch.zeros(1, 1, 400).expand(1, 1 << 20, 400)
{handler}
sent = []
def send():
    time.sleep(0.3)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send).start()
try:
    {call}
    print("not interrupted")
except {error}:
    print(time.monotonic() - sent[0] if sent else "not sent")
assert ops.select(torch.zeros(1 << 17)).ancestors.tolist() == list(range(1 << 17))
"""


@pytest.mark.parametrize("name", LONG_CALLS)
def test_ctrl_c_ends_a_long_call(name):
    # Python leaves SIGINT ignored where it was started with it ignored, as behind a shell's "&".
    handler = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    printed = run(INTERRUPTED.format(call=LONG_CALLS[name], handler=handler, error="KeyboardInterrupt"))
    assert float(printed) < 2.0


def test_what_a_signal_handler_raises_comes_through():
    handler = "def stop(*_): raise TimeoutError\nsignal.signal(signal.SIGINT, stop)"
    call = LONG_CALLS["masked_step of few tokens"]
    assert float(run(INTERRUPTED.format(call=call, handler=handler, error="TimeoutError"))) < 2.0


def test_a_signal_handler_that_returns_ends_nothing():
    code = """
import signal, torch
from fastguide import ops
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(int(ops.select(torch.zeros(1 << 17)).ancestors[5])))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
tokens, logits = torch.full((1, 1 << 16), 400), torch.zeros(1, 1, 400).expand(1, 1 << 16, 400)
children = ops.masked_step(tokens, logits, reveal_probability=1.0, branch=16)
signal.setitimer(signal.ITIMER_REAL, 0)
assert set(seen) == {5}
again = ops.masked_step(tokens, logits, reveal_probability=1.0, branch=16)
print(torch.equal(children, again))
"""
    assert run(code) == "True\n"


# The child makes no large tensor: torch's own parallel loops would hang there.
FORKED = """
import os, warnings, numpy, torch
from fastguide import ops
warnings.simplefilter("ignore", DeprecationWarning) # of forks beside threads
log_weights, rows = torch.zeros(1 << 17), torch.arange(1 << 17)
logits = torch.zeros(1, 1, 400).expand(1, 4096, 400)
tokens = torch.full((1, 4096), 400)
def call():
    moved = ops.move(rows, ops.select(log_weights).ancestors)
    kinds = ops.unique(rows).counts
    children = ops.masked_step(tokens, logits, reveal_probability=1.0, branch=4)
    return [x.numpy().tobytes() for x in (moved, kinds, children)]
"""
OS_FORK = """
child = os.fork()
if child == 0:
    numpy.save({path!r}, numpy.frombuffer(b"".join(call()), dtype=numpy.uint8))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(numpy.load({path!r}).tobytes() == b"".join(call()))
"""
POOL = """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(all(result == call() for result in pool.starmap(call, [()] * 4)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("how", [OS_FORK, POOL], ids=["os.fork", "multiprocessing"])
@pytest.mark.parametrize("before", ["call()", ""], ids=["after a parallel call", "before any"])
def test_a_forked_child_gets_the_same_results(tmp_path, how, before):
    assert run(FORKED + before + how.replace("{path!r}", repr(str(tmp_path / "child.npy")))) == "True\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("order", ["torch, fastguide", "fastguide, torch"])
def test_one_openmp_runtime_serves_torch_and_the_kernels(order):
    code = f"""
import {order}
torch.ones(1 << 20).sum()
fastguide.ops.select(torch.zeros(1 << 17))
files = {{line.split()[-1] for line in open("/proc/self/maps") if "omp" in line.split("/")[-1]}}
print(*sorted(files))
"""
    loaded = run(code).split()
    assert len([file for file in loaded if "gomp" in file or "libomp" in file or "iomp" in file]) == 1, loaded
