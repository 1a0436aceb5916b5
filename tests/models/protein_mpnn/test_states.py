"""States: what is kept between calls changes no bit of any result."""

from __future__ import annotations

import pytest
import torch

from fastguide.models import ProteinMPNN
from fastguide.models.protein_mpnn.decoder import Decoder
from fastguide.models.protocol import cat_states

pytestmark = pytest.mark.weights
MASK = 20


def random_paths(n, length, seed=0):
    """Tokens [n, L] and when each is revealed [n, L]."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(20, (n, length), generator=generator)
    return tokens, torch.rand(n, length, generator=generator).argsort(1)


def trajectory(model, tokens, when, counts):
    """Predictions along a trajectory that has revealed ``counts[s]`` positions at step s."""
    state, predictions = model.init(len(tokens)), []
    for count in counts:
        prediction = model(torch.where(when < count, tokens, MASK), torch.ones(len(tokens)), state)
        state = prediction.state
        predictions.append(prediction)
    return predictions


@pytest.fixture(scope="module")
def model(crambin, design):
    return ProteinMPNN(design(crambin), cache=True)


@pytest.fixture(scope="module")
def half(model):
    """64 particles after four steps, half of their positions revealed."""
    tokens, when = random_paths(64, 46)
    x = torch.where(when < 23, tokens, MASK)
    return x, trajectory(model, tokens, when, [0, 5, 6, 23])[-1]


def test_cached_rows_equal_recomputed_ones_bit_for_bit(model, crambin, design):
    tokens, when = random_paths(6, 46)
    counts = [0, 1, 2, 9, 10, 23, 40, 45, 46]
    cached = trajectory(model, tokens, when, counts)
    recomputed = trajectory(ProteinMPNN(design(crambin), cache=False), tokens, when, counts)
    assert "keys" in cached[0].state
    assert "keys" not in recomputed[0].state
    for ours, theirs in zip(cached, recomputed, strict=True):
        assert torch.equal(ours.output, theirs.output)


@pytest.mark.parametrize("rows", [[5], [8, 3, 60, 0, 11, 42, 1], list(range(63, -1, -1)), [7] * 9])
def test_a_row_has_the_same_bits_in_any_batch(model, half, rows):
    x, prediction = half
    rows = torch.tensor(rows)
    again = model(x[rows], torch.ones(len(rows)), prediction.state, rows)
    assert torch.equal(again.output, prediction.output[rows])
    assert torch.equal(again.state["keys"], prediction.state["keys"][rows])


def test_results_are_the_same_with_one_thread_and_two(backbones, design, threads):
    structure = backbones["1UBI"]
    tokens, when = random_paths(5, 76)
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        model = ProteinMPNN(design(structure))
        predictions = trajectory(model, tokens, when, [0, 30, 60])
        found.append([*(prediction.output for prediction in predictions), model.nll(tokens)])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_nll_has_the_same_bits_in_any_batch(model):
    tokens, _ = random_paths(500, 46)
    every = model.nll(tokens, orders=1)
    assert torch.equal(model.nll(tokens[[499, 2]], orders=1), every[[499, 2]])


def test_a_call_with_nothing_new_changes_nothing(model, half):
    x, prediction = half
    again = model(x, torch.ones(64), prediction.state)
    assert torch.equal(again.output, prediction.output)
    assert torch.equal(again.state["ranks"], prediction.state["ranks"])


def test_calls_leave_the_states_they_are_given(model, half):
    x, prediction = half
    before = {name: leaf.clone() for name, leaf in prediction.state.items()}
    model(torch.where(x == MASK, 3, x), torch.ones(64), prediction.state)
    assert all(torch.equal(before[name], leaf) for name, leaf in prediction.state.items())


def test_children_continue_their_parents_row(model):
    tokens, when = random_paths(4, 46)
    parents = trajectory(model, tokens, when, [0, 12])[-1].state
    rows = torch.tensor([2, 2, 0])
    x = torch.where(when[rows] < 20, tokens[rows], MASK)
    direct = model(x, torch.ones(3), parents, rows)
    moved = model(x, torch.ones(3), model.move(parents, rows))
    assert torch.equal(direct.output, moved.output)


@pytest.fixture
def computed(monkeypatch):
    """How many rows of the decoder each call computes."""
    counts, run = [], Decoder.run

    def counted(self, tokens, ranks, rows, keys):
        counts.append(len(rows))
        return run(self, tokens, ranks, rows, keys)

    monkeypatch.setattr(Decoder, "run", counted)
    return counts


def children_of(x, rows, seed):
    """Continue rows of masked tokens: each reveals each of its masked positions with probability 0.1, as one of 2 tokens."""
    generator = torch.Generator().manual_seed(seed)
    new = torch.rand(len(rows), x.shape[1], generator=generator) < 0.1
    return torch.where((x[rows] == MASK) & new, torch.randint(2, new.shape, generator=generator), x[rows])


@pytest.mark.parametrize("tied", [False, True])
def test_what_siblings_share_changes_no_bit(backbones, dimer, design, computed, tied):
    """Three generations of brood after brood, with the rows kept and without."""
    designed = design(dimer, variables=tuple((i, i + 30) for i in range(20))) if tied else design(backbones["1UBI"])
    models = [ProteinMPNN(designed, cache=cache) for cache in (True, False)]
    x, states = torch.full((3, models[0].length), MASK), [model.init(3) for model in models]
    for generation in range(4):
        rows = torch.randint(len(x), (40,), generator=torch.Generator().manual_seed(generation))
        x = children_of(x, rows, generation)
        computed.clear()
        ours, theirs = (model(x, torch.ones(40), state, rows) for model, state in zip(models, states, strict=True))
        assert torch.equal(ours.output, theirs.output)
        assert computed[0] < computed[1]
        states = [ours.state, theirs.state]


def test_siblings_that_see_the_same_are_computed_once(model, half, computed):
    x, prediction = half
    rows = torch.tensor([7, 7, 7, 9])
    position = int((x[7] == MASK).nonzero()[0])
    children = x[rows].clone()
    model(children, torch.ones(4), prediction.state, rows)
    assert computed == [0]  # nothing new: all is the parents'
    children[:3, position] = torch.tensor([4, 4, 5])
    model(children, torch.ones(4), prediction.state, rows)
    alone = [model(children[row : row + 1], torch.ones(1), prediction.state, rows[row : row + 1]) for row in (0, 2)]
    assert len(alone) == 2
    assert computed[1] == computed[2] + computed[3]
    assert 0 < computed[2] < int((x[7] == MASK).sum())  # some residues are no neighbours of the one revealed


def test_what_one_call_reveals_does_not_see_each_other(model, crambin):
    """The order between residues changes what the network says; those revealed at once have none."""
    one_by_one = torch.full((1, 46), MASK)
    state = model.init(1)
    for position in range(10):
        one_by_one[0, position] = crambin.tokens[position]
        prediction = model(one_by_one, torch.ones(1), state)
        state = prediction.state
    at_once = model(one_by_one, torch.ones(1))
    assert state["ranks"][0, :10].tolist() == list(range(10))
    assert at_once.state["ranks"][0, :10].tolist() == [0] * 10
    assert (prediction.output - at_once.output).abs().max() > 1e-3


def test_only_what_is_wanted_is_computed_and_the_run_goes_on(model):
    """An unguided run that looks at nothing but what it reveals next gives the same logits there."""
    tokens, when = random_paths(3, 46)
    counts = [0, 4, 5, 30, 46]
    full = trajectory(model, tokens, when, counts)
    state = model.init(3)
    for count, following, expected in zip(counts, counts[1:], full, strict=False):
        wanted = (when >= count) & (when < following)
        found = model.predict(torch.where(when < count, tokens, MASK), state, wanted=wanted)
        state = found.state
        assert torch.equal(found.output[wanted], expected.output[wanted])
        assert not found.output[~wanted].any()


def test_key_is_that_of_the_state_before_and_after_the_call(model, half):
    x, prediction = half
    child = torch.where(torch.arange(46) < 30, x.clamp(max=19), x)
    rows = torch.arange(64)
    before = model.key(child, prediction.state, rows)
    after = model.key(child, model(child, torch.ones(64), prediction.state, rows).state)
    assert before.dtype == torch.int16
    assert torch.equal(before, after)


def test_key_tells_orders_apart_and_forgets_idle_calls(model, crambin):
    def reveal(*steps):
        x, state = torch.full((1, 46), MASK), model.init(1)
        for step in steps:
            x[0, list(step)] = crambin.tokens[list(step)]
            state = model(x, torch.ones(1), state).state
        return model.key(x, state)

    assert not torch.equal(reveal([1], [2]), reveal([2], [1]))
    assert not torch.equal(reveal([1], [2]), reveal([1, 2]))
    assert torch.equal(reveal([1], [], [], [2]), reveal([1], [2]))


def test_designs_share_a_batch(backbones, crambin, design):
    """Rows of two backbones of different lengths, interleaved, give what each gives alone."""
    small, large = design(crambin), design(backbones["1UBI"])
    model = ProteinMPNN([small, large], cache=True)
    assert model.length == 76
    state = cat_states([model.init(2, small), model.init(2, large)])
    tokens, when = random_paths(4, 76)
    x = torch.where(when < 38, tokens, MASK)
    rows = torch.tensor([2, 0, 3, 1])
    mixed = model(x[rows], torch.ones(4), state, rows)
    alone = ProteinMPNN(small)(x[:2, :46], torch.ones(2))
    assert torch.equal(mixed.output[[1, 3], :46], alone.output)
    assert not mixed.output[[1, 3], 46:].any()
    alone = ProteinMPNN(large)(x[2:], torch.ones(2))
    assert torch.equal(mixed.output[[0, 2]], alone.output)


def test_designs_forgotten_for_want_of_memory_come_back_the_same(backbones, crambin, design):
    small, large = design(crambin), design(backbones["1UBI"])
    model = ProteinMPNN(small)
    model.memory = 0
    x = torch.full((1, 46), MASK)
    before = model(x, torch.ones(1), model.init(1)).output
    model.init(1, large)
    state = ProteinMPNN(small).init(1)
    assert torch.equal(model(x, torch.ones(1), state).output, before)


def test_cache_is_given_up_where_it_takes_too_much_memory(crambin, design, monkeypatch):
    model = ProteinMPNN(design(crambin), cache="auto")
    assert "keys" in model.init(8)
    monkeypatch.setattr("fastguide.models.protein_mpnn.model.total_bytes", lambda device: 4 * 8 * 46 * 1024)
    assert "keys" in model.init(7)
    assert "keys" not in model.init(8)


def test_modes_of_the_caller_are_left_alone(model):
    x = torch.full((1, 46), MASK)
    expected = model(x, torch.ones(1)).output
    random_state = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(x, torch.ones(1)).output, expected)
    with torch.inference_mode():
        assert torch.equal(model(x, torch.ones(1)).output, expected)
    model.nll(torch.zeros(1, 46, dtype=torch.int64))
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), random_state)
