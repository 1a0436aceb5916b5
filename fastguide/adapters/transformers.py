r"""``model.generate`` of the ``transformers`` package, guided by a reward; and masked models filled in, likewise.

    from fastguide.adapters.transformers import generate
    out = generate(model, **inputs, max_new_tokens=24, do_sample=True, top_p=0.9, reward=…, guidance=fg.SMC(alpha=0.2))
    # was:   model.generate(**inputs, max_new_tokens=24, do_sample=True, top_p=0.9)

Arguments, defaults, errors and the layout of what is returned are those of `generate`, which prepares all of them and then
hands its loop to `fastguide.sample`: a prompt is a group, its sequences are drawn by weight from ``particles`` of them. The
pretrained law that guidance tilts is sampling *as asked for*, with every logits processor and the end forced at
``max_new_tokens``. Keys and values move with the particles, one token a state is computed, and a finished sequence costs no
network row. What cannot be honoured is refused by name: beams and assistants, caches that are not one key and value a token
(``use_cache=False`` takes such models), streamers, criteria other than length and end tokens, and processors that are no
function of a prefix and its scores alone. Random numbers follow ``torch.manual_seed``, as theirs do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastguide.adapters._seeds import torch_seed
from fastguide.guidance.protocol import Guidance
from fastguide.memory import Memory
from fastguide.models.protocol import Denoiser, Prediction, State
from fastguide.models.transformers import CausalLM, MaskedLM
from fastguide.ops._checks import count
from fastguide.processes.autoregressive import AutoregressiveProcess
from fastguide.processes.masked import MaskedProcess
from fastguide.result import Result
from fastguide.sample import sample
from fastguide.values.protocol import Value

_POPULATION = 32
"""Particles a prompt where one has a single child and learns from the others only, unless given."""

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

_CUTS = {"top_p": "TopPLogitsWarper", "top_k": "TopKLogitsWarper", "temperature": "TemperatureLogitsWarper"}
"""What the process does in their place, from the last one back."""

_OUTPUTS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
_PREPARED = {
    "attention_mask",
    "position_ids",
    "use_cache",
    "cache",
    "past_key_values",
    "cache_position",
    "logits_to_keep",
}
"""What `generate` itself hands to its loop beside the tokens."""


@dataclass
class GuidedOutput:
    """What is returned with ``return_dict_in_generate=True``.

    Attributes:
        sequences: ``[G * num_return_sequences, l]`` as without it.
        rewards: float64, of each.
        result: the weighted samples they were drawn from, without the padding of prompts; see `fastguide.Result`.
    """

    sequences: Tensor
    rewards: Tensor
    result: Result


def generate(
    model: Any,
    inputs: Tensor | None = None,
    *args: Any,
    reward: Callable[..., Any],
    guidance: Guidance,
    value: Value | None = None,
    tokenizer: Any = None,
    particles: int | None = None,
    seed: int | None = None,
    memory: Memory | int | str = "auto",
    progress: bool = False,
    **kwargs: Any,
) -> Tensor | GuidedOutput:
    """Do what ``model.generate(inputs, *args, **kwargs)`` does, towards a reward.

    Args:
        model: a causal language model.
        inputs: ``[G, W]`` prompts, or ``input_ids=``; padded on the left, as ``attention_mask=`` says.
        *args: of ``model.generate``.
        reward: sees texts, prompts included, where there is a tokenizer, else tokens ``[n, W + new]`` as they are returned; of
            an unfinished sequence what is written, then padding.
        guidance: see `fastguide.sample`.
        value: the look-ahead; the reward of the unfinished text where None.
        tokenizer: turns tokens into what the reward sees, without special tokens.
        particles: sequences a prompt that the ``num_return_sequences`` are drawn from. None: as many where each has several
            children, else 32 or ``num_return_sequences``, whichever is more.
        seed: drawn from torch's generator where None.
        memory: see `fastguide.sample`.
        progress: show how far it is.
        **kwargs: of ``model.generate``: ``attention_mask``, ``max_new_tokens``, ``do_sample=True``, ``temperature``,
            ``top_k``, ``top_p``, ``eos_token_id``, ``pad_token_id``, ``num_return_sequences``, ``logits_processor``, …

    Returns:
        ``[G * num_return_sequences, l]`` int64: the prompts and what follows them, ``pad_token_id`` after an end token;
        a `GuidedOutput` with ``return_dict_in_generate=True``.

    Raises:
        ValueError: an option that cannot be honoured, by its name.
    """
    for name in ("streamer", "assistant_model", "custom_generate", "position_ids", "inputs_embeds"):
        if kwargs.get(name) is not None:
            raise ValueError(f"{name}: guided generation cannot honour it; leave it out")
    if not callable(getattr(model, "generate", None)):
        raise TypeError(f"model: expected a language model with a method generate, got {type(model).__name__}")

    def loop(
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **rest: Any,
    ) -> Tensor | GuidedOutput:
        _refuse(model, generation_config, stopping_criteria, rest)
        rows = generation_config.num_return_sequences
        prompts = _Prompts(input_ids[::rows].to(model.device), rest.get("attention_mask"), generation_config, rows)
        processors, cut = _split(logits_processor)
        process = AutoregressiveProcess(
            prompts.longest + prompts.new, _vocab(model), eos=prompts.eos, pad=prompts.pad, steps=prompts.new,
            prompts_end=False, **cut,
        )  # fmt: skip
        denoiser: Denoiser = _causal(model, tokenizer, bool(rest.get("use_cache", True)))
        if processors:
            denoiser = _Processed(denoiser, processors, prompts, process.vocab)

        def decode(x0: Tensor) -> Any:
            padded = prompts.pad_left(x0)
            return padded if tokenizer is None else tokenizer.batch_decode(padded, skip_special_tokens=True)

        n = _population(particles, rows, guidance)
        result = sample(
            process, denoiser, reward, guidance, value=value, particles=n, groups=len(prompts.rows),
            lengths=prompts.lengths, x_init=prompts.x_init(process.mask).repeat_interleave(n, 0), decode=decode,
            seed=torch_seed() if seed is None else seed, memory=memory, progress=progress, device=model.device,
        )  # fmt: skip
        index = torch.cat([result.draw_indices(rows, group=g) for g in range(result.groups)])
        sequences = torch.cat([input_ids, prompts.new_tokens(result.samples[index]).to(input_ids.device)], 1)
        if not generation_config.return_dict_in_generate:
            return sequences
        return GuidedOutput(sequences, result.rewards[index], result)

    return model.generate(inputs, *args, custom_generate=loop, **kwargs)  # type: ignore[no-any-return]


def _refuse(model: Any, config: Any, criteria: Any, rest: dict[str, Any]) -> None:
    """Raise for what `generate` has prepared and guided sampling cannot honour."""
    mode = config.get_generation_mode().value
    if mode == "greedy_search":
        raise ValueError("do_sample: greedy decoding has one sequence and nothing to guide; give do_sample=True")
    if mode != "sample":
        raise ValueError(f"generation_config: guided generation samples, and cannot do {mode}; leave its options out")
    if model.config.is_encoder_decoder:
        raise ValueError(
            f"model: {type(model).__name__} has an encoder; guided generation needs a causal language model"
        )
    for name in _OUTPUTS:
        if getattr(config, name, None):
            raise ValueError(f"{name}: guided generation does not keep them; leave it out")
    if config.cache_implementation is not None:
        raise ValueError(
            f"cache_implementation: '{config.cache_implementation}' has no row a particle that could be moved; leave it out"
        )
    for criterion in criteria:
        if type(criterion).__name__ not in ("MaxLengthCriteria", "EosTokenCriteria"):
            raise ValueError(
                f"stopping_criteria: guided generation ends sequences at max_new_tokens and eos_token_id, and cannot honour "
                f"{type(criterion).__name__}; leave it out"
            )
    for name, thing in rest.items():
        if name not in _PREPARED and thing is not None and thing is not False:
            raise ValueError(f"{name}: guided generation cannot hand it to {type(model).__name__}; leave it out")
    for name in ("cache", "past_key_values"):
        if name in rest and rest[name] is not None and rest[name].get_seq_length() > 0:
            raise ValueError(f"{name}: guided generation starts from an empty cache; leave it out")


def _causal(model: Any, tokenizer: Any, use_cache: bool) -> CausalLM:
    try:
        return CausalLM(model, tokenizer, cache=use_cache)
    except ValueError as error:
        raise ValueError(str(error).replace("give cache=False", "give use_cache=False")) from None


def _vocab(model: Any) -> int:
    return int(model.config.vocab_size)


def _population(particles: int | None, rows: int, guidance: Guidance) -> int:
    if particles is not None:
        return count("particles", particles)
    return rows if guidance.branch > 1 else max(rows, _POPULATION)


class _Prompts:
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


def _split(processors: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
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


class _Processed(Denoiser):
    """A causal model whose scores processors change. They see prefixes as `generate` shows them, padded on the left."""

    def __init__(self, model: Denoiser, processors: list[Any], prompts: _Prompts, vocab: int) -> None:
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
        return self.model.init(n, condition)

    def move(self, state: State, ancestors: Tensor) -> State:
        return self.model.move(state, ancestors)

    def key(self, x: Tensor, state: State, rows: Tensor | None = None) -> Tensor:
        return self.model.key(x, state, rows)

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
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
    n = _population(particles, rows, guidance)
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
