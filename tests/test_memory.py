import pytest

from fastguide.memory import Memory, available_bytes, parse_bytes, resolve_memory


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


@pytest.mark.parametrize("settings", [{"limit": 0}, {"limit": True}, {"micro_batch": 0}, {"call_rows": 1.5}])
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match="memory"):
        Memory(**settings)


def test_resolve():
    assert resolve_memory("2GB").bytes == 2**31
    assert resolve_memory(Memory(micro_batch=3)).micro_batch == 3
    with pytest.raises(TypeError, match="memory"):
        resolve_memory(1.5)
