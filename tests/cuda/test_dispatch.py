"""Which calls are CUDA's."""

from __future__ import annotations

import pytest
import torch

from fastguide import config, cuda, ops
from fastguide.cuda import _module
from fastguide.errors import BackendUnavailable

RULES = ("systematic", "stratified", "multinomial", "residual", "argmax", "topk", "gumbel_topk")
GPU = torch.device("cuda")


def test_every_launcher_says_what_it_takes():
    x = torch.zeros(4)
    several = [rule for code, rule in enumerate(RULES) if cuda.launcher("select", (x, 3, code))]
    one = [rule for code, rule in enumerate(RULES) if cuda.launcher("select", (x, 1, code))]
    assert several == ["systematic", "stratified", "argmax"]
    assert one == ["systematic", "stratified", "multinomial", "residual", "argmax"]
    adaptive = [
        r for code, r in enumerate(RULES) if cuda.launcher("reweight_select", ([x], None, 1.0, None, 1.0, code))
    ]
    assert adaptive == ["systematic", "stratified"]
    assert cuda.launcher("move", ()).__name__ == "move"
    assert cuda.launcher("unique", ()).__name__ == "unique"
    assert cuda.launcher("masked_step", ()) is None


def test_without_the_extension_there_are_none(monkeypatch):
    monkeypatch.setattr(_module, "_cuda", None)
    monkeypatch.setattr(_module, "_reason", "no such module", raising=False)
    assert not cuda.available()
    assert cuda.launcher("move", ()) is None
    with pytest.raises(BackendUnavailable, match=r"FASTGUIDE_CUDA=ON.*docs/gpu\.md"):
        _module.module()


def test_a_gpu_chooses_cuda_where_the_operation_has_some_of_it(monkeypatch):
    there = {"triton", "fastguide._cuda"}
    monkeypatch.setattr(config, "_has", lambda module: module in there)
    assert config.choose_backend(GPU) == "triton"
    assert config.choose_backend(GPU, cuda=True) == "cuda"
    assert config.choose_backend(GPU, "triton", cuda=True) == "triton"
    assert config.choose_backend(GPU, "cuda") == "triton"
    assert config.choose_backend(torch.device("cpu"), cuda=True) == "cpu"
    with config.backend("cuda"):
        assert config.choose_backend(GPU, cuda=True) == "cuda"
        assert config.choose_backend(GPU) == "triton"
    there.remove("fastguide._cuda")
    assert config.choose_backend(GPU, cuda=True) == "triton"
    there.clear()
    assert config.choose_backend(GPU, cuda=True) == "torch"


def test_operations_agree_on_a_gpu(where):
    if where != "gpu":
        return
    x = torch.randn(3, 9_000, device=GPU)
    for order in ("sorted", "slots"):
        results = [ops.select(x, order=order, backend=backend) for backend in (None, "cuda", "triton")]
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    ancestors = results[0].ancestors
    moved = [ops.move(x.view(-1, 1), ancestors, backend=backend) for backend in ("cuda", "triton")]
    assert torch.equal(*moved)
    kinds = [ops.unique(ancestors.view(-1, 1), backend=backend) for backend in ("cuda", "triton")]
    assert all(torch.equal(a, b) for a, b in zip(*kinds, strict=True))
