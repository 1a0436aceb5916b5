"""States of denoisers: what a pytree may hold, and that neither merging nor recomputing changes a result."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from fastguide.models.protocol import Prediction, cat_states

LENGTH, VOCAB, STEPS = 4, 3, 5
CONDITIONS = (4, 3)
"""One a group: the number of positions."""


class FirstSeen(fg.models.Denoiser):
    """Remembers at which call each position was revealed; its logits and its key depend on that, not on x alone.

    The state nests a dictionary, a tuple, None, a number and a text, as caches of real models do.
    """

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.token = torch.randn(VOCAB + 1, LENGTH * VOCAB, generator=generator)
        self.call = torch.randn(STEPS + 1, LENGTH * VOCAB, generator=generator)

    def init(self, n, condition=None):
        ranks = torch.full((n, LENGTH), STEPS, dtype=torch.int16)
        return {"ranks": (ranks, None), "calls": torch.zeros(n, dtype=torch.int64), "kind": "first seen", "layers": 2}

    def _ranks(self, x, state, rows):
        ranks, calls = state["ranks"][0][rows], state["calls"][rows]
        return torch.where((x < VOCAB) & (ranks == STEPS), calls[:, None].to(torch.int16), ranks), calls

    def __call__(self, x, t, state=None, rows=None):
        ranks, calls = self._ranks(x, state, rows)
        logits = (self.token[x] + self.call[ranks.long()]).sum(1).sin().view(-1, LENGTH, VOCAB)
        return Prediction(logits, {**state, "ranks": (ranks, None), "calls": calls + 1})

    def key(self, x, state, rows=None):
        ranks, _ = self._ranks(x, state, rows)
        return torch.cat([x, ranks.to(torch.int64)], dim=1)

    def length_of(self, condition=None):
        return condition


def run(guidance, memory="auto", **options):
    return fg.sample(
        fg.MaskedProcess(length=LENGTH, vocab=VOCAB, steps=STEPS),
        FirstSeen(),
        lambda x0: x0.float().sin().sum(1),
        guidance,
        condition=CONDITIONS,
        groups=2,
        memory=memory,
        progress=False,
        **{"particles": 40, "seed": [5, 6]} | options,
    )


@pytest.mark.parametrize("guidance", [fg.SMC(alpha=0.3), fg.SVDD(alpha=0.3, branch=4), fg.BestOfN()], ids=repr)
@pytest.mark.parametrize(
    "memory",
    [
        fg.Memory(merge=False),
        fg.Memory(limit=1),
        fg.Memory(limit=1, micro_batch=7),
        fg.Memory(micro_batch=7),
        fg.Memory(merge=False, remember=False, limit=1, micro_batch=3),
    ],
    ids=str,
)
def test_a_state_follows_its_particle(guidance, memory):
    expected, result = run(guidance), run(guidance, memory)
    assert torch.equal(expected.samples, result.samples)
    assert torch.equal(expected.log_weights, result.log_weights)
    for i in (0, 39, 40, 79):
        length = CONDITIONS[i // 40]
        assert torch.equal(result.replay(i)[-1], result.samples[i, :length])


def test_states_with_different_settings_are_not_joined():
    one, two = ({"layers": n, "x": torch.zeros(2)} for n in (1, 2))
    assert cat_states([one, one])["x"].shape == (4,)
    with pytest.raises(ValueError, match="hold 1 and 2"):
        cat_states([one, two])


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_logits_of_a_wrong_type_name_the_denoiser(dtype):
    with pytest.raises(TypeError, match=r"denoiser.*logits\.float"):
        fg.sample(
            fg.MaskedProcess(length=2, vocab=3),
            lambda x, t: torch.zeros(len(x), 2, 3, dtype=dtype),
            lambda x0: x0.sum(1),
            fg.SMC(),
            progress=False,
        )
