"""What ``masked_step`` and ``masked_mode`` check alike, and how a kernel's status becomes an error."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from fastguide.ops import _checks, _native

_TOKENS = (torch.int64, torch.int32)
_LOGITS = (torch.float32, torch.float16, torch.bfloat16)


def check_states(tokens: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Check tokens ``[U, L]`` against logits ``[U, L, V]`` and return them laid out as the kernels read them."""
    if tokens.dtype not in _TOKENS:
        raise TypeError(f"tokens: expected int64 or int32, got {tokens.dtype}")
    if logits.dtype not in _LOGITS:
        raise TypeError(f"logits: expected float32, float16 or bfloat16, got {logits.dtype}")
    if tokens.dim() != 2:
        raise ValueError(f"tokens: expected shape [U, L], got {list(tokens.shape)}")
    if logits.dim() != 3 or logits.shape[:2] != tokens.shape or logits.shape[2] == 0:
        raise ValueError(
            f"logits: expected shape [U, L, V] = [{tokens.shape[0]}, {tokens.shape[1]}, V >= 1], got "
            f"{list(logits.shape)}"
        )
    if tokens.device != logits.device:
        raise ValueError(f"logits: on {logits.device}, but tokens are on {tokens.device}")
    if logits.stride(2) != 1:
        logits = logits.contiguous()
    return tokens.contiguous(), logits


def check_temperature(temperature: float) -> float:
    """Return the inverse temperature, 0 for a temperature of 0."""
    if temperature == 0:
        return 0.0
    if not 1e-30 <= temperature <= 1e30:
        raise ValueError(f"temperature: expected 0 (largest logit) or a number in [1e-30, 1e30], got {temperature}")
    return 1.0 / temperature


def check_bias(bias: Tensor | None, logits: Tensor) -> Tensor | None:
    """Check a bias ``[V]`` or ``[L, V]`` and return it as contiguous float32."""
    if bias is None:
        return None
    if not bias.is_floating_point():
        raise TypeError(f"bias: expected a floating-point tensor, got {bias.dtype}")
    if bias.shape != logits.shape[2:] and bias.shape != logits.shape[1:]:
        length, vocab = logits.shape[1:]
        raise ValueError(
            f"bias: expected shape [V] = [{vocab}] or [L, V] = [{length}, {vocab}], got {list(bias.shape)}"
        )
    _check_device("bias", bias, logits)
    return bias.to(torch.float32).contiguous()


def check_indices(name: str, indices: Tensor | None, count: int | None, like: Tensor) -> Tensor | None:
    """Check an int32 or int64 vector of ``count`` entries (any number of them where None)."""
    if indices is None:
        return None
    if indices.dtype not in _TOKENS:
        raise TypeError(f"{name}: expected int64 or int32, got {indices.dtype}")
    if indices.dim() != 1 or (count is not None and len(indices) != count):
        raise ValueError(f"{name}: expected shape [{'P' if count is None else count}], got {list(indices.shape)}")
    _check_device(name, indices, like)
    return indices.contiguous()


def check_seed(seed: int | Tensor, particles: int, like: Tensor) -> tuple[Tensor | None, int]:
    """Check an int (one group) or ``[G]`` int64 seeds with ``G`` dividing the number of particles."""
    if not isinstance(seed, Tensor):
        return _checks.seed(seed, 1, like.device)
    if seed.dim() != 1 or len(seed) == 0 or particles % len(seed) != 0:
        raise ValueError(
            f"seed: expected a whole number or an int64 tensor [G] with G dividing the {particles} particles, got "
            f"shape {list(seed.shape)}"
        )
    seeds, number = _checks.seed(seed, len(seed), like.device)
    return (None if seeds is None else seeds.contiguous()), number


def check_lengths(lengths: Tensor | None, seeds: Tensor | None, length: int, like: Tensor) -> Tensor | None:
    """Check lengths ``[G]``, one a group, and return them as int64."""
    lengths = check_indices("lengths", lengths, 1 if seeds is None else len(seeds), like)
    return None if lengths is None else lengths.to(torch.int64).clamp(0, length)


def _check_device(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.device != like.device:
        raise ValueError(f"{name}: on {tensor.device}, but the states are on {like.device}")


def raise_status(
    code: int,
    index: int,
    tokens: Tensor,
    logits: Tensor,
    bias: Tensor | None,
    ancestors: Tensor | None,
    slots: Tensor | None,
    branch: int,
) -> NoReturn:
    """Raise the error that a kernel's status stands for (the index as ``csrc/cpu/masked.h`` numbers it)."""
    states, length, vocab = logits.shape
    particles = states if ancestors is None else len(ancestors)
    if code == _native.OUT_OF_MEMORY:
        raise MemoryError("masked_step: no memory for its workspace; use fewer particles or children a call")
    if code == _native.OUT_OF_RANGE:
        if index < particles and ancestors is not None:
            raise IndexError(f"ancestors[{index}] is {int(ancestors[index])}, outside the {states} rows of tokens")
        if index < 2 * particles:
            number = None if slots is None else int(slots[index - particles])
            raise IndexError(
                f"slots[{index - particles}] is {number}; with branch = {branch} the slots of children pass 32 bits"
            )
        u, at = divmod(index - 2 * particles, length)
        raise ValueError(
            f"tokens[{u}, {at}] is {int(tokens[u, at])}; expected 0 to {vocab - 1}, or {vocab} for the mask"
        )
    child, at = divmod(index, length)
    p, m = divmod(child, branch)
    u = p if ancestors is None else int(ancestors[p])
    where = f"met by child [{p}, {m}] at position {at}"
    row = logits[u, at].float()
    if code == _native.DEGENERATE:
        what = "logits" if bias is None else "logits + bias"
        raise ValueError(f"{what}[{u}, {at}] forbids every token (all -inf or below -1e9), {where}; allow at least one")
    if bias is not None:
        row = row + (bias[at] if bias.dim() == 2 else bias)
    bad = ~(row < torch.inf)
    v = int((bad if bool(bad.any()) else row == row.amax()).nonzero()[0])
    raise ValueError(
        f"logits[{u}, {at}, {v}] is {float(logits[u, at, v])}, {where}; after bias and temperature a logit must be "
        "-inf or a number up to 1e9"
    )
