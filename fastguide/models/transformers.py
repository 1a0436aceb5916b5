"""Language models of the ``transformers`` package as denoisers, causal and masked.

A causal model belongs to `fastguide.AutoregressiveProcess`. Its keys and values are the denoiser's state: each particle has its
own, they move with it, and a step computes one token a state, in calls of ``[n, 1]`` with a cache of one fixed size. A prompt
is computed in one call by itself, however many particles start from it. So a row's bits depend neither on the prompts beside it
nor on when its tokens were computed.

A masked model belongs to `fastguide.MaskedProcess` (with ``reveal="count"`` and as many steps as positions it is the any-order
model it was trained as).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastguide.errors import BackendUnavailable
from fastguide.models.protocol import Denoiser, Prediction, State


def from_transformers(model: Any, tokenizer: Any = None, **options: Any) -> CausalLM | MaskedLM:
    """Return a `MaskedLM` of a model whose class is named ``…ForMaskedLM``, else a `CausalLM`; options are theirs."""
    kind = MaskedLM if type(model).__name__.endswith("ForMaskedLM") else CausalLM
    return kind(model, tokenizer, **options)


class CausalLM(Denoiser):
    """A causal language model: prefixes in, logits ``[n, V]`` of the next token out.

    Args:
        model: a model with ``forward(input_ids, attention_mask, position_ids)`` and logits, such as ``AutoModelForCausalLM``
            loads; in evaluation mode.
        tokenizer: turns text into prompts and samples into text; None where tokens are all that is wanted.
        bos: a token that stands before every prefix and is no part of a state; None where prompts are never empty.
        cache: keep keys and values; False computes every prefix anew.

    Attributes:
        vocab: tokens V of the process.

    Raises:
        ValueError: the model is in training mode, or its cache is not one key and value a token (sliding windows, recurrent
            states), or it gives other logits with it than without; ``cache=False`` takes such models.
    """

    def __init__(self, model: Any, tokenizer: Any = None, *, bos: int | None = None, cache: bool = True) -> None:
        _check_mode(model)
        self.model, self.tokenizer, self.bos, self.cached = model, tokenizer, bos, cache
        self.vocab = int(model.config.vocab_size)
        self._shape: tuple[int, ...] = ()
        if cache:
            self._check_cache()

    def _check_cache(self) -> None:
        cache = self._new_cache(config=self.model.config)
        others = {type(layer).__name__ for layer in cache.layers} - {"DynamicLayer"}
        if others:
            raise ValueError(
                f"model: {type(self.model).__name__} keeps {', '.join(sorted(others))}, not a key and a value for each token; "
                "give cache=False"
            )
        ids = torch.arange(4, device=self.model.device)[None] % self.vocab
        with torch.no_grad():
            self._forward(ids[:, :1], torch.ones_like(ids[:, :1]), ids[:, :1] * 0, cache)
            shapes = {x.shape for layer in cache.layers for x in (layer.keys, layer.values) if x is not None}
            if len(shapes) != 1:
                raise ValueError(
                    f"model: the layers of {type(self.model).__name__} write caches of different shapes; give cache=False"
                )
            self._shape = (len(cache.layers), 2, *cache.layers[0].keys[0, :, 0].shape)
            state = self._empty(1, cache.layers[0].keys.dtype)
            x = torch.cat([ids, torch.full_like(ids[:, :2], self.vocab)], 1)
            step_by_step = self._with_cache(x, state, None).output
            at_once = self._anew(x)
        if not torch.allclose(step_by_step.float(), at_once.float(), rtol=1e-2, atol=1e-2 * float(at_once.abs().max())):
            raise ValueError(
                f"model: {type(self.model).__name__} gives other logits with its cache than without; give cache=False"
            )

    @staticmethod
    def _new_cache(**options: Any) -> Any:
        try:
            from transformers import DynamicCache
        except ImportError as error:
            raise BackendUnavailable("transformers is not installed: pip install 'fastguide[text]'") from error
        return DynamicCache(**options)

    def _empty(self, n: int, dtype: torch.dtype) -> State:
        layers, two, heads, width = self._shape
        device = self.model.device
        return {
            "keys_values": torch.zeros((n, layers, two, heads, 0, width), dtype=dtype, device=device),
            "written": torch.zeros(n, dtype=torch.int64, device=device),
        }

    def init(self, n: int, condition: Any = None) -> State:
        """Return empty caches."""
        return self._empty(n, self.model.dtype) if self.cached else None

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        """Predict the next token of prefixes ``[n, L]``; of rows that are full nothing is computed."""
        if self.cached:
            return self._with_cache(x, state if state is not None else self.init(len(x)), rows)
        return Prediction(self._anew(x))

    def _tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the model reads ``[n, S]``, whatever stands after the prefixes, and how much of it is prefix ``[n]``."""
        free = x == self.vocab
        tokens = torch.where(free, 0, x)
        # Behind what is to be written there may be padding, where groups have lengths of their own.
        length = torch.where(free.any(1), free.int().argmax(1), x.shape[1])
        if self.bos is not None:
            tokens, length = torch.nn.functional.pad(tokens, (1, 0), value=self.bos), length + 1
        elif bool((length == 0).any()):
            raise ValueError(
                "x_init: a causal model needs a prompt of at least one token; give x_init, or bos= to the model"
            )
        return tokens, length

    def _anew(self, x: Tensor) -> Tensor:
        tokens, length = self._tokens(x)
        positions = torch.arange(tokens.shape[1], device=x.device).expand_as(tokens)
        logits = self._forward(tokens, torch.ones_like(tokens), positions)
        return logits[torch.arange(len(x), device=x.device), length - 1]

    def _with_cache(self, x: Tensor, state: State, rows: Tensor | None) -> Prediction:
        tokens, length = self._tokens(x)
        n, slots = tokens.shape
        if rows is None:
            rows = torch.arange(n, device=x.device)
        kept, written = state["keys_values"][rows], state["written"][rows]
        if kept.shape[4] != slots:
            kept = torch.nn.functional.pad(kept, (0, 0, 0, slots - kept.shape[4]))
        logits = kept.new_zeros((n, self.vocab))
        goes_on = (x == self.vocab).any(1)
        written = self._write_prompts(kept, written, tokens, torch.where(goes_on, length, 0))
        # The last token of a prefix is computed in any case: the logits of the next are its.
        written = torch.minimum(written, length - 1)
        each, places = torch.arange(n, device=x.device), torch.arange(slots + 1, device=x.device)
        while bool((todo := goes_on & (written < length)).any()):
            at = torch.where(todo, written, 0)
            cache = self._new_cache()
            for layer in range(self._shape[0]):
                cache.update(kept[:, layer, 0], kept[:, layer, 1], layer)
            seen = (places < at[:, None]) | (places == slots)
            out = self._forward(tokens[each, at][:, None], seen.long(), at[:, None], cache)[:, -1]
            fresh = torch.stack([torch.stack([c.keys[:, :, -1], c.values[:, :, -1]], 1) for c in cache.layers], 1)
            who = todo.nonzero()[:, 0]
            kept[who, :, :, :, at[who]] = fresh[who]
            logits = torch.where(todo[:, None], out.to(logits.dtype), logits)
            written = written + todo.long()
        return Prediction(logits, {"keys_values": kept, "written": written})

    def _write_prompts(self, kept: Tensor, written: Tensor, tokens: Tensor, length: Tensor) -> Tensor:
        """Write what stands before the last token of rows without a cache; return how much of each row is written."""
        rows = ((written == 0) & (length > 1)).nonzero()[:, 0]
        prompts: dict[tuple[int, ...], list[int]] = {}
        for row in rows.tolist():
            prompts.setdefault(tuple(tokens[row, : int(length[row]) - 1].tolist()), []).append(row)
        for prompt, members in prompts.items():
            ids = torch.tensor([prompt], device=tokens.device)
            cache = self._new_cache()
            self._forward(ids, torch.ones_like(ids), torch.arange(len(prompt), device=ids.device)[None], cache)
            fresh = torch.stack([torch.stack([c.keys[0], c.values[0]]) for c in cache.layers])
            kept[members, :, :, :, : len(prompt)] = fresh
            written = written.index_fill(0, torch.tensor(members, device=written.device), len(prompt))
        return written

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any = None) -> Tensor:
        name = "cache" if "cache" in _parameters(self.model) else "past_key_values"
        options: dict[str, Any] = {}
        if cache is not None:
            options[name] = cache
            if "logits_to_keep" in _parameters(self.model):
                options["logits_to_keep"] = 1
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=cache is not None, **options
        )
        logits: Tensor = out.logits
        return logits

    def prompts(self, texts: Any, length: int) -> Tensor:
        """Return ``x_init`` ``[n, length]`` of prompts: texts, or what a tokenizer made of them, padded on either side.

        Args:
            texts: one text or several, or a mapping with ``input_ids`` ``[n, l]`` and ``attention_mask`` of the same shape.
            length: positions L of the process.
        """
        if isinstance(texts, str):
            texts = [texts]
        if isinstance(texts, Sequence):
            if self.tokenizer is None:
                raise ValueError("texts: there is no tokenizer; give one to the model, or input_ids and attention_mask")
            rows = [list(self.tokenizer(text)["input_ids"]) for text in texts]
        else:
            ids, mask = torch.as_tensor(texts["input_ids"]), torch.as_tensor(texts["attention_mask"]).bool()
            rows = [row[seen].tolist() for row, seen in zip(ids, mask, strict=True)]
        longest = max(map(len, rows))
        if longest > length:
            raise ValueError(f"texts: a prompt has {longest} tokens, but the process only {length} positions")
        return torch.tensor([row + [self.vocab] * (length - len(row)) for row in rows])

    def decode(self, x0: Tensor, condition: Any = None) -> Any:
        """Return texts where there is a tokenizer, without its special tokens and what is not written."""
        if self.tokenizer is None:
            return x0
        rows = [[token for token in row if token < self.vocab] for row in x0.tolist()]
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in rows]


class MaskedLM(Denoiser):
    """A masked language model: states ``[n, L]`` with masks in, logits ``[n, L, V]`` out.

    Args:
        model: a model with ``forward(input_ids)`` and logits, such as ``AutoModelForMaskedLM`` loads; in evaluation mode.
        tokenizer: tells ``mask`` and ``tokens`` where they are not given, and turns samples into text.
        tokens: the model's ids of the process's tokens 0 to V − 1; all that are not special where None.
        mask: the model's id of the mask.
        prefix: the model's ids that stand before every state, its start token as a rule.
        suffix: those that stand after it.

    Attributes:
        vocab: tokens V of the process.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        tokens: Sequence[int] | None = None,
        mask: int | None = None,
        prefix: Sequence[int] = (),
        suffix: Sequence[int] = (),
    ) -> None:
        _check_mode(model)
        if mask is None:
            mask = getattr(tokenizer, "mask_token_id", None)
        if mask is None:
            raise ValueError("mask: give the model's id of the mask token, or a tokenizer that has one")
        if tokens is None:
            special = {mask, *getattr(tokenizer, "all_special_ids", ())}
            tokens = [i for i in range(model.config.vocab_size) if i not in special]
        self.model, self.tokenizer = model, tokenizer
        self.vocab = len(tokens)
        self._ids = torch.tensor([*tokens, mask], device=model.device)
        self._prefix, self._suffix = (torch.tensor(list(p), device=model.device).long() for p in (prefix, suffix))

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        """Predict the tokens of ``[n, L]`` states."""
        n, length = x.shape
        ids = torch.cat([self._prefix.expand(n, -1), self._ids[x], self._suffix.expand(n, -1)], 1)
        logits = self.model(input_ids=ids).logits
        first = len(self._prefix)
        return Prediction(logits[:, first : first + length, self._ids[:-1]])

    def decode(self, x0: Tensor, condition: Any = None) -> Any:
        """Return texts where there is a tokenizer."""
        if self.tokenizer is None:
            return x0
        return [self.tokenizer.decode(row) for row in self._ids[x0].tolist()]


def _check_mode(model: Any) -> None:
    if not callable(getattr(model, "forward", None)) or not hasattr(model, "config"):
        raise TypeError(f"model: expected a model of the transformers package, got {type(model).__name__}")
    if model.training:
        raise ValueError("model: it is in training mode, in which its output is random; call model.eval()")


def _parameters(model: Any) -> Any:
    return inspect.signature(model.forward).parameters
