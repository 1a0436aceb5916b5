"""The step object agrees with the loop, and refuses misuse."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from tests.oracle.masked import TabularMasked

ALPHA = 0.5


@pytest.mark.parametrize(
    "guidance",
    [fg.SMC(alpha=ALPHA), fg.SVDD(alpha=ALPHA, branch=3), fg.NestedSMC(alpha=ALPHA, branch=3), fg.Beam(branch=3)],
    ids=lambda g: type(g).__name__,
)
def test_an_own_loop_gives_what_sample_gives(guidance):
    oracle = TabularMasked()
    groups, particles = 2, 16
    result = fg.sample(
        oracle.process,
        oracle.denoiser,
        oracle.reward,
        guidance,
        particles=particles,
        groups=groups,
        seed=4,
        progress=False,
    )

    s = fg.Steering(guidance, particles=particles, groups=groups, seed=4)
    process, m = oracle.process, guidance.branch

    def value(x, logits):
        return oracle.reward(process.mode(x, logits))

    x = process.prior(groups * particles)
    logits = oracle.denoiser(x, None)
    s.begin(value(x, logits))
    for step in range(process.steps):
        x = process.propose(x, logits, step=step, seed=s.seeds, branch=m).flatten(0, 1)
        if step + 1 < process.steps:
            logits = oracle.denoiser(x, None)
            s.weigh(value(x, logits))
        else:
            s.finish(oracle.reward(x))
        s.select()
        x, logits = s.move(x, logits if m == 1 or step + 1 < process.steps else x)

    assert torch.equal(x, result.samples)
    assert torch.equal(s.log_weights.reshape(-1), result.log_weights)


@pytest.mark.parametrize(
    "guidance",
    [
        fg.SMC(alpha=ALPHA, ess_threshold=1.0),
        fg.SMC(alpha=ALPHA, ess_threshold=1.0, potential="sum", target_ess=0.9),
        fg.SMC(alpha=ALPHA, ess_threshold=1.0, potential="max", value_steps=(1, 3, 4)),
    ],
    ids=str,
)
def test_state_dict_goes_on_bit_for_bit(guidance):
    values = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = fg.Steering(guidance, particles=8, seed=1)
    whole.begin(values[0])
    for v in values[1:]:
        whole.weigh(v)
        whole.select()

    first = fg.Steering(guidance, particles=8, seed=1)
    first.begin(values[0])
    for v in values[1:3]:
        first.weigh(v)
        first.select()
    second = fg.Steering(guidance, particles=8, seed=99)
    second.load_state_dict(first.state_dict())
    for v in values[3:]:
        second.weigh(v)
        second.select()
    assert torch.equal(whole.log_weights, second.log_weights)
    assert torch.equal(whole.move(torch.arange(8)), second.move(torch.arange(8)))


def test_move_takes_pytrees():
    s = fg.Steering(fg.SVDD(alpha=0.0, branch=2), particles=2)
    s.begin(torch.zeros(2))
    s.weigh(torch.tensor([0.0, 1.0, 3.0, 2.0]))
    assert s.select().tolist() == [[1, 2]]
    x, state = s.move(torch.arange(4), {"cache": [torch.arange(8).view(4, 2)]})
    assert x.tolist() == [1, 2]
    assert state["cache"][0].tolist() == [[2, 3], [4, 5]]


def test_best_of_n_needs_no_values():
    s = fg.Steering(fg.BestOfN(alpha=ALPHA), particles=3)
    s.begin()
    s.weigh()
    assert s.select().tolist() == [[0, 1, 2]]
    s.finish(torch.tensor([1.0, 2.0, 3.0]))
    s.select()
    torch.testing.assert_close(s.log_weights[0], torch.tensor([2.0, 4.0, 6.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda s: s.weigh(torch.zeros(4)), RuntimeError, "begin"),
        (lambda s: (s.begin(torch.zeros(4)), s.select()), RuntimeError, "weigh"),
        (lambda s: s.move(torch.zeros(4)), RuntimeError, "select"),
        (lambda s: s.begin(torch.zeros(3)), ValueError, "values.*expected 4"),
        (lambda s: s.begin([0.0] * 4), TypeError, "values"),
        (lambda s: s.begin(torch.tensor([0.0, 0.0, torch.nan, 0.0])), ValueError, r"values.*\[0, 2, 0\]"),
        (lambda s: (s.begin(torch.zeros(4)), s.weigh()), ValueError, "SMC needs the values"),
        (lambda s: s.load_state_dict({}), ValueError, "state_dict"),
    ],
)
def test_misuse(act, error, words):
    with pytest.raises(error, match=words):
        act(fg.Steering(fg.SMC(), particles=4))


def test_values_are_needed_only_where_they_are_read():
    s = fg.Steering(fg.SMC(alpha=ALPHA, value_steps=(1,)), particles=2)
    assert [s.reads_values(k) for k in range(3)] == [False, True, False]
    s.begin()
    with pytest.raises(ValueError, match="SMC needs the values"):
        s.weigh()
    s.weigh(torch.tensor([1.0, 2.0]))
    s.select()
    s.weigh(torch.tensor([7.0, 8.0]))  # not read: what they are must not matter
    s.select()
    assert s.state.values.tolist() == [[1.0, 2.0]]
    s.finish(torch.tensor([3.0, 4.0]))
    s.select()
    torch.testing.assert_close(s.log_weights[0], torch.tensor([6.0, 8.0], dtype=torch.float64))


def test_guidance_of_the_wrong_kind():
    with pytest.raises(TypeError, match="guidance"):
        fg.Steering("smc", particles=4)


def test_move_takes_trees_with_leaves_that_are_no_tensors():
    s = fg.Steering(fg.SMC(alpha=0.1, ess_threshold=1.0), particles=4, seed=1)
    s.begin(torch.zeros(4))
    s.weigh(torch.tensor([0.0, 0.0, 0.0, 9.0]))
    chosen = s.select()[0]
    x, cache = s.move(torch.arange(4), {"keys": [torch.arange(4), None], "layers": 2})
    assert torch.equal(x, chosen)
    assert torch.equal(cache["keys"][0], chosen)
    assert (cache["keys"][1], cache["layers"]) == (None, 2)


def test_move_refuses_a_wrong_number_of_rows():
    s = fg.Steering(fg.SMC(), particles=2)
    s.begin()
    s.weigh(torch.zeros(2))
    s.select()
    with pytest.raises(ValueError, match="expected 2 rows"):
        s.move(torch.arange(3))


def test_a_class_in_place_of_guidance_is_refused():
    with pytest.raises(TypeError, match="the class SMC"):
        fg.Steering(fg.SMC, particles=2)
