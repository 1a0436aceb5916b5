from __future__ import annotations

import builtins

import pytest
import torch

from fastguide.errors import BackendUnavailable
from fastguide.rewards import ProtParam

pytest.importorskip("Bio")


@pytest.mark.parametrize(
    ("name", "sequence", "value"),
    [
        ("gravy", "IIIR", 0.25 * (3 * 4.5 - 4.5)),
        ("aromaticity", "FWYA", 0.75),
        ("molecular_weight", "GG", 2 * 75.0666 - 18.0153),
        ("isoelectric_point", "GGGG", 5.5),
    ],
)
def test_values_known_from_the_definition(name, sequence, value, tokens):
    # Without ionisable side chains the isoelectric point lies between the termini's pK values, 2 to 9.
    tolerance = 1.0 if name == "isoelectric_point" else 1e-2
    assert ProtParam(name)(tokens(sequence)).item() == pytest.approx(value, abs=tolerance)


def test_charge_follows_the_side_chains(tokens):
    charge = ProtParam("charge_at_pH7")(tokens("KKKKGG", "GGGGGG", "DDDDGG"))
    assert charge[0] - charge[1] == pytest.approx(4, abs=0.1)
    assert charge[2] - charge[1] == pytest.approx(-4, abs=0.1)


def test_a_target_turns_the_value_into_minus_the_distance(tokens):
    x0 = tokens("MKVLAAGI", "DDDDEEEE")
    value = ProtParam("isoelectric_point")(x0)
    reward = ProtParam("isoelectric_point", target=6.5)
    assert torch.equal(reward(x0), -(value - 6.5).abs())
    assert reward.name == "isoelectric_point@6.5"


def test_a_value_does_not_depend_on_the_batch(random_tokens):
    reward, x0 = ProtParam("instability_index"), random_tokens(5, 20)
    assert reward.batch_invariant
    assert torch.equal(reward(x0)[3:4], reward(x0[3:4]))
    assert reward(x0).dtype == torch.float64
    assert reward(x0[:0]).shape == (0,)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"property_name: 'pi' is none of isoelectric_point, .*charge_at_pH7"):
        ProtParam("pi")
    with pytest.raises(ValueError, match="target: expected a finite number, got nan"):
        ProtParam("gravy", target=float("nan"))
    with pytest.raises(ValueError, match=r"gravy: token 20 at \[0, 0\]"):
        ProtParam("gravy")(torch.full((1, 3), 20))


def test_the_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("Bio"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BackendUnavailable, match=r'pip install "fastguide\[protein\]"'):
        ProtParam("gravy")
