from __future__ import annotations

import importlib.util

import pytest
import torch

from fastguide.deferred import deferred
from fastguide.errors import BackendUnavailable
from fastguide.rewards import PLDDT
from tests.test_deferred import no_host_reads

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"

pytestmark = [pytest.mark.weights, pytest.mark.usefixtures("alphapredict")]


@pytest.fixture(scope="module")
def plddt(alphapredict):
    return PLDDT()


@pytest.mark.parametrize(("version", "native"), [("V7", 91.3), ("V6", 92.2)])
def test_native_ubiquitin_has_its_known_score(version, native, tokens):
    assert PLDDT(version)(tokens(UBIQUITIN)).item() == pytest.approx(native, abs=0.05)


def test_agrees_with_the_network_of_the_package(plddt, random_tokens):
    spec = importlib.util.find_spec("alphaPredict")
    path = spec.origin.replace("__init__.py", "backend/brnn_architecture.py")
    loader = importlib.util.spec_from_file_location("brnn_architecture", path)
    package = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(package)
    network = package.BRNN_MtM(20, 100, 2, 1, "cpu")
    network.load_state_dict(torch.load(plddt.weights, map_location="cpu", weights_only=True))
    x0 = random_tokens(5, 40)
    with torch.no_grad():
        expected = network(torch.nn.functional.one_hot(x0, 20).float())[..., 0]
    # float32 of values near 100, different orders of summation.
    torch.testing.assert_close(plddt.per_residue(x0), expected, rtol=0, atol=1e-3)


def test_shapes_and_the_mean(plddt, random_tokens):
    x0 = random_tokens(70, 30)
    values, residues = plddt(x0), plddt.per_residue(x0)
    assert (values.shape, values.dtype, residues.shape) == ((70,), torch.float32, (70, 30))
    torch.testing.assert_close(values, residues.mean(dim=1))
    assert plddt(x0[:0]).shape == (0,)
    assert plddt.per_residue(x0[:0]).shape == (0, 30)


def test_nothing_is_read_where_the_host_may_not(plddt, random_tokens, monkeypatch):
    x0 = random_tokens(70, 30)
    expected = plddt(x0)
    with deferred(), no_host_reads(monkeypatch):
        found = plddt(x0)
    assert torch.equal(found, expected)
    x0[3, 4] = 20
    with pytest.raises(ValueError, match=r"plddt: token 20 at \[3, 4\] is no amino acid"), deferred():
        plddt(x0)


@pytest.mark.parametrize("length", [1, 46, 76])
def test_a_value_has_the_same_bits_in_any_batch_place_and_number_of_threads(plddt, length, random_tokens):
    assert plddt.batch_invariant
    x0 = random_tokens(100, length)
    expected = plddt(x0)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for n in (1, 7, 64, 100):
                assert torch.equal(plddt(x0[:n]), expected[:n])
            assert torch.equal(plddt(x0.flip(0)), expected.flip(0))
    finally:
        torch.set_num_threads(threads)


def test_chains_are_scored_by_themselves_and_averaged_by_residue(plddt, random_tokens):
    x0 = random_tokens(3, 30)
    value = PLDDT(chains=(10, 20))(x0)
    torch.testing.assert_close(value, (10 * plddt(x0[:, :10]) + 20 * plddt(x0[:, 10:])) / 30)
    with pytest.raises(ValueError, match=r"chains of \[10, 10\] residues need 20 columns, got 30"):
        PLDDT(chains=(10, 10))(x0)


def test_soft_equals_hard_on_a_one_hot_and_has_gradients(plddt, random_tokens):
    x0 = random_tokens(4, 25)
    one_hot = torch.nn.functional.one_hot(x0, 20).float().requires_grad_()
    value = plddt.soft(one_hot)
    torch.testing.assert_close(value.detach(), plddt(x0), rtol=0, atol=1e-3)
    value.sum().backward()
    assert one_hot.grad.abs().sum(dim=(1, 2)).gt(0).all()
    # The gradient is right where it predicts a finite difference.
    step = 1e-2 * torch.nn.functional.one_hot(x0.roll(1, dims=1), 20)
    with torch.no_grad():
        difference = (plddt.soft(one_hot + step) - plddt.soft(one_hot - step)) / 2
    torch.testing.assert_close((one_hot.grad * step).sum(dim=(1, 2)), difference, rtol=0.05, atol=1e-3)


def test_a_soft_sample_may_be_given_in_place_of_tokens(plddt, random_tokens):
    one_hot = torch.nn.functional.one_hot(random_tokens(2, 9), 20).float()
    assert torch.equal(plddt(one_hot), plddt.soft(one_hot))


def test_making_and_calling_one_leaves_the_random_state_alone(random_tokens):
    x0 = random_tokens(2, 9)
    before = torch.random.get_rng_state()
    PLDDT()(x0)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("x0", "error", "message"),
    [
        (["MKV"], TypeError, "plddt: expected int64 tokens .*, got list; leave out decode="),
        (torch.zeros(2, 5), TypeError, "got float32"),
        (torch.zeros(2, 5, dtype=torch.int32), TypeError, "got int32"),
        (torch.zeros(5, dtype=torch.int64), ValueError, r"got shape \[5\]"),
        (torch.zeros(2, 0, dtype=torch.int64), ValueError, r"got shape \[2, 0\]"),
        (torch.tensor([[0, 20]]), ValueError, r"token 20 at \[0, 1\] is no amino acid"),
        (torch.tensor([[0, 1], [-1, 0]]), ValueError, r"token -1 at \[1, 0\]"),
        (torch.zeros(1, 5, 21), ValueError, r"expected a floating one-hot \[n, L, 20\], got float32 \[1, 5, 21\]"),
    ],
)
def test_wrong_samples_are_refused(x0, error, message, plddt):
    with pytest.raises(error, match=message):
        plddt(x0)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"version: 'V99' is not among .*V6, V7"):
        PLDDT("V99")
    with pytest.raises(ValueError, match="rows: expected 1 or more, got 0"):
        PLDDT(rows=0)
    with pytest.raises(ValueError, match="chains: expected positive lengths"):
        PLDDT(chains=(5, 0))


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"pip install --no-deps alphapredict==1\.3\.0"):
        PLDDT()
