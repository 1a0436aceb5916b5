"""Schemes registered in ``particles``."""

from __future__ import annotations

import numpy as np
import pytest

particles = pytest.importorskip("particles")
rs = pytest.importorskip("particles.resampling")
ssm = pytest.importorskip("particles.state_space_models")
schemes = pytest.importorskip("fastguide.adapters.particles")

NAMES = ("systematic", "stratified", "multinomial", "residual")


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_of_the_scheme(name):
    # 4,000 draws of 8 for 8 items: 5 standard errors, a false alarm once in 50,000.
    np.random.seed(0)
    w = np.array([4, 0, 1, 2, 8, 3, 1, 1]) / 20
    counts = np.array([np.bincount(rs.resampling(f"fastguide_{name}", w), minlength=8) for _ in range(4000)])
    error = counts.std(0) / np.sqrt(len(counts))
    assert (np.abs(counts.mean(0) - 8 * w) < 5 * error + 1e-9).all()
    assert getattr(schemes, name)(w, 5).shape == (5,)
    assert getattr(schemes, name)(w, 5).dtype == np.int64


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_finds_the_same_likelihood(name):
    np.random.seed(1)
    model = ssm.StochVol(mu=-1.0, rho=0.9, sigma=0.3)
    _, data = model.simulate(20)

    def likelihoods(scheme: str) -> np.ndarray:
        out = []
        for _ in range(60):
            filter_ = particles.SMC(fk=ssm.Bootstrap(ssm=model, data=data), N=100, resampling=scheme)
            filter_.run()
            out.append(filter_.logLt)
        return np.array(out)

    # 5 standard errors: a false alarm once in 400,000 for the four schemes.
    a, b = likelihoods(f"fastguide_{name}"), likelihoods(name)
    assert abs(a.mean() - b.mean()) < 5 * np.sqrt((a.var() + b.var()) / 60)


def test_reruns_agree_and_calls_differ():
    w = np.full(50, 0.02)
    np.random.seed(3)
    a, b = schemes.multinomial(w), schemes.multinomial(w)
    np.random.seed(3)
    assert (schemes.multinomial(w) == a).all()
    assert (a != b).any()
