"""What ``masked_step`` and ``masked_mode`` check alike, and how a kernel's status becomes an error."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from fastguide.deferred import deferring
from fastguide.ops import _checks, _native
from fastguide.reference.exp import MAX_LOG_WEIGHT

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


def check_probability(name: str, value: float | Tensor, like: Tensor) -> tuple[Tensor | None, float]:
    """Return ``(None, number)`` for a number in ``[0, 1]``, and for a tensor of one, unread, float64 and 0."""
    if isinstance(value, Tensor) and (value.dim() > 0 or value.device == like.device):
        if not value.is_floating_point() or value.numel() != 1:
            raise TypeError(
                f"{name}: expected a number or a floating-point tensor of one, got {value.dtype} of shape "
                f"{list(value.shape)}"
            )
        _check_device(name, value, like)
        return value.detach().to(torch.float64), 0.0
    number = float(value)
    return None, number if 0.0 <= number <= 1.0 else _number_in_unit(name, number)


def probability_for(backend: str, name: str, tensor: Tensor) -> Any:
    """Return the probability of a tensor as a backend takes it: the Triton kernels read it themselves."""
    if backend == "triton":
        if not deferring():
            _number_in_unit(name, float(tensor))
        return tensor
    return _number_in_unit(name, float(tensor))


def _number_in_unit(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}: expected a number in [0, 1], got {value}")
    return value


def check_reveal(
    probability: float | Tensor | None, count: int | Tensor | None, order: str, like: Tensor
) -> tuple[Tensor | None, float, Tensor | None, int]:
    """Return the probability as `check_probability` does, the counts of groups, and the count for all.

    The last is -1 where a probability decides.
    """
    if order not in ("random", "confidence"):
        _checks.choice("order", order, ("random", "confidence"))
    if (probability is None) == (count is None):
        raise ValueError("reveal_probability, reveal_count: give exactly one of them")
    if probability is not None:
        if order != "random":
            raise ValueError(f'order: "{order}" ranks positions, so give reveal_count instead of reveal_probability')
        return *check_probability("reveal_probability", probability, like), None, -1
    if isinstance(count, Tensor) and (count.dim() > 0 or count.device == like.device):
        return None, 0.0, count, 0
    if count is None or isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"reveal_count: expected a whole number or a tensor [G] of them, got {count!r}")
    n = operator.index(count)
    if n < 0:
        raise ValueError(f"reveal_count: expected at least 0, got {n}")
    return None, 0.0, None, min(n, _checks.INT32_MAX)


def check_truncation(top_k: int | None, top_p: float | None) -> tuple[int, float]:
    """Return how many tokens to keep, 0 for all, and the share of their probability."""
    k = 0 if top_k is None else _checks.count("top_k", top_k)
    if top_p is None:
        return k, 1.0
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p: expected a number in (0, 1], got {top_p}")
    return k, float(top_p)


def check_shift(shift: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Check a shift ``[U, L, V]`` and return it contiguous along ``V``."""
    if shift.dtype != torch.float32:
        raise TypeError(f"shift: expected float32, got {shift.dtype}; convert with .float()")
    if shift.shape != logits.shape:
        raise ValueError(f"shift: expected the shape of logits, {list(logits.shape)}, got {list(shift.shape)}")
    if temperature == 0:
        raise ValueError("shift: a draw at temperature 0 is certain and cannot be shifted; give a positive temperature")
    _check_device("shift", shift, logits)
    return shift if shift.stride(2) == 1 else shift.contiguous()


def check_frozen(frozen: Tensor, tokens: Tensor) -> Tensor:
    """Check a mask ``[L]`` or ``[U, L]`` and return it contiguous."""
    if frozen.dtype != torch.bool:
        raise TypeError(f"frozen: expected bool, got {frozen.dtype}")
    if frozen.shape != tokens.shape and frozen.shape != tokens.shape[1:]:
        states, length = tokens.shape
        raise ValueError(
            f"frozen: expected shape [L] = [{length}] or [U, L] = [{states}, {length}], got {list(frozen.shape)}"
        )
    _check_device("frozen", frozen, tokens)
    return frozen.contiguous()


def check_out(out: object, shape: tuple[int, ...], inputs: Sequence[Tensor | None]) -> None:
    """Raise unless ``out`` can take a result of this shape; ``inputs`` are the tokens and all else that is read."""
    tokens = inputs[0]
    assert tokens is not None
    _checks.output("out", out, shape, tokens.dtype, tokens)
    if isinstance(out, Tensor) and not torch.compiler.is_compiling():
        _checks.apart("out", (out,), inputs)


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
    if not isinstance(seed, Tensor) or seed.dim() == 0:
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
    return None if lengths is None else check_per_group("lengths", lengths, seeds, like).clamp(0, length)


def check_per_group(name: str, numbers: Tensor, seeds: Tensor | None, like: Tensor) -> Tensor:
    """Check an integer tensor ``[G]``, or of no dimension for all groups, and return it as int64 ``[G]``."""
    groups = 1 if seeds is None else len(seeds)
    if numbers.dim() == 0:
        numbers = numbers.expand(groups)
    checked = check_indices(name, numbers, groups, like)
    assert checked is not None
    return checked.to(torch.int64)


def refuse_negative(name: str, numbers: Tensor) -> None:
    """Raise where a number is negative."""
    if bool((numbers < 0).any()):
        g = int((numbers < 0).to(torch.uint8).argmax())
        raise ValueError(f"{name}[{g}] is {int(numbers[g])}; expected at least 0")


def _check_device(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.device != like.device:
        raise ValueError(f"{name}: on {tensor.device}, but the states are on {like.device}")


def raise_status(
    code: int,
    index: int,
    tokens: Tensor,
    logits: Tensor,
    bias: Tensor | None,
    shift: Tensor | None,
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
    if bias is not None:
        row = row + (bias[at] if bias.dim() == 2 else bias)
    refused = ~(row < torch.inf)
    if code == _native.DEGENERATE:
        what = " + ".join(name for name, x in (("logits", logits), ("bias", bias), ("shift", shift)) if x is not None)
        raise ValueError(f"{what}[{u}, {at}] forbids every token (all -inf or below -1e9), {where}; allow at least one")
    if shift is not None and not bool(refused.any()) and float(row.amax()) <= MAX_LOG_WEIGHT:
        shifted = row + shift[u, at]
        v = int((shifted.nan_to_num(torch.inf) == shifted.nan_to_num(torch.inf).amax()).nonzero()[0])
        raise ValueError(
            f"shift[{u}, {at}, {v}] is {float(shift[u, at, v])}, {where}; with it a scaled logit must be -inf or a "
            "number up to 1e9"
        )
    v = int((refused if bool(refused.any()) else row == row.amax()).nonzero()[0])
    raise ValueError(
        f"logits[{u}, {at}, {v}] is {float(logits[u, at, v])}, {where}; after bias and temperature a logit must be "
        "-inf or a number up to 1e9"
    )
