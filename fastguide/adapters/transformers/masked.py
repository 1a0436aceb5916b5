"""Masked language models as masked diffusion, guided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastguide.adapters._seeds import torch_seed
from fastguide.adapters.transformers.output import GuidedOutput, population
from fastguide.guidance.protocol import Guidance
from fastguide.memory import Memory
from fastguide.models.protocol import Prediction, State
from fastguide.models.transformers import MaskedLM
from fastguide.ops._checks import count
from fastguide.processes.masked import MaskedProcess
from fastguide.sample import sample
from fastguide.values.protocol import Value


def fill_mask(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    reward: Callable[..., Any],
    guidance: Guidance,
    value: Value | None = None,
    tokenizer: Any = None,
    mask_token_id: int | None = None,
    bad_token_ids: Sequence[int] | None = None,
    steps: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_return_sequences: int = 1,
    particles: int | None = None,
    seed: int | None = None,
    memory: Memory | int | str = "auto",
    progress: bool = False,
    return_dict_in_generate: bool = False,
) -> Tensor | GuidedOutput:
    """Fill the masks of ``input_ids`` in by a masked language model, in random order, towards a reward.

    The masked model is run as masked diffusion: every step reveals as many positions of a sequence as any other.

    Args:
        model: a model whose class is named ``…ForMaskedLM``.
        input_ids: ``[G, L]`` tokens, ``mask_token_id`` where one is to be found, special tokens included.
        attention_mask: ``[G, L]``, 0 at padding.
        reward: sees texts where there is a tokenizer, else tokens ``[n, L]`` as they are returned.
        guidance: see `fastguide.sample`.
        value: the look-ahead; the reward of the most probable tokens where None.
        tokenizer: tells ``mask_token_id`` and ``bad_token_ids`` where they are not given.
        mask_token_id: the mask.
        bad_token_ids: tokens that are never drawn; the tokenizer's special ones where None.
        steps: of the diffusion; as many as there are masks where None, one position a step.
        temperature: divides the logits; 0 takes the most probable token.
        top_k: draw among so many most probable tokens.
        top_p: draw among the most probable tokens that hold this share of the probability.
        num_return_sequences: sequences a row of ``input_ids``.
        particles: see `generate`.
        seed: likewise.
        memory: see `fastguide.sample`.
        progress: show how far it is.
        return_dict_in_generate: return a `GuidedOutput`.

    Returns:
        ``[G * num_return_sequences, L]`` int64 tokens, or a `GuidedOutput`.
    """
    if mask_token_id is None:
        mask_token_id = getattr(tokenizer, "mask_token_id", None)
    rows = count("num_return_sequences", num_return_sequences)
    seen = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if seen.shape != input_ids.shape or input_ids.ndim != 2:
        raise ValueError(
            f"attention_mask: expected the shape of input_ids [G, L], got {list(seen.shape)} and {list(input_ids.shape)}"
        )
    denoiser = _Infilling(model, tokenizer, mask_token_id)
    assert mask_token_id is not None
    home = denoiser.place.device
    masks = int((input_ids == mask_token_id).sum(1).max())
    if masks == 0:
        raise ValueError(f"input_ids: no token is the mask, {mask_token_id}; there is nothing to fill in")
    if bad_token_ids is None:
        bad_token_ids = getattr(tokenizer, "all_special_ids", ())
    bias = torch.zeros(denoiser.vocab, device=home)
    bias[denoiser.place[[i for i in bad_token_ids if i != mask_token_id]]] = -torch.inf
    process = MaskedProcess(
        input_ids.shape[1], denoiser.vocab, steps or masks, reveal="count", temperature=temperature, top_k=top_k,
        top_p=top_p,
    )  # fmt: skip
    n = population(particles, rows, guidance)
    # Rows with the same padding share one condition, and so the calls of the reward.
    shared: dict[tuple[bool, ...], Tensor] = {}
    condition = [shared.setdefault(tuple(row.tolist()), row) for row in seen.bool().to(home)]

    def decode(x0: Tensor) -> Any:
        ids = denoiser.ids(x0)
        return ids if tokenizer is None else tokenizer.batch_decode(ids, skip_special_tokens=True)

    result = sample(
        process, denoiser, reward, guidance, value=value, particles=n, groups=len(input_ids), condition=condition,
        x_init=denoiser.place[input_ids.to(home)].repeat_interleave(n, 0), bias=bias, decode=decode,
        seed=torch_seed() if seed is None else seed, memory=memory, progress=progress, device=home,
    )  # fmt: skip
    index = torch.cat([result.draw_indices(rows, group=g) for g in range(result.groups)])
    sequences = denoiser.ids(result.samples[index]).to(input_ids.device)
    return GuidedOutput(sequences, result.rewards[index], result) if return_dict_in_generate else sequences


class _Infilling(MaskedLM):
    """A masked model of all tokens, special ones included; the condition of a group says which positions are attended to."""

    def __init__(self, model: Any, tokenizer: Any, mask: int | None) -> None:
        size = int(getattr(getattr(model, "config", None), "vocab_size", 0))
        super().__init__(model, tokenizer, tokens=[i for i in range(size) if i != mask], mask=mask)
        self.place = torch.empty(size, dtype=torch.int64, device=self._ids.device)
        self.place[self._ids] = torch.arange(size, device=self._ids.device)

    def ids(self, x: Tensor) -> Tensor:
        """Return the model's ids of states."""
        return self._ids[x]

    def init(self, n: int, condition: Any = None) -> State:
        return condition.expand(n, -1)

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        seen = state if rows is None else state[rows]
        logits = self.model(input_ids=self._ids[x], attention_mask=seen.long()).logits
        return Prediction(logits[..., self._ids[:-1]], seen)
