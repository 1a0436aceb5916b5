"""Nothing is read by the host between the first step and the last where checks are deferred; the results are the same."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastguide as fg
from fastguide.deferred import deferred, deferring, require
from fastguide.rewards import constraints
from fastguide.run import Run

READS = {
    "_local_scalar_dense", "_unique", "_unique2", "bincount", "equal", "is_nonzero", "masked_select", "nonzero",
    "lift_fresh", "unique_consecutive", "unique_dim",
}  # fmt: skip
"""Operations that tell the host a number, whose result has a shape that depends on data, or that copy numbers from the host."""


class HostReads(TorchDispatchMode):
    """Refuses what makes the host wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket._qualified_op_name.split("::")[1]
        by_mask = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        counted = name == "repeat_interleave" and kwargs.get("output_size") is None
        assert name not in READS, f"{name} reads from the device"
        assert not by_mask, f"{name} by a mask has a shape that depends on data"
        assert not counted, f"{name} has a shape that depends on data"
        return func(*args, **kwargs)


@contextmanager
def no_host_reads(monkeypatch):
    """Refuse them, and conversions that no dispatcher sees."""

    def refused(self, *args, **options):
        raise AssertionError("a tensor is read by the host")

    with monkeypatch.context() as patch, HostReads():
        for name in ("cpu", "numpy", "tolist", "__array__"):
            patch.setattr(torch.Tensor, name, refused)
        yield


def guarded_run(run, monkeypatch):
    """Return what ``run()`` gives with checks deferred, every loop inside it under the guard."""
    sample = Run.sample

    def watched(self):
        self.result = lambda *args: args
        with no_host_reads(monkeypatch):
            args = sample(self)
        del self.result
        return self.result(*args)

    with monkeypatch.context() as patch, deferred():
        patch.setattr(Run, "sample", watched)
        return run()


@pytest.fixture
def guarded(monkeypatch):
    """``guarded(run)``: see `guarded_run`."""
    return lambda run: guarded_run(run, monkeypatch)


def same(found, expected):
    """Whether two results are the same bit for bit."""
    pairs = [(getattr(found, name), getattr(expected, name)) for name in ("samples", "log_weights", "rewards")]
    pairs += [(found.ancestry.parents, expected.ancestry.parents), (found.trace.ess, expected.trace.ess)]
    return all(torch.equal(a, b) for a, b in pairs)


MASKED = fg.MaskedProcess(length=6, vocab=4, steps=5)
GAUSSIAN = fg.GaussianProcess((3, 2), steps=5)


def logits(x, t):
    tokens = torch.arange(4, device=x.device)
    return 0.3 * (x.flip(1)[..., None] == tokens) + tokens.float()


class Ones(fg.rewards.Reward):
    """The share of ones, also of soft tokens."""

    batch_invariant = True

    def __call__(self, x0):
        return (x0 == 1).float().mean(1)

    def soft(self, x0):
        return x0[..., 1].mean(1)


def level(x0):
    return -(x0 - 1.0).square().sum((1, 2))


TOKENS = [
    fg.SMC(alpha=0.1),
    fg.SMC(alpha=0.1, potential="max_difference", rule="residual"),
    fg.SMC(alpha=0.1, target_ess=0.5),
    fg.SMC(alpha=0.1, value_steps=(2, 4)),
    fg.NestedSMC(alpha=0.1, branch=3),
    fg.SVDD(alpha=0.1, branch=3),
    fg.Beam(branch=3),
    fg.BestOfN(),
    fg.TDS(alpha=0.1, gradient="decoded"),
    fg.TDS(alpha=0.1, gradient="exact"),
    fg.Scheduled({0: fg.SMC(alpha=0.5), 3: fg.NestedSMC(alpha=0.1, branch=2)}),
]
MULTISTEP = fg.GaussianProcess((3, 2), steps=5, sampler="sde-dpmsolver++", schedule="cosine")
REAL = [fg.SMC(alpha=1.0), fg.SVDD(alpha=1.0, branch=3), fg.TDS(alpha=1.0), fg.ClassifierGuidance(alpha=1.0)]
CASES = [(MASKED, logits, Ones(), g) for g in TOKENS] + [(GAUSSIAN, lambda x, t: x, level, g) for g in REAL]
CASES = [(*case, None) for case in CASES]
CASES.append((MULTISTEP, lambda x, t: 0.5 * x, level, fg.SMC(alpha=1.0), None))
CASES += [
    (MASKED, logits, Ones(), fg.SMC(alpha=0.1), value)
    for value in (fg.PosteriorMean("sample", draws=2), fg.PosteriorMean("soft"), fg.MonteCarlo(2))
]


@pytest.mark.parametrize(
    ("process", "denoiser", "reward", "guidance", "value"),
    CASES,
    ids=lambda x: repr(x)[:40] if isinstance(x, fg.guidance.Guidance) else type(x).__name__,
)
def test_no_step_is_read_by_the_host(process, denoiser, reward, guidance, value, guarded):
    """And what comes out is bit for bit what the loop gives that reads as it goes."""

    def run():
        return fg.sample(process, denoiser, reward, guidance, value=value, particles=24, groups=2, progress=False)

    expected = run()
    assert same(guarded(run), expected)


class Said(fg.models.Denoiser):
    """Prefers the token that its condition names."""

    def __init__(self, device="cpu"):
        self.device = device

    def init(self, n, condition=None):
        return {"token": torch.full((n,), condition, device=self.device)}

    def __call__(self, x, t, state=None, rows=None):
        token = state["token"] if rows is None else state["token"][rows]
        return fg.models.Prediction(
            logits(x, t) + (torch.arange(4, device=x.device) == token[:, None])[:, None], {"token": token}
        )


class Drift(Said):
    """The same of real states."""

    def __call__(self, x, t, state=None, rows=None):
        token = state["token"] if rows is None else state["token"][rows]
        return fg.models.Prediction(x + 0.1 * token[:, None, None], {"token": token})


class Twos(Ones):
    def __call__(self, x0):
        return (x0 == 2).float().mean(1)

    def soft(self, x0):
        return x0[..., 2].mean(1)


def far(x0):
    return -(x0 + 2.0).square().sum((1, 2))


SEVERAL = [
    *((MASKED, Said(), (Ones(), Twos()), g) for g in (*TOKENS, fg.SVDD(alpha=0.0, branch=2))),
    *((GAUSSIAN, Drift(), (level, far), g) for g in REAL),
]
ASKED = [(0, 0, 6), (0, 1, 6), (1, 0, 4), (0, 1, 5), (0, 0, 6)]
"""Condition, reward and length of five groups; the first and the last have the same problem."""


@pytest.mark.parametrize(
    ("process", "denoiser", "rewards", "guidance"),
    SEVERAL,
    ids=lambda x: repr(x)[:40] if isinstance(x, fg.guidance.Guidance) else type(x).__name__,
)
@pytest.mark.parametrize("memory", [fg.Memory(), fg.Memory(limit=1, micro_batch=7)], ids=["all at once", "in parts"])
def test_groups_of_several_problems_are_told_apart_without_a_read(
    process, denoiser, rewards, guidance, memory, guarded
):
    def run():
        return fg.sample(
            process, denoiser, [rewards[r] for _, r, _ in ASKED], guidance, particles=12, groups=5, memory=memory,
            condition=[c for c, _, _ in ASKED], lengths=lengths, progress=False,
        )  # fmt: skip

    lengths = [length for _, _, length in ASKED] if process is MASKED else None
    expected, found = run(), guarded(run)
    assert len(set(expected.problems)) == (4 if process is MASKED else 3)
    assert same(found, expected)


def watched_run(run, monkeypatch):
    """Return what ``run()`` gives on a GPU, every loop inside it under torch's own watch over calls that synchronise."""
    sample = Run.sample

    def watched(self):
        self.result = lambda *args: args
        torch.cuda.set_sync_debug_mode("error")
        try:
            args = sample(self)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        del self.result
        return self.result(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "sample", watched)
        return run()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    ("process", "denoiser", "reward", "guidance", "value"),
    CASES,
    ids=lambda x: repr(x)[:40] if isinstance(x, fg.guidance.Guidance) else type(x).__name__,
)
def test_no_step_waits_for_the_gpu(process, denoiser, reward, guidance, value, monkeypatch):
    """The samples are those of the CPU."""

    def run(device):
        return fg.sample(
            process, denoiser, reward, guidance, value=value, particles=24, groups=2, device=device, progress=False
        )

    expected, found = run("cpu"), watched_run(lambda: run("cuda"), monkeypatch)
    if not found.samples.is_floating_point():
        assert torch.equal(found.samples.cpu(), expected.samples)


STEPS = {"length": 6, "vocab": 4, "steps": 5}
FURTHER = [
    *((MASKED, fg.SMC(alpha=0.1), v) for v in (fg.PosteriorMean("sample"), fg.PosteriorMean("soft"), fg.MonteCarlo(2))),
    (fg.MaskedProcess(**STEPS, top_k=2), fg.TDS(alpha=0.1), None),
    (fg.MaskedProcess(**STEPS, top_p=0.8), fg.TDS(alpha=0.1), None),
    (fg.MaskedProcess(**STEPS, reveal="count", order="confidence"), fg.SVDD(alpha=0.1, branch=2), None),
    (fg.UniformProcess(**STEPS), fg.NestedSMC(alpha=0.1, branch=2), None),
    (fg.UniformProcess(**STEPS, top_p=0.9), fg.SMC(alpha=0.1), None),
    (fg.AutoregressiveProcess(6, 4, eos=3), fg.SMC(alpha=0.1), None),
]


@pytest.mark.parametrize(("process", "guidance", "value"), FURTHER, ids=lambda x: repr(x)[:30])
@pytest.mark.parametrize("memory", [fg.Memory(), fg.Memory(limit=1, micro_batch=7)], ids=["all at once", "in parts"])
def test_so_they_are_by_other_processes_and_values(process, guidance, value, memory, guarded):
    def run():
        return fg.sample(
            process, Said(), [(Ones(), Twos())[r] for _, r, _ in ASKED], guidance, particles=12, groups=5, memory=memory,
            value=value, condition=[c for c, _, _ in ASKED], lengths=[n for _, _, n in ASKED], progress=False,
        )  # fmt: skip

    expected = run()
    assert same(guarded(run), expected)


def test_rewards_of_proteins_read_nothing(guarded):
    """But for those that search words, which run on the CPU and say so."""
    reward = (
        fg.rewards.Constraint(lambda x0: x0[:, 0] < 15, name="first")
        + constraints.max_run(3)
        + constraints.composition_at_most("AC", 0.9)
        + constraints.net_charge(-9, 9)
        + 0.5 * fg.rewards.wrap(lambda x0: (x0 == 3).double().mean(1), name="glutamates")
    )

    def run():
        process = fg.MaskedProcess(length=6, vocab=20, steps=3)
        return fg.sample(
            process, lambda x, t: torch.zeros(len(x), 6, 20), reward, fg.SMC(alpha=0.5), particles=16, progress=False
        )

    expected = run()
    assert same(guarded(run), expected)
    assert constraints.contains("A").device == constraints.forbids("A").device == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("process", "guidance", "value"), FURTHER, ids=lambda x: repr(x)[:30])
def test_no_step_of_several_problems_waits_for_the_gpu(process, guidance, value, monkeypatch):
    def run(device):
        return fg.sample(
            process, Said(device), [(Ones(), Twos())[r] for _, r, _ in ASKED], guidance, particles=12, groups=5, value=value,
            condition=[c for c, _, _ in ASKED], lengths=[n for _, _, n in ASKED], device=device, progress=False,
        )  # fmt: skip

    expected, found = run("cpu"), watched_run(lambda: run("cuda"), monkeypatch)
    assert torch.equal(found.samples.cpu(), expected.samples)


def test_a_law_that_is_none_is_told_of_at_the_end():
    """A row of a discrete process that forbids every token."""

    def run():
        fg.sample(
            fg.UniformProcess(**STEPS), lambda x, t: torch.full((len(x), 6, 4), -torch.inf), Ones(), fg.SMC(),
            particles=8, progress=False,
        )  # fmt: skip

    for context in (nullcontext(), deferred()):
        with pytest.raises(ValueError, match=r"logits\[0, 0\] forbids? every token"), context:
            run()


def test_the_guard_sees_a_read():
    with pytest.raises(AssertionError, match="reads from the device"), HostReads():
        float(torch.ones(1))
    with pytest.raises(AssertionError, match="depends on data"), HostReads():
        torch.ones(3)[torch.ones(3) > 0]


def test_a_reward_on_the_host_gets_distinct_rows_only():
    class Counted(Ones):
        device = torch.device("cpu")
        rows = 0

        def __call__(self, x0):
            self.rows += len(x0)
            return super().__call__(x0)

    reward = Counted()
    process = fg.MaskedProcess(length=2, vocab=2, steps=2)
    with deferred():
        fg.sample(process, lambda x, t: torch.zeros(len(x), 2, 2), reward, fg.SMC(), particles=500, progress=False)
    assert reward.rows <= 4


class TestErrors:
    def test_the_first_that_failed_is_raised_at_the_end(self):
        seen = []

        def reward(x0):
            seen.append(len(seen))
            out = torch.zeros(len(x0))
            out[5] = torch.nan if len(seen) == 3 else 0.0
            return out

        def run():
            fg.sample(MASKED, logits, reward, fg.SMC(), particles=20, memory=fg.Memory(merge=False), progress=False)

        with pytest.raises(fg.RewardError, match="returned nan for sample") as error:
            run()
        assert len(seen) == 3
        assert error.value.sample is not None
        seen.clear()
        with pytest.raises(fg.RewardError, match="returned nan for row 5 of a call"), deferred():
            run()
        assert len(seen) > 3

    def test_of_elements_the_first(self):
        def report(flat, value):
            return ValueError(f"element {flat} is {value}")

        x = torch.tensor([[1.0, 2.0], [-3.0, -4.0]])
        with pytest.raises(ValueError, match=r"element 2 is -3.0"):
            require(x > 0, x, report)

        @deferred()
        def later():
            require(x < 9, x, report)
            require(x > 0, x, report)
            require(x > 1, x, report)

        with pytest.raises(ValueError, match=r"element 2 is -3.0"):
            later()

    def test_an_exception_of_the_block_goes_first(self):
        @deferred()
        def fails():
            require(torch.zeros(1) > 0, torch.zeros(1), lambda *_: ValueError("later"))
            raise KeyError

        with pytest.raises(KeyError):
            fails()
        assert not deferring()

    def test_a_block_inside_another_ends_nothing(self):
        passed = []

        @deferred()
        def outer():
            with deferred():
                require(torch.zeros(1) > 0, torch.zeros(1), lambda *_: ValueError("later"))
            passed.append(deferring())

        with pytest.raises(ValueError, match="later"):
            outer()
        assert passed == [True]
