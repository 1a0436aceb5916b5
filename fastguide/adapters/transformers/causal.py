"""``model.generate`` of causal models, guided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastguide.adapters._seeds import torch_seed
from fastguide.adapters.transformers.output import GuidedOutput, population
from fastguide.adapters.transformers.processors import Processed, split
from fastguide.adapters.transformers.prompts import Prompts
from fastguide.guidance.protocol import Guidance
from fastguide.memory import Memory
from fastguide.models.protocol import Denoiser
from fastguide.models.transformers import CausalLM
from fastguide.processes.autoregressive import AutoregressiveProcess
from fastguide.sample import sample
from fastguide.values.protocol import Value

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
        prompts = Prompts(input_ids[::rows].to(model.device), rest.get("attention_mask"), generation_config, rows)
        processors, cut = split(logits_processor)
        process = AutoregressiveProcess(
            prompts.longest + prompts.new, int(model.config.vocab_size), eos=prompts.eos, pad=prompts.pad, steps=prompts.new,
            prompts_end=False, **cut,
        )  # fmt: skip
        denoiser: Denoiser = _causal(model, tokenizer, bool(rest.get("use_cache", True)))
        if processors:
            denoiser = Processed(denoiser, processors, prompts, process.vocab)

        def decode(x0: Tensor) -> Any:
            padded = prompts.pad_left(x0)
            return padded if tokenizer is None else tokenizer.batch_decode(padded, skip_special_tokens=True)

        n = population(particles, rows, guidance)
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
