"""``smc_FK`` of the twisted diffusion sampler, on a hidden Markov chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastguide.adapters.tds import smc_FK

T, P = 3, 64
START = torch.tensor([0.5, 0.3, 0.2])
MOVE = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]])
POTENTIAL = torch.tensor([[0.0, 0.5, 2.0], [1.0, 0.0, -1.0], [0.2, 1.5, 0.0], [-2.0, 0.0, 1.0]])


def M(t, xtp1, extra_vals, P):  # noqa: N802, N803 - their names
    x = torch.multinomial(START, P, replacement=True) if xtp1 is None else torch.multinomial(MOVE[xtp1], 1)[:, 0]
    return x, extra_vals


def G(t, xtp1, xt, extra_vals):  # noqa: N802 - their name
    return POTENTIAL[t][xt]


def exact() -> tuple[float, torch.Tensor]:
    law = START * POTENTIAL[T].exp()
    for t in range(T - 1, -1, -1):
        law = (law @ MOVE) * POTENTIAL[t].exp()
    return float(law.sum()), law / law.sum()


@pytest.mark.parametrize("threshold", [None, 0.5, 0, 1.0])
@pytest.mark.parametrize("strategy", ["systematic", "multinomial", "residual", "stratified"])
def test_normalizer_and_law_are_unbiased(strategy, threshold):
    # 200 runs; 4 numbers in each of 16 cases at 5 standard errors: a false alarm once in 25,000.
    torch.manual_seed(0)
    np.random.seed(0)
    z, law = exact()
    estimates = []
    for _ in range(200):
        x, log_w, w, _, _, trace, _ = smc_FK(M, G, strategy, T, P, threshold)
        log_z = trace[-1] if threshold == 0 else torch.logsumexp(trace, 1)[:, None] - np.log(P)
        ratio = torch.logsumexp(log_w, 0).exp() / P if threshold == 0 else log_z.sum().exp()
        estimates.append(ratio * torch.stack([torch.tensor(1.0), *(w[x == k].sum() for k in range(3))]))
    got = torch.stack(estimates).double()
    error = (got.var(0) / len(got)).sqrt()
    assert ((got.mean(0) - z * torch.cat([torch.ones(1), law])).abs() < 5 * error).all()


def test_what_comes_back_has_their_shapes():
    seen = {}
    x, log_w, w, indices, ess, trace, xs = smc_FK(M, G, "systematic", T, P, 0.5, log_xt_trace=True, extra_vals=seen)
    assert x.shape == log_w.shape == w.shape == (P,)
    assert indices.shape == (T, P)
    assert indices.dtype == torch.int64
    assert ess.shape == (T + 1,)
    assert trace.shape == xs.shape == (T + 1, P)
    assert smc_FK(M, G, "systematic", T, P, 0)[6] is None
    assert torch.equal(smc_FK(M, G, "systematic", T, P, 0)[3], torch.arange(P).expand(T, P))
    assert smc_FK(M, G, "systematic", 0, P, 0.5)[3] == []


def test_the_user_sees_what_theirs_shows():
    calls = []

    def watch(t, xtp1, extra_vals, P):  # noqa: N803
        calls.append((t, xtp1 is None, sorted(k[1] for k in extra_vals)))
        return M(t, xtp1, extra_vals, P)

    smc_FK(watch, G, "systematic", 2, P, None)
    assert calls == [(2, True, []), (1, False, [2]), (0, False, [1, 2])]


def test_refusals():
    with pytest.raises(KeyError, match="unknown 'best'"):
        smc_FK(M, G, "best", T, P, 0.5)
    with pytest.raises(ValueError, match=r"G: expected one log-potential a particle, \[64\], got shape \[64, 1\]"):
        smc_FK(M, lambda t, xtp1, xt, extra_vals: POTENTIAL[t][xt][:, None], "systematic", T, P, 0.5)
    with pytest.raises(ValueError, match="nan"):
        smc_FK(M, lambda t, xtp1, xt, extra_vals: torch.full((P,), torch.nan), "systematic", T, P, 0.5)
