"""`masked_step` against what is written in torch today: gather the parents, reveal positions, draw their tokens.

- *tutorial*: the way of the tutorial's code: probabilities of every position, a categorical draw at every position,
  then a mask that keeps the draws of the revealed ones. By Gumbel noise, as there, and by ``torch.multinomial``.
- *sparse*: the best torch forms known to us: only rows at revealed positions are gathered, normalised and drawn.

The torch forms draw float32 uniforms, which cannot reach tokens below about 1e-7; ours draws from 64 bits. Run with
``OMP_PROC_BIND=true``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from timing import alternate, save, table
from torch import Tensor

from fastguide.ops.masked_step import masked_step

Draw = Callable[[Tensor], Tensor]


def by_gumbel(logits: Tensor) -> Tensor:
    return (logits - torch.rand_like(logits).log_().neg_().log_()).argmax(-1)


def by_exponential_race(logits: Tensor) -> Tensor:
    return logits.softmax(-1).div_(torch.empty_like(logits).exponential_()).argmax(-1)


def by_multinomial(logits: Tensor) -> Tensor:
    return torch.multinomial(logits.softmax(-1).flatten(0, -2), 1).view(logits.shape[:-1])


def tutorial_gumbel(probabilities: Tensor) -> Tensor:
    noise = 1e-10 - (torch.rand_like(probabilities) + 1e-10).log()
    return (probabilities / noise).argmax(-1)


def tutorial_multinomial(probabilities: Tensor) -> Tensor:
    return torch.multinomial(probabilities.flatten(0, -2), 1).view(probabilities.shape[:-1])


def everywhere(tokens: Tensor, logits: Tensor, ancestors: Tensor, probability: float, draw: Draw) -> Tensor:
    # Above 1 GB of logits in parts, as memory would not hold five copies of them.
    at_once = max(1, 2**28 // logits[0].numel())
    if len(ancestors) > at_once:
        return torch.cat([everywhere(tokens, logits, a, probability, draw) for a in ancestors.split(at_once)])
    tokens, logits = tokens[ancestors], logits[ancestors]
    drawn = draw(torch.softmax(logits, -1))
    revealed = (tokens == logits.shape[-1]) & (torch.rand(tokens.shape) < probability)
    return torch.where(revealed, drawn, tokens)


def sparse(tokens: Tensor, logits: Tensor, ancestors: Tensor, probability: float, draw: Draw) -> Tensor:
    children = tokens[ancestors]
    revealed = (children == logits.shape[-1]) & (torch.rand(children.shape) < probability)
    particle, position = revealed.nonzero(as_tuple=True)
    children[particle, position] = draw(logits[ancestors[particle], position])
    return children


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--small-only", action="store_true", help="leave out the vocabulary of 50,258 (8 GB of memory)")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    # particles, length, vocabulary, masked share, reveal probability, rounds
    cases = [(1_024, 64, 22, 0.5, 0.05, args.rounds)]
    if not args.small_only:
        cases.append((64, 256, 50_258, 1.0, 0.02, min(args.rounds, 3)))
    rows = []
    for particles, length, vocab, masked, probability, rounds in cases:
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, vocab, (particles, length), generator=generator)
        tokens[torch.rand(particles, length, generator=generator) < masked] = vocab
        logits = torch.randn(particles, length, vocab, generator=generator)
        ancestors = torch.randint(0, particles, (particles,), generator=generator).sort().values
        given = (tokens, logits, ancestors, probability)

        def ours(branch: int = 1, given: tuple[Tensor, Tensor, Tensor, float] = given) -> Tensor:
            return masked_step(given[0], given[1], ancestors=given[2], reveal_probability=given[3], branch=branch)

        competitors: dict[str, Callable[[], Tensor]] = {
            "fastguide": ours,
            "sparse, Gumbel": lambda given=given: sparse(*given, by_gumbel),
            "sparse, exponential race": lambda given=given: sparse(*given, by_exponential_race),
            "sparse, multinomial": lambda given=given: sparse(*given, by_multinomial),
            "tutorial, Gumbel": lambda given=given: everywhere(*given, tutorial_gumbel),
            "tutorial, multinomial": lambda given=given: everywhere(*given, tutorial_multinomial),
        }
        seconds = alternate(competitors, rounds=rounds)
        size = {"particles": particles, "length": length, "vocab": vocab, "masked": masked, "reveal": probability}
        table(f"{size}, {torch.get_num_threads()} threads", seconds, "fastguide")
        rows.append({**size, "seconds": seconds})

        # What the settings of a draw cost over the plain one.
        k = 50 if vocab > 100 else 5
        shift = logits.flip(0)
        count = max(1, round(masked * length * probability))
        settings: dict[str, dict[str, object]] = {
            "plain": {"reveal_probability": probability},
            f"top_k {k}": {"reveal_probability": probability, "top_k": k},
            "top_p 0.9": {"reveal_probability": probability, "top_p": 0.9},
            "top_p 0.9, temperature 0.2": {"reveal_probability": probability, "top_p": 0.9, "temperature": 0.2},
            "shift": {"reveal_probability": probability, "shift": shift},
            "remask 0.02": {"reveal_probability": probability, "remask_probability": 0.02},
            f"count {count}": {"reveal_count": count},
        }
        own: dict[str, Callable[[], Tensor]] = {
            name: lambda given=given, options=options: masked_step(given[0], given[1], ancestors=given[2], **options)
            for name, options in settings.items()
        }
        seconds = alternate(own, rounds=rounds)
        table("its settings", seconds, "plain")
        rows.append({**size, "settings": True, "seconds": seconds})

        # The rows are the same for every branch when all masked positions are revealed.
        few = tokens.clone()
        few[torch.rand(particles, length, generator=generator) >= probability] = 0
        branches: dict[str, Callable[[], Tensor]] = {
            f"branch {m}": lambda m=m, few=few, logits=logits: masked_step(
                few, logits, reveal_probability=1.0, branch=m
            )
            for m in (1, 8)
        }
        seconds = alternate(branches, rounds=rounds)
        table(f"the same, {int((few == vocab).sum())} masked rows, all revealed", seconds, "branch 1")
        rows.append({**size, "reveal": 1.0, "masked_rows": int((few == vocab).sum()), "seconds": seconds})
    if not args.no_save:
        print(f"written to {save('masked_step', rows)}")


if __name__ == "__main__":
    main()
