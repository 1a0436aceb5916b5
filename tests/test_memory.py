import pytest
import torch

import fastguide as fg
from fastguide.memory import Memory, available_bytes, parse_bytes, resolve_memory, total_bytes


@pytest.mark.parametrize(
    ("text", "expected"), [("512MB", 2**29), ("2 GiB", 2**31), ("2g", 2**31), ("1e6", 10**6), ("0.5kb", 512)]
)
def test_parse_bytes(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "2 parsecs", "1.2.3GB", "1e400"])
def test_parse_bytes_refuses(text):
    with pytest.raises(ValueError, match="memory"):
        parse_bytes(text)


def test_auto_is_a_part_of_what_is_available():
    assert 0 < Memory().bytes <= available_bytes()


GPU = torch.device("cuda", 1)


@pytest.fixture
def gpu(monkeypatch):
    """80 GB of a GPU, of which 30 are free and torch keeps 10 for 4 that are in use; counts how often that is asked."""
    asked = []

    def mem_get_info(device):
        asked.append(device)
        return 30 * 2**30, 80 * 2**30

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 10 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4 * 2**30)
    return asked


class TestOnAGPU:
    def test_auto_is_a_part_of_what_is_free_there(self, gpu):
        assert available_bytes(GPU) == 36 * 2**30
        assert total_bytes(GPU) == 80 * 2**30
        assert Memory(micro_batch=3).on(GPU) == Memory(9 * 2**30, micro_batch=3)
        assert gpu == [GPU] * 3

    def test_another_limit_is_what_it_says(self, gpu):
        assert Memory("2GB").on(GPU).bytes == 2**31
        assert Memory(7).on(GPU) == Memory(7)
        assert gpu == []

    def test_main_memory_is_not_asked_of_it(self, gpu):
        assert Memory().on(torch.device("cpu")).bytes <= available_bytes()
        assert gpu == []

    def test_a_full_device_leaves_a_limit(self, gpu, monkeypatch):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 1))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4 * 2**30)
        assert Memory().on(GPU).limit == 1


def test_auto_is_read_once_in_a_run(monkeypatch):
    """Also where it makes several passes."""
    asked = []
    monkeypatch.setattr("fastguide.memory.available_bytes", lambda device: asked.append(device) or 2**30)
    process = fg.MaskedProcess(length=3, vocab=2, steps=3)
    guidance = fg.ParticleGibbs(alpha=1.0, sweeps=3)
    fg.sample(
        process,
        lambda x, t: torch.zeros(len(x), 3, 2),
        lambda x: x.sum(1).double(),
        guidance,
        particles=8,
        progress=False,
    )
    assert asked == [torch.device("cpu")]


@pytest.mark.parametrize("settings", [{"limit": 0}, {"limit": True}, {"micro_batch": 0}, {"call_rows": 1.5}])
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match="memory"):
        Memory(**settings)


def test_resolve():
    assert resolve_memory("2GB").bytes == 2**31
    assert resolve_memory(Memory(micro_batch=3)).micro_batch == 3
    with pytest.raises(TypeError, match="memory"):
        resolve_memory(1.5)
