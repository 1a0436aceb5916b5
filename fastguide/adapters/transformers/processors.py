"""Logits processors of the ``transformers`` package as part of the pretrained law."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastguide.adapters.transformers.prompts import Prompts
from fastguide.models.protocol import Denoiser, Prediction, State

_ROW_BY_ROW = {
    "EpsilonLogitsWarper",
    "EtaLogitsWarper",
    "ExponentialDecayLengthPenalty",
    "ForcedBOSTokenLogitsProcessor",
    "ForcedEOSTokenLogitsProcessor",
    "InfNanRemoveLogitsProcessor",
    "LogitNormalization",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "MinPLogitsWarper",
    "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "PrefixConstrainedLogitsProcessor",
    "RepetitionPenaltyLogitsProcessor",
    "SequenceBiasLogitsProcessor",
    "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor",
    "TemperatureLogitsWarper",
    "TopHLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TypicalLogitsWarper",
    "WatermarkLogitsProcessor",
}
"""The package's own processors whose scores of a row depend on its prefix and its scores."""


def split(processors: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the processors to call, and settings of the process for the temperature and truncation at their end."""
    left, cut = list(processors), {}
    for kind, name in (
        ("TopPLogitsWarper", "top_p"),
        ("TopKLogitsWarper", "top_k"),
        ("TemperatureLogitsWarper", "temperature"),
    ):
        if not left or type(left[-1]).__name__ != kind:
            continue
        warper = left[-1]
        least, fill = getattr(warper, "min_tokens_to_keep", 1), getattr(warper, "filter_value", -torch.inf)
        # A nucleus of no mass keeps the most probable token, which their warper can be asked for and the process cannot.
        if fill == -torch.inf and (name == "top_k" or least == 1) and getattr(warper, name) > 0:
            cut[name] = getattr(left.pop(), name)
    for processor in left:
        theirs = type(processor)
        if theirs.__module__.startswith("transformers.") and theirs.__name__ not in _ROW_BY_ROW:
            raise ValueError(
                f"logits_processor: {theirs.__name__} is no function of a prefix and its scores, and guided generation cannot "
                "honour it; leave it, or the option that asks for it, out"
            )
    return left, cut


class Processed(Denoiser):
    """A causal model whose scores processors change. They see prefixes as `generate` shows them, padded on the left."""

    def __init__(self, model: Denoiser, processors: list[Any], prompts: Prompts, vocab: int) -> None:
        self.model, self.prompts, self.vocab = model, prompts, vocab
        self.processors = [self._of_any_rows(p) for p in processors]

    def _of_any_rows(self, processor: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Return ``processor(prefixes, scores, padding)`` where theirs counts on the rows of a batch."""
        kind = type(processor).__name__
        if kind == "PrefixConstrainedLogitsProcessor":
            if len(self.prompts.rows) > 1:
                raise ValueError(
                    "prefix_allowed_tokens_fn: it is told the prompt's number, which merged states do not have; give one "
                    "prompt at a time"
                )
            allowed = processor._prefix_allowed_tokens_fn
            processor = copy.copy(processor)
            processor._prefix_allowed_tokens_fn = lambda _, prefix: allowed(0, prefix)
        if kind == "RepetitionPenaltyLogitsProcessor" and isinstance(processor.prompt_ignore_length, Tensor):
            processor = copy.copy(processor)

            def penalized(prefixes: Tensor, scores: Tensor, padding: Tensor) -> Tensor:
                processor.prompt_ignore_length = padding
                return processor(prefixes, scores)  # type: ignore[no-any-return]

            return penalized
        return lambda prefixes, scores, padding: processor(prefixes, scores)

    def init(self, n: int, condition: Any = None) -> State:
        """As the model."""
        return self.model.init(n, condition)

    def move(self, state: State, ancestors: Tensor) -> State:
        """As the model."""
        return self.model.move(state, ancestors)

    def key(self, x: Tensor, state: State, rows: Tensor | None = None) -> Tensor:
        """As the model."""
        return self.model.key(x, state, rows)

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        """Predict, and let the processors change the scores."""
        output, state = self.model(x, t, state, rows)
        scores = output.to(torch.float32, copy=True)
        free = x == self.vocab
        length, left = free.int().argmax(1), free.sum(1)
        for number in sorted(set(left[left > 0].tolist())):
            who = (left == number).nonzero()[:, 0]
            width = self.prompts.width + self.prompts.new - number
            padding = width - length[who]
            at = torch.arange(width, device=x.device) - padding[:, None]
            prefixes = torch.where(at >= 0, x[who].gather(1, at.clamp(min=0)), self.prompts.pad)
            of_these = scores[who]
            for processor in self.processors:
                of_these = processor(prefixes, of_these, padding)
            scores[who] = of_these
        return Prediction(scores, state)
