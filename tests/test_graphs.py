"""Recorded steps give the bits of those that run as always.

Without a GPU a recording is the body itself, called again at each replay: Python's numbers of the step stay those of the step
that was recorded, as in a graph, so a number that is not read from the device shows. It cannot show what a capture forbids.
"""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from fastguide import clock, graphs
from fastguide.deferred import deferred
from tests.test_deferred import HostReads, Ones, level, logits

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))


class Emulated:
    """Stands in for `fastguide.graphs.CudaGraph`: counts recordings and replays."""

    recorded = replayed = 0

    def __init__(self, body, device):
        Emulated.recorded += 1
        self._body = body

    @staticmethod
    def check(device):
        pass

    def replay(self):
        Emulated.replayed += 1
        self._body()


@pytest.fixture(params=["cpu", GPU])
def device(request, monkeypatch):
    Emulated.recorded = Emulated.replayed = 0
    if request.param == "cpu":
        monkeypatch.setattr(graphs, "CudaGraph", Emulated)
    return request.param


MASKED = fg.MaskedProcess(length=6, vocab=4, steps=12)
COUNTS = fg.MaskedProcess(
    length=6, vocab=4, steps=12, reveal="count", order="confidence", temperature=0.7, schedule="cosine"
)
DDPM = fg.GaussianProcess((3, 2), steps=12)
EDM = fg.GaussianProcess((3, 2), steps=12, sampler="edm", schedule="karras", clip_x0=1.5)
V = fg.GaussianProcess((3, 2), steps=12, prediction="v", schedule="cosine", sampler="ddim", eta=0.5)
MULTISTEP = fg.GaussianProcess((3, 2), steps=12, sampler="sde-dpmsolver++", schedule="cosine")
GUIDANCE = [
    fg.SMC(alpha=0.1),
    fg.SMC(alpha=0.1, potential="max_difference", rule="residual"),
    fg.SMC(alpha=0.1, potential="sum", alphas=[1.0 / (k + 1) for k in range(9)]),
    fg.SMC(alpha=0.1, target_ess=0.4),
    fg.SMC(alpha=0.1, value_steps=(2, 3, 4, 5, 6, 9)),
    fg.NestedSMC(alpha=0.1, branch=3),
    fg.SVDD(alpha=0.1, branch=3),
    fg.SVDD(alpha=0, branch=2),
    fg.Beam(branch=3),
    fg.BestOfN(),
    fg.TDS(alpha=0.1, gradient="decoded"),
    fg.TDS(alpha=0.1, gradient="exact", clip=1.0),
    fg.Scheduled(dict.fromkeys((0, 6), fg.SMC(alpha=0.5))),  # two phases of one guidance draw apart
    fg.Scheduled({0: fg.SMC(alpha=0.5), 6: fg.NestedSMC(alpha=0.1, branch=2)}),
]
CASES = [
    *((MASKED, g, None) for g in GUIDANCE),
    (MASKED, fg.SMC(alpha=0.1), fg.PosteriorMean("sample", draws=2)),
    (V, fg.TDS(alpha=9.0, scale=0.1), None),
    *((process, fg.ClassifierGuidance(alpha=9.0), None) for process in (DDPM, V)),
    (MASKED, fg.SVDD(alpha=0.1, branch=2), fg.PosteriorMean("soft")),
    (COUNTS, fg.SMC(alpha=0.1), None),
    (fg.MaskedProcess(6, 4, steps=12, remask=0.2, top_k=3), fg.SMC(alpha=0.1), None),
    *(
        (process, g, None)
        for process in (DDPM, EDM, V, MULTISTEP)
        for g in (fg.SMC(alpha=1.0), fg.SVDD(alpha=1.0, branch=3))
    ),
]


def timed_logits(x, t):
    """Depends on the noise level, so that a wrong one shows."""
    return logits(x, t) * (0.5 + t[:, None, None])


def timed(x, t):
    return 0.3 * x * (0.5 + t[:, None, None])


def run(process, guidance, value, device, cuda_graph, **settings):
    masked = isinstance(process, fg.MaskedProcess)

    @deferred()
    def sample():
        return fg.sample(
            process, timed_logits if masked else timed, Ones() if masked else level, guidance, value=value, particles=24,
            groups=2, device=device, progress=False, cuda_graph=cuda_graph, **settings,
        )  # fmt: skip

    return sample()


@pytest.mark.parametrize(("process", "guidance", "value"), CASES, ids=lambda x: repr(x)[:60])
def test_recorded_steps_equal_the_others(process, guidance, value, device):
    expected = run(process, guidance, value, device, cuda_graph=False)
    found = run(process, guidance, value, device, cuda_graph=True)
    for name in ("samples", "log_weights", "rewards"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    torch.testing.assert_close(
        found.log_normalizer.groups, expected.log_normalizer.groups, rtol=0, atol=0, equal_nan=True
    )
    for name in ("parents", "roots"):
        assert torch.equal(getattr(found.ancestry, name), getattr(expected.ancestry, name))
    kept = ("seconds", "seconds_denoiser", "seconds_reward")
    for name in (name for name in fg.trace.TraceStep._fields if name not in kept):
        assert torch.equal(getattr(found.trace, name), getattr(expected.trace, name)), name
    assert found.denoiser_rows == expected.denoiser_rows
    assert found.reward_rows == expected.reward_rows
    if device == "cpu":
        assert Emulated.recorded >= 1
        assert Emulated.replayed >= 3


def test_a_recording_is_taken_up_again(device):
    """Values after steps 5 and 10 alone: two stretches of steps without, one recording."""
    guidance = fg.SMC(alpha=0.1, value_steps=(5, 10))
    found = run(fg.MaskedProcess(6, 4, steps=16), guidance, None, device, cuda_graph=True)
    expected = run(fg.MaskedProcess(6, 4, steps=16), guidance, None, device, cuda_graph=False)
    assert torch.equal(found.samples, expected.samples)
    if device == "cpu":
        # Of steps 0 to 13 two are followed by values. The others share a recording; the first of them ran as always.
        assert (Emulated.recorded, Emulated.replayed) == (1, 11)


def test_two_runs_of_other_seeds_differ(device):
    one, two = (run(MASKED, fg.SMC(alpha=0.1), None, device, cuda_graph=True, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.samples, two.samples)


def test_a_recorded_step_reads_nothing(monkeypatch):
    """A capture refuses what makes the host wait; here a guard does."""

    class Guarded(Emulated):
        def replay(self):
            with HostReads():
                super().replay()

    monkeypatch.setattr(graphs, "CudaGraph", Guarded)
    # The kernels of the CPU have to be told the number; those of a GPU read it.
    monkeypatch.setattr(clock, "number", lambda step: step)
    monkeypatch.setattr(clock, "entry", lambda numbers, step: numbers[min(step, len(numbers) - 1)])
    Emulated.replayed = 0
    run(MASKED, fg.SMC(alpha=0.1), None, "cpu", cuda_graph=True)
    assert Emulated.replayed > 0


def test_the_first_error_of_a_replay_is_kept(device):
    """A reward that is nan where the look-ahead holds token 3, as that of some particles does in the middle of the run."""

    def denoiser(x, t):
        out = torch.zeros(len(x), 6, 4, device=x.device)
        out[..., 3] = torch.where((t < 0.5) & (t > 0.3) & (x[:, 0] == 1), 50.0, -50.0)[:, None]
        return out

    def reward(x0):
        return torch.where((x0 == 3).any(1), torch.nan, 0.0)

    @deferred()
    def sample(cuda_graph):
        fg.sample(
            MASKED, denoiser, reward, fg.SMC(), particles=64, device=device, progress=False, cuda_graph=cuda_graph
        )

    with pytest.raises(fg.RewardError) as expected:
        sample(False)
    with pytest.raises(fg.RewardError) as found:
        sample(True)
    assert str(found.value) == str(expected.value)
    assert "returned nan for row" in str(found.value)


class TestRefusals:
    def test_a_run_on_the_cpu(self):
        with pytest.raises(ValueError, match='cuda_graph: the states are on cpu; give device="cuda"'):
            run(MASKED, fg.SMC(), None, "cpu", cuda_graph=True)

    @pytest.mark.parametrize(
        ("process", "guidance", "value", "named"),
        [
            (MASKED, fg.TDS(alpha=1.0, scale=lambda t: 1.0 - t), None, "guidance TDS"),
            (MASKED, fg.SMC(), fg.MonteCarlo(2), "value MonteCarlo"),
            (fg.UniformProcess(6, 4, steps=12), fg.SMC(), None, "process UniformProcess"),
        ],
        ids=lambda x: repr(x)[:30],
    )
    def test_what_reads_the_step_on_the_host(self, process, guidance, value, named, device):
        with pytest.raises(ValueError, match=f"cuda_graph: {named} reads on the host which step it is"):
            run(process, guidance, value, device, cuda_graph=True)

    def test_a_budget(self, device):
        with pytest.raises(ValueError, match="cuda_graph: a budget is weighed on the host"):
            run(MASKED, fg.SMC(), None, device, cuda_graph=True, budget=fg.Budget(reward_rows=10**6))

    def test_predictions_that_do_not_fit(self, device):
        with pytest.raises(ValueError, match="cuda_graph: the predictions of a step do not fit"):
            run(MASKED, fg.SMC(), None, device, cuda_graph=True, memory=1)
