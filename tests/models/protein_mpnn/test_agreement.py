"""Agreement with the package's own forward pass, to 1e-4 in log-probability."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastguide.models import ProteinMPNN

pytestmark = pytest.mark.weights
TOLERANCE = {"rtol": 0.0, "atol": 1e-4}
MASK = 20


def reveal_one_by_one(model, tokens, order):
    """The prediction after the variables ``order`` were revealed, each by a call of its own."""
    x = torch.full((1, model.length), MASK)
    prediction = model(x, torch.ones(1), model.init(1))
    for variable in order:
        x[0, variable] = tokens[variable]
        prediction = model(x, torch.ones(1), prediction.state)
    return prediction


def random_tokens(size, seed=0):
    return torch.randint(20, (size,), generator=torch.Generator().manual_seed(seed))


def random_order(size, seed=0):
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", ["1UBI", "1EJG", "1AKE"])
@pytest.mark.parametrize("part", [0.0, 0.5])
def test_masked_residues_given_those_revealed(name, part, backbones, design, peer):
    structure = backbones[name]
    size = len(structure.tokens)
    tokens, order = random_tokens(size), random_order(size)
    revealed, masked = order[: int(part * size)], order[int(part * size) :]
    found = reveal_one_by_one(ProteinMPNN(design(structure)), tokens, revealed).output[0].log_softmax(1)
    expected = peer.conditional(structure, tokens, revealed, masked[:3])[:, :20].log_softmax(1)
    torch.testing.assert_close(found[masked[:3]], expected, **TOLERANCE)


@pytest.mark.parametrize("name", ["1UBI", "1EJG", "1AKE"])
def test_full_sequences(name, backbones, design, peer):
    structure = backbones[name]
    size = len(structure.tokens)
    tokens, order = random_tokens(size), torch.tensor(random_order(size, seed=5))
    found = ProteinMPNN(design(structure)).nll(tokens[None], seed=5)[0]
    expected = -peer.log_probs(structure, tokens, order[None])[0].gather(1, tokens[:, None]).squeeze(1)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_nll_is_the_mean_over_orders(crambin, design, peer):
    tokens, size = random_tokens(46), 46
    generator = torch.Generator().manual_seed(3)
    orders = torch.stack([torch.randperm(size, generator=generator) for _ in range(2)])
    each = -peer.log_probs(crambin, tokens, orders).gather(2, tokens.expand(2, -1)[..., None]).squeeze(2)
    found = ProteinMPNN(design(crambin)).nll(tokens[None], orders=2, seed=3)[0]
    torch.testing.assert_close(found, each.mean(0), **TOLERANCE)


def test_fixed_residues_come_first_in_their_order(dimer, design, peer):
    """Chain B and every third residue of chain A are kept; one of them is of an unknown kind."""
    fixed = [i for i in range(92) if i >= 46 or i % 3 == 0]
    free = [i for i in range(46) if i % 3]
    tokens = random_tokens(92)
    tokens[60] = MASK
    structure = replace(dimer, tokens=tokens)
    model = ProteinMPNN(design(structure, [(i,) for i in free], output=range(46)))
    revealed = random_order(len(free))[:10]
    found = reveal_one_by_one(model, tokens[free], revealed).output[0].log_softmax(1)
    asked = [v for v in range(len(free)) if v not in revealed][:3]
    expected = peer.conditional(structure, tokens, fixed + [free[v] for v in revealed], [free[v] for v in asked])
    torch.testing.assert_close(found[asked], expected[:, :20].log_softmax(1), **TOLERANCE)


def test_residues_without_all_their_atoms_are_context_without_a_state(crambin, design, peer):
    broken = [4, 17, 18]
    coordinates = crambin.coordinates.clone()
    coordinates[broken, [3, 0, 1]] = torch.nan
    coordinates[18] = torch.nan
    structure = replace(crambin, coordinates=coordinates)
    free = [i for i in range(46) if i not in broken]
    model = ProteinMPNN(design(structure, [(i,) for i in free]))
    revealed = [0, 5, 20]
    found = reveal_one_by_one(model, structure.tokens[free], revealed).output[0].log_softmax(1)
    asked = [2, 14, 40]
    before = broken + [free[v] for v in revealed]
    expected = peer.conditional(structure, structure.tokens, before, [free[v] for v in asked])
    torch.testing.assert_close(found[asked], expected[:, :20].log_softmax(1), **TOLERANCE)


def test_tied_residues_average_their_logits(dimer, design, peer):
    """A homodimer with tied chains, nothing revealed: no order of the package's says that two residues come at once."""
    model = ProteinMPNN(design(dimer, [(i, i + 46) for i in range(46)]))
    x = torch.full((1, 46), MASK)
    found = model(x, torch.ones(1)).output[0, 7].log_softmax(0)
    members = peer.conditional(dimer, dimer.tokens, [], [7, 53])[:, :20]
    torch.testing.assert_close(found, members.mean(0).log_softmax(0), **TOLERANCE)


def test_soluble_weights_are_others(crambin, design):
    vanilla, soluble = (ProteinMPNN(design(crambin), soluble=soluble) for soluble in (False, True))
    assert vanilla.weights_hash != soluble.weights_hash
    native = crambin.tokens[None]
    assert (vanilla.nll(native) - soluble.nll(native)).abs().max() > 0.1
