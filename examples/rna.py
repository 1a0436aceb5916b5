"""RNA that folds into the cloverleaf of a transfer RNA; the reward is ViennaRNA, a program that has no gradient.

The pretrained model is small enough to be exact: sequences whose neighbouring bases occur as often as in yeast tRNA-Phe (a
Markov chain), noised uniformly. Its denoiser, the law of each clean base given the noisy sequence, is a forward and a backward
pass. The reward is the expected number of positions that are paired as they should be, in the ensemble of the folding model.

    pip install "fastguide[rna,bench]"
    python examples/rna.py
"""

from __future__ import annotations

import argparse

import RNA
import torch
from picture import draw
from torch import Tensor

import fastguide as fg

BASES = "ACGU"
TRNA = "GCGGAUUUAGCUCAGUUGGGAGAGCGCCAGACUGAAGAUCUGGAGGUCCUGUGUUCGAUCCACAGAAUUCGCACCA"
CLOVERLEAF = "(((((((..((((........)))).(((((.......))))).....(((((.......))))))))))))...."


class MarkovChain(fg.models.Denoiser):
    """The exact denoiser of a Markov chain of bases under uniform noise with ``a(t) = 1 − t``."""

    batch_invariant = True

    def __init__(self, sequence: str) -> None:
        bases = torch.tensor([BASES.index(base) for base in sequence])
        pairs = torch.ones(4, 4)  # a pseudo-count of one a pair
        pairs.index_put_((bases[:-1], bases[1:]), torch.ones(len(bases) - 1), accumulate=True)
        self.chain = pairs / pairs.sum(1, keepdim=True)
        self.first = pairs.sum(1) / pairs.sum()

    def __call__(self, x: Tensor, t: Tensor, state: object = None, rows: Tensor | None = None) -> fg.models.Prediction:
        kept = 1.0 - t[:, None, None]
        seen = kept * torch.nn.functional.one_hot(x, 4) + (1.0 - kept) / 4
        ahead, behind = [self.first * seen[:, 0]], [torch.ones(len(x), 4)]
        for i in range(1, x.shape[1]):
            ahead.append(_normal(ahead[-1], self.chain) * seen[:, i])
            behind.append(_normal(behind[-1] * seen[:, -i], self.chain.T))
        law = torch.stack(ahead, 1) * torch.stack(behind[::-1], 1)
        return fg.models.Prediction((law / law.sum(-1, keepdim=True)).log())


def _normal(p: Tensor, matrix: Tensor) -> Tensor:
    p = p / p.sum(1, keepdim=True)
    return (p[:, :, None] * matrix).sum(1)


def folds_into(structure: str) -> fg.rewards.Reward:
    def positions(sequence: str) -> float:
        fold = RNA.fold_compound(sequence)
        fold.pf()
        return len(structure) * (1.0 - fold.ensemble_defect(structure))

    return fg.rewards.each(positions, name="positions folded right")


def letters(x0: Tensor) -> list[str]:
    return ["".join(BASES[base] for base in row) for row in x0.tolist()]


def main(
    structure: str = CLOVERLEAF, steps: int = 40, particles: int = 64, out: str = "rna.png"
) -> dict[str, fg.Result]:
    process = fg.UniformProcess(len(structure), len(BASES), steps)
    denoiser, reward = MarkovChain(TRNA), folds_into(structure)
    guidances = {
        "unguided": fg.BestOfN(alpha=0.0),
        "SMC, alpha 1.5": fg.SMC(alpha=1.5),
        "SVDD, alpha 0.5, 4 children": fg.SVDD(alpha=0.5, branch=4),
    }
    results, rewards, samples = {}, {}, {}
    for name, guidance in guidances.items():
        result = results[name] = fg.sample(
            process, denoiser, reward, guidance, particles=particles, progress=False, decode=letters
        )
        print(f"{name}: {result}")
        rows = result.draw_indices(particles)
        rewards[name] = result.rewards[rows].tolist()
        best = letters(result.best(1))[0]
        samples[name] = [best, RNA.fold(best)[0]]
    samples["target"] = [structure]
    label = f"expected positions folded right, of {len(structure)}"
    print(draw(out, rewards, samples, label, "RNA for a given structure"))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structure", default=CLOVERLEAF)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--out", default="rna.png")
    main(**vars(parser.parse_args()))
