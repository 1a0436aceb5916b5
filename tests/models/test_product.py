"""Products of denoisers: how outputs combine, and one network under two conditions."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from fastguide.models import Prediction, Product, classifier_free

LENGTH, VOCAB = 4, 3


class Conditional(fg.models.Denoiser):
    """Logits that depend on the condition and on how often the particle was called, both kept in its state."""

    def __init__(self):
        self.table = torch.randn(3, VOCAB + 1, LENGTH * VOCAB, generator=torch.Generator().manual_seed(0))
        self.calls = []

    def init(self, n, condition=None):
        kind = torch.full((n,), 0 if condition is None else condition)
        return {"kind": kind, "calls": torch.zeros(n, 2, dtype=torch.int64), "name": "toy"}

    def __call__(self, x, t, state=None, rows=None):
        self.calls.append(len(x))
        kind, calls = state["kind"][rows], state["calls"][rows]
        logits = (self.table[kind[:, None], x].sum(1) + calls[:, :1]).sin().view(-1, LENGTH, VOCAB)
        return Prediction(logits, {"kind": kind, "calls": calls + 1, "name": "toy"})

    def key(self, x, state, rows=None):
        return torch.cat([x, state["kind"][rows, None], state["calls"][rows]], 1)

    def decode(self, x0, condition=None):
        return x0 + (condition or 0)


def run(denoiser, **options):
    process = fg.MaskedProcess(LENGTH, VOCAB, steps=3)
    return fg.sample(
        process, denoiser, lambda x0: x0.double().sum(1), fg.SMC(ess_threshold=1.0), progress=False,
        **{"particles": 20, "groups": 2, "seed": [1, 2]} | options,
    )  # fmt: skip


def test_outputs_of_tokens_are_powers_of_probabilities():
    x = torch.zeros(2, 3, dtype=torch.int64)
    first, second = (torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    out = Product([lambda x, t: first, lambda x, t: second], [2.0, -0.5])(x, None).output
    torch.testing.assert_close(out, 2.0 * first.log_softmax(-1) - 0.5 * second.log_softmax(-1))


def test_a_token_that_an_expert_forbids_is_forbidden_whatever_its_exponent():
    x, plain = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, 3)
    forbids = torch.tensor([[[0.0, -torch.inf, 0.0]]])
    for exponent in (0.5, -0.5):
        out = Product([lambda x, t: plain, lambda x, t: forbids], [1.0, exponent])(x, None).output
        assert out[0, 0].isneginf().tolist() == [False, True, False]
    out = Product([lambda x, t: plain, lambda x, t: forbids], [1.0, 0.0])(x, None).output
    assert bool(out.isfinite().all())


def test_outputs_of_real_states_add_up():
    x = torch.ones(2, 3)
    out = Product([lambda x, t: 2 * x, lambda x, t: x.half()], [2.0, -1.0])(x, None).output
    assert torch.equal(out, 3 * x)


@pytest.mark.parametrize("exponents", [[], [1.0], [1.0, 2.0, 3.0], [1.0, float("nan")]], ids=str)
def test_exponents_are_checked(exponents):
    with pytest.raises(ValueError, match="exponents: expected a finite number for each of 2"):
        Product([lambda x, t: x, lambda x, t: x], exponents)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_weights_of_zero_and_one_are_without_and_with_the_condition(weight):
    one = run(classifier_free(Conditional(), weight, conditional=2, unconditional=1), decode=lambda x: x)
    alone = run(Conditional(), condition=[2 if weight else 1] * 2, decode=lambda x: x)
    assert torch.equal(one.samples, alone.samples)
    torch.testing.assert_close(one.log_weights, alone.log_weights)


def test_both_conditions_are_one_call_and_agree_with_two_experts():
    class Under(Conditional):
        def __init__(self, condition):
            super().__init__()
            self.condition = condition

        def init(self, n, condition=None):
            return super().init(n, self.condition)

    network = Conditional()
    once = run(classifier_free(network, 2.5, conditional=2, unconditional=1), decode=lambda x: x)
    twice = run(Product([Under(2), Under(1)], [2.5, -1.5]), decode=lambda x: x)
    assert torch.equal(once.samples, twice.samples)
    assert set(network.calls) == {40}
    assert once.samples.tolist() != run(network, condition=[2, 2], decode=lambda x: x).samples.tolist()


def test_conditions_of_groups_take_the_place_of_the_one_given():
    denoiser = classifier_free(Conditional(), 2.0, conditional=2, unconditional=0)
    both = run(denoiser, condition=[1, 2])
    for group in (0, 1):
        alone = run(denoiser, condition=[1 + group], groups=1, seed=[1 + group])
        assert torch.equal(both.samples[20 * group : 20 * (group + 1)], alone.samples)
        assert torch.equal(both.rewards[20 * group : 20 * (group + 1)], alone.rewards)


@pytest.mark.parametrize("memory", [fg.Memory(merge=False), fg.Memory(limit=1, micro_batch=3)], ids=str)
@pytest.mark.parametrize("corrected", [False, True])
def test_states_follow_their_particles(memory, corrected):
    denoiser = classifier_free(Conditional(), 2.0, conditional=2, corrected=corrected)
    one, two = run(denoiser), run(denoiser, memory=memory)
    assert torch.equal(one.samples, two.samples)
    assert torch.equal(one.log_weights, two.log_weights)
    assert torch.equal(two.replay(21)[-1], two.samples[21])
