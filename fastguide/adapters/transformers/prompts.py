"""Prompts of several lengths, as `generate` pads them and as the process has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Prompts:
    """Prompts ``[G, W]`` as `generate` has them, and what is to follow.

    Attributes:
        rows: the tokens of each, without padding.
        new: most tokens that follow.
        eos: tokens that end a sequence, None where there are none.
        pad: what stands after them.
    """

    def __init__(self, input_ids: Tensor, mask: Tensor | None, config: Any, repeats: int) -> None:
        seen = torch.ones_like(input_ids) if mask is None else mask[::repeats].to(input_ids.device)
        self.rows = [row[keep.bool()].tolist() for row, keep in zip(input_ids, seen, strict=True)]
        self.device, self.width = input_ids.device, input_ids.shape[1]
        self.longest = max(map(len, self.rows))
        self.new = int(config.max_length) - self.width
        eos, pad = config._eos_token_tensor, config._pad_token_tensor
        self.eos = None if eos is None else tuple(eos.tolist())
        if pad is None:
            raise ValueError(
                "pad_token_id: guidance reads unfinished sequences, and needs to know what stands in their rest"
            )
        self.pad = int(pad)

    @property
    def lengths(self) -> list[int]:
        """Most tokens of a sequence, prompt by prompt."""
        return [len(row) + self.new for row in self.rows]

    def x_init(self, mask: int) -> Tensor:
        """Return the states ``[G, L]`` to start from."""
        length = self.longest + self.new
        states = [row + [mask] * (length - len(row)) for row in self.rows]
        return torch.tensor(states, dtype=torch.int64, device=self.device)

    def pad_left(self, x0: Tensor) -> Tensor:
        """Return samples ``[n, l]`` of one prompt as ``[n, W + new]``."""
        return torch.nn.functional.pad(x0, (self.width + self.new - x0.shape[1], 0), value=self.pad)

    def new_tokens(self, samples: Tensor) -> Tensor:
        """Return what follows the prompts in samples ``[G * k, L]``, k a prompt, up to the last end."""
        per_prompt = samples.view(len(self.rows), -1, samples.shape[1])
        parts = [x[:, len(row) : len(row) + self.new] for x, row in zip(per_prompt, self.rows, strict=True)]
        found = torch.cat(parts)
        if self.eos is None:
            return found
        ends = torch.isin(found, torch.tensor(self.eos, device=found.device))
        longest = torch.where(ends.any(1), ends.int().argmax(1) + 1, self.new).max()
        return found[:, : int(longest)]
