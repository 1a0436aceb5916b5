"""The transcriptions of peers call what the peers call, and do what their clones do where ``FG_PEERS`` has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.adapters.peers import DAS_UTILS, FKD_CLASS, TheirFKD, clone, their_resampling, their_tempering

N, LAST = 64, 5
KINDS = ("diff", "max", "add", "rt", "is")


def run(resample) -> list[torch.Tensor]:
    """Return what is left after each step of a walk that ``resample`` steers."""
    torch.manual_seed(1)
    x, seen = torch.randn(N), []
    for i in range(LAST + 1):
        x = resample(i, x + 0.3 * torch.randn(N))
        seen.append(x)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_one_reward_call_a_resampling_step_and_one_draw(kind, monkeypatch):
    draws, rewards = [], []
    multinomial = torch.multinomial
    monkeypatch.setattr(torch, "multinomial", lambda *a, **k: draws.append(1) or multinomial(*a, **k))
    peer = TheirFKD(kind, 1.0, N, False, False, {0, 2, 4}, LAST, lambda x: rewards.append(len(x)) or x)
    run(lambda i, x: peer.resample(i, x, x)[0])
    steps = 1 if kind == "is" else 4
    assert rewards == [N] * steps
    assert len(draws) == steps


def test_one_scheme_call_and_one_copy_a_batch_element():
    calls = []
    log_w = torch.zeros(5, 8)
    log_w[1:4, 0] = 9.0
    scheme = lambda W, M: calls.append(type(W)) or np.zeros(M, np.int64)  # noqa: E731, N803
    their_resampling(scheme, log_w, 0.5)
    assert calls == [np.ndarray] * 3


def test_one_gradient_an_iteration_and_batch_element(monkeypatch):
    steps = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *a, **k: steps.append(1) or step(*a, **k))
    torch.manual_seed(0)
    their_tempering(torch.zeros(3, 16), torch.randn(3, 16), torch.full((3,), 0.01), 0.5, 7)
    assert len(steps) == 21


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_fk_steering_is_its_clone(kind, adaptive, capsys):
    theirs = clone(FKD_CLASS)
    if theirs is None:
        pytest.skip(f"needs FG_PEERS with {FKD_CLASS}")
    original = theirs.FKD(
        potential_type=kind, lmbda=2.0, num_particles=N, adaptive_resampling=adaptive, resample_frequency=2,
        resampling_t_start=0, resampling_t_end=4, time_steps=LAST + 1, reward_fn=lambda x: x, device="cpu",
    )  # fmt: skip
    ours = TheirFKD(kind, 2.0, N, adaptive, False, {0, 2, 4}, LAST, lambda x: x)
    a = run(lambda i, x: original.resample(sampling_idx=i, latents=x, x0_preds=x)[0])
    b = run(lambda i, x: ours.resample(i, x, x)[0])
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_das_is_its_clone():
    theirs = clone(DAS_UTILS)
    if theirs is None:
        pytest.skip(f"needs FG_PEERS with {DAS_UTILS}")
    torch.manual_seed(0)
    log_w = torch.randn(6, 32) * torch.linspace(0.1, 3, 6)[:, None]
    np.random.seed(0)
    a = theirs.resampling_function("systematic", 0.5)(log_w.clone())
    np.random.seed(0)
    b = their_resampling(theirs.systematic, log_w.clone(), 0.5)
    assert all(torch.allclose(p, q) for p, q in zip(a, b, strict=True))
    base, twist, zero = 0.3 * torch.randn(3, 32), 5 * torch.randn(3, 32), torch.zeros(3, 32)
    low = torch.tensor([0.01, 0.1, 0.5])
    found = theirs.adaptive_tempering(base, zero, twist, zero, zero, low, 0.5, 60)
    torch.testing.assert_close(their_tempering(base, twist, low, 0.5, 60), found, rtol=1e-5, atol=1e-6)
