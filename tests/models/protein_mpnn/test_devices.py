"""On another device than the CPU: nothing stays behind, nothing is read, and on the way the bits are the CPU's."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import fastguide as fg
from fastguide import graphs
from fastguide.deferred import Deferred, deferred
from fastguide.models import ProteinMPNN
from fastguide.models.protein_mpnn.layers import inference
from fastguide.models.protocol import cat_states
from tests.models.protein_mpnn.test_states import MASK, children_of, random_paths, trajectory
from tests.test_deferred import guarded_run, no_host_reads, same
from tests.test_graphs import Emulated

pytestmark = pytest.mark.weights
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class OneDevice(TorchDispatchMode):
    """Refuses what reads or makes a tensor of main memory, a lone number apart, and counts what it lets pass."""

    passed = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves((args, kwargs, found)):
            if isinstance(leaf, torch.Tensor):
                assert leaf.device.type != "cpu" or leaf.ndim == 0, f"{func} met a tensor of main memory"
        self.passed += 1
        return found


@pytest.fixture
def designed(backbones, crambin, dimer, design):
    """Designs of three lengths, and of 46, 48 and 48 neighbours; the last is tied, some of it fixed."""
    return [design(crambin), design(backbones["1UBI"]), design(dimer, tuple((i, i + 30, i + 46) for i in range(16)))]


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("which", range(3))
def test_without_a_read_the_logits_are_the_same(designed, which, cache, monkeypatch):
    """Generation after generation; what was said with reads goes on without, and the other way round."""
    model = ProteinMPNN(designed[which], cache=cache)
    x, state = torch.full((3, model.length), MASK), model.init(3)
    states = [state, state]
    for generation in range(4):
        rows = torch.randint(len(x), (30,), generator=torch.Generator().manual_seed(generation))
        x = children_of(x, rows, generation)
        expected = model(x, torch.ones(30), states[0], rows)
        with deferred(), no_host_reads(monkeypatch):
            found = model(x, torch.ones(30), states[1], rows)
        assert torch.equal(found.output, expected.output)
        assert torch.equal(found.state["ranks"], expected.state["ranks"])
        assert found.state.keys() == expected.state.keys()
        states = [found.state, expected.state]


@pytest.mark.parametrize("cache", [True, False])
def test_of_designs_that_share_a_batch_the_host_need_not_know_which(designed, cache, monkeypatch):
    model = ProteinMPNN(designed, cache=cache)
    order, seconds = torch.tensor([4, 0, 3, 1, 5, 2]), torch.tensor([2, 5])
    tokens, when = random_paths(6, model.length)
    state, rows = cat_states([model.init(2, each) for each in designed]), order
    for count in (9, 30):
        x = torch.where(when < count, tokens, MASK)[order]
        expected = model(x, None, state, rows)
        with deferred(), no_host_reads(monkeypatch):
            found = model(x, None, state, rows)
            told = model.of(designed[1])(x[seconds], None, state, rows[seconds])
        assert torch.equal(found.output, expected.output)
        assert torch.equal(told.output, expected.output[seconds])
        state, rows = found.state, torch.arange(6)


def test_a_run_of_several_designs_and_rewards_is_not_read_and_can_be_recorded(backbones, crambin, design, monkeypatch):
    both = [design(crambin), design(backbones["1UBI"])]
    model = ProteinMPNN(both)

    def acids(*tokens):
        return fg.rewards.wrap(lambda x0: sum((x0 == t).double().mean(1) for t in tokens), batch_invariant=True)

    rewards = [acids(0, 3), acids(9), acids(0, 3)]

    def run(cuda_graph=False):
        return fg.sample(
            fg.MaskedProcess(76, 20, steps=8), model, [rewards[0], rewards[1], rewards[0]], fg.SMC(alpha=0.05),
            particles=6, groups=3, condition=[both[0], both[1], both[1]], progress=False, cuda_graph=cuda_graph,
        )  # fmt: skip

    expected = run()
    found = guarded_run(run, monkeypatch)
    assert len(set(expected.problems)) == 3
    assert same(found, expected)
    # Each state is computed for its own design and for no other.
    assert found.denoiser_rows == 3 * 6 * 8
    monkeypatch.setattr(graphs, "CudaGraph", Emulated)
    monkeypatch.setattr(Emulated, "replayed", 0)
    with deferred():
        recorded = run(cuda_graph=True)
    assert same(recorded, expected)
    assert Emulated.replayed >= 4


def test_nll_is_not_read(designed, monkeypatch):
    model = ProteinMPNN(designed[2])
    tokens = torch.randint(20, (5, 92), generator=torch.Generator().manual_seed(0))
    expected = model.nll(tokens, orders=2)
    with deferred(), no_host_reads(monkeypatch):
        found = model.nll(tokens, orders=2)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("cache", [True, "auto"])
def test_nothing_stays_in_main_memory(designed, cache):
    """The meta device computes no numbers, but refuses as a GPU does what mixes devices."""
    ready = ProteinMPNN(designed, cache=cache)
    for each in designed:
        ready.init(1, each)
    model = ready.to("meta")
    with deferred(Deferred()), OneDevice() as watch:
        state = cat_states([model.init(40, each) for each in designed])
        assert ("keys" in state) == (cache is True)
        x = torch.full((120, model.length), MASK, device="meta")
        rows = torch.arange(120, device="meta")
        for _ in range(2):
            prediction = model(x, None, state, rows)
            state = prediction.state
            model.key(x, state)
        told = model.of(designed[1])(x, None, state)
        assert told.output.shape == prediction.output.shape == (120, 76, 20)
        assert model.decode(x, designed[2]).shape == (120, 92)
        assert model.decode_soft(torch.zeros(2, 16, 20, device="meta"), designed[2]).shape == (2, 92, 20)
    assert watch.passed > 100
    with deferred(Deferred()):  # the orders are drawn in main memory
        assert model.nll(x[:, :46], condition=designed[0]).device.type == "meta"
    assert ready.device.type == "cpu"


def test_what_a_reward_on_the_host_asks_is_decoded_there(designed):
    model = ProteinMPNN(designed).to("meta")
    x = torch.randint(20, (4, 16))
    expected = ProteinMPNN(designed).decode(x, designed[2])
    assert torch.equal(model.decode(x, designed[2]), expected)
    soft = torch.nn.functional.one_hot(x, 20).float()
    assert torch.equal(model.decode_soft(soft, designed[2]).argmax(2), expected)


def test_a_state_of_another_device_is_refused(designed):
    model = ProteinMPNN(designed[0], device="meta")
    x = torch.full((2, 46), MASK)
    with pytest.raises(
        ValueError, match="x: it is on cpu and the network on meta; make the network with device=, move it"
    ):
        model(x)
    with pytest.raises(ValueError, match="state: it is on cpu and the network on meta"):
        model(x.to("meta"), None, ProteinMPNN(designed[0]).init(2))


def test_errors_come_at_the_end_and_read_nothing_out_of_bounds(designed, monkeypatch):
    model = ProteinMPNN(designed[0], cache=False)
    x, state = torch.full((2, 46), MASK), model.init(2)

    def wrong(call):
        with deferred(), no_host_reads(monkeypatch):
            call()

    beyond, half = torch.where(torch.eye(2, 46) > 0, 1000000, x), x * torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match=r"x: expected tokens 0..20, got 1000000"):
        wrong(lambda: model(beyond, None, state))
    revealed = model(x * 0, None, state).state
    with pytest.raises(ValueError, match="row 1 masks a position that its state has revealed"):
        wrong(lambda: model(half, None, revealed))
    with pytest.raises(ValueError, match=r"tokens: expected 0..19 at designed residues, got 20"):
        wrong(lambda: model.nll(x))


class TestTF32:
    """The switch is one of the process: what is chosen there does not reach our products, and is the same afterwards."""

    @pytest.fixture(autouse=True)
    def _restored(self):
        matmul = torch.backends.cuda.matmul
        before = getattr(matmul, "fp32_precision", None)
        yield
        torch.set_float32_matmul_precision("highest")
        if before is not None:
            matmul.fp32_precision = before

    @pytest.mark.parametrize("precision", ["highest", "high", "medium"])
    def test_of_the_older_setting(self, precision):
        torch.set_float32_matmul_precision(precision)
        with inference(torch.device("cuda")):
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32 == (precision != "highest")
        assert torch.get_float32_matmul_precision() == precision

    @pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch has no such setting")
    def test_of_the_newer_setting(self):
        matmul = torch.backends.cuda.matmul
        matmul.fp32_precision = "tf32"
        with inference(torch.device("cuda")):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"

    def test_after_an_error(self):
        torch.backends.cuda.matmul.allow_tf32 = True
        with pytest.raises(KeyError), inference(torch.device("cuda")):
            raise KeyError
        assert torch.backends.cuda.matmul.allow_tf32


@GPU
class TestOnAGPU:
    def test_logits_are_those_of_the_cpu_up_to_rounding(self, designed):
        tokens, when = random_paths(50, 76)
        here, there = ProteinMPNN(designed[1]), ProteinMPNN(designed[1], device="cuda")
        expected = trajectory(here, tokens, when, [0, 20, 50])
        found = trajectory(there, tokens.cuda(), when.cuda(), [0, 20, 50])
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.output.cpu(), theirs.output, rtol=0.0, atol=1e-3)

    @pytest.mark.parametrize("defer", [False, True])
    def test_a_row_has_the_same_bits_in_any_batch(self, designed, defer):
        model = ProteinMPNN(designed[1], device="cuda", cache=True)
        tokens, when = (leaf.cuda() for leaf in random_paths(64, 76))
        x, rows = torch.where(when < 30, tokens, MASK), torch.tensor([8, 3, 60, 0, 11], device="cuda")
        with deferred() if defer else contextlib.nullcontext():
            state = model.init(64)
            every, few = model(x, None, state), model(x[rows], None, state, rows)
        assert torch.equal(few.output, every.output[rows])

    def test_a_run_waits_for_nothing(self, designed):
        """Between the first step and the last."""
        model = ProteinMPNN(designed[:2], device="cuda")
        calls = type(model).predict

        def watched(self, *args, **options):
            torch.cuda.set_sync_debug_mode("error")
            try:
                return calls(self, *args, **options)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ProteinMPNN, "predict", watched)
            result = fg.sample(
                fg.MaskedProcess(76, 20, steps=4), model, lambda x0: (x0 == 3).double().mean(1), fg.SMC(alpha=0.05),
                particles=64, groups=2, condition=designed[:2], device="cuda", progress=False,
            )  # fmt: skip
        assert result.rewards.isfinite().all()
