"""Potentials and tempering of SMC by hand, step by step."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg

VALUES = [[1.0, 2.0], [3.0, 1.0], [2.0, 2.0]]
REWARD = [5.0, 4.0]


def log_weights(guidance, values=VALUES):
    """Log-weights of two particles after every step, in units of alpha; nothing resamples."""
    s = fg.Steering(guidance, particles=2)
    s.begin(torch.tensor(values[0]))
    rows = [s.log_weights[0].tolist()]
    for v in values[1:]:
        s.weigh(torch.tensor(v))
        s.select()
        rows.append(s.log_weights[0].tolist())
    s.finish(torch.tensor(REWARD))
    s.select()
    return [*rows, s.log_weights[0].tolist()]


@pytest.mark.parametrize(
    ("potential", "expected"),
    [
        ("difference", [[1, 2], [3, 1], [2, 2]]),
        ("max_difference", [[1, 2], [3, 2], [3, 2]]),
        ("max", [[1, 2], [1 + 3, 2 + 2], [1 + 3 + 3, 2 + 2 + 2]]),
        ("sum", [[1, 2], [1 + 4, 2 + 3], [1 + 4 + 6, 2 + 3 + 5]]),
    ],
)
def test_potentials_by_hand(potential, expected):
    got = log_weights(fg.SMC(ess_threshold=0.0, potential=potential))
    assert got == [*([float(x) for x in row] for row in expected), REWARD]


def test_values_outside_the_window_leave_no_trace():
    for potential in ("difference", "max", "sum", "max_difference"):
        guidance = fg.SMC(ess_threshold=0.0, potential=potential, value_steps=(1,))
        assert log_weights(guidance) == [[0.0, 0.0], [3.0, 1.0], [3.0, 1.0], REWARD]


def test_scheduled_temperatures_by_hand():
    got = log_weights(fg.SMC(alpha=0.5, ess_threshold=0.0, alphas=(4.0, 2.0)))
    assert got == [[0.25, 0.5], [1.5, 0.5], [4.0, 4.0], [10.0, 8.0]]


def test_sequences_of_any_kind_are_taken():
    steps, alphas = torch.tensor([3, 1]).tolist(), torch.tensor([4.0, 2.0])
    guidance = fg.SMC(value_steps=steps, alphas=alphas)
    assert guidance == fg.SMC(value_steps={1, 3}, alphas=[4, 2])
    assert hash(guidance) == hash(fg.SMC(value_steps=(3, 1, 1), alphas=(4.0, 2.0)))


class TestAdaptiveTempering:
    guidance = fg.SMC(alpha=0.1, target_ess=0.7, ess_threshold=0.7)
    n = 1_000

    def run(self, changes, groups):
        """Values start at the first row and change by the others; returns inverse temperatures and ESS after every step."""
        s = fg.Steering(self.guidance, particles=self.n, groups=groups, seed=[5] * groups)
        s.begin(changes[0])
        trace = [(s.state.carried[2], s.state.ess)]
        for change in changes[1:]:
            s.weigh(s.state.values.flatten() + change)
            s.select()
            trace.append((s.state.carried[2], s.state.ess))
        return s, trace

    def test_ess_hits_the_fraction_and_the_temperature_falls_to_alpha(self):
        generator = torch.Generator().manual_seed(0)
        changes = torch.randn(30, self.n, generator=generator, dtype=torch.float64)
        changes[1:] *= 0.02
        _, trace = self.run(changes, 1)
        beta, ess = (torch.stack(column)[:, 0] for column in zip(*trace, strict=True))
        assert bool((beta.diff() >= 0).all())
        assert 0 < float(beta[0]) < 1
        assert float(beta[-1]) == 10.0
        rising = (beta[1:] > beta[:-1]) & (beta[1:] < 10)
        assert int(rising.sum()) >= 3
        # As uneven as asked, within what a billionth of the temperature changes.
        assert bool(((ess[1:][rising] - 700).abs() < 0.01).all())

    def test_mild_values_are_taken_at_alpha_at_once(self):
        start = torch.linspace(0, 0.05, self.n, dtype=torch.float64)
        _, trace = self.run([start, torch.zeros_like(start)], 1)
        assert [float(b[0]) for b, _ in trace] == [10.0, 10.0]

    def test_equal_values_tell_no_temperature(self):
        values = torch.stack([torch.full((self.n,), 3.0, dtype=torch.float64), torch.arange(float(self.n)).double()])
        _, trace = self.run(values, 1)
        assert float(trace[0][0][0]) == 0.0
        assert 0 < float(trace[1][0][0]) < 10

    def test_groups_find_their_own_temperature(self):
        generator = torch.Generator().manual_seed(1)
        values = torch.randn(5, 2, self.n, generator=generator, dtype=torch.float64)
        values[:, 1] *= 0.2
        both, _ = self.run(values.flatten(1), 2)
        for g in range(2):
            alone, _ = self.run(values[:, g], 1)
            assert torch.equal(both.log_weights[g], alone.log_weights[0])
            assert torch.equal(both.state.carried[2][g], alone.state.carried[2][0])
        assert float(both.state.carried[2][1]) > 2 * float(both.state.carried[2][0])

    def test_the_reference_finds_the_same_bits(self):
        values = torch.randn(2, self.n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        kernel, _ = self.run(values, 1)
        with fg.backend("torch"):
            reference, _ = self.run(values, 1)
        assert torch.equal(kernel.log_weights, reference.log_weights)
        assert torch.equal(kernel.state.carried[2], reference.state.carried[2])

    def test_a_dead_particle_and_a_dead_group_do_no_harm(self):
        values = torch.randn(2, 2 * self.n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        values[0, 0] = -torch.inf
        values[:, self.n :] = -torch.inf
        s, trace = self.run(values, 2)
        assert all(bool(b.isfinite().all()) for b, _ in trace)
        assert not bool(s.log_weights.isnan().any())
        assert bool((s.log_weights[1] == -torch.inf).all())
