"""Numbers that tell how varied and how complex sequences are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def median_distance(tokens: Integers) -> float:
    """Return the median Hamming distance between the rows of ``tokens`` ``[n, L]``, nan for fewer than two."""
    n = len(tokens)
    if n < 2:
        return float("nan")
    distances = [(tokens[i] != tokens[i + 1 :]).sum(axis=1) for i in range(n - 1)]
    return float(np.median(np.concatenate(distances)))


def shares(tokens: Integers, weights: Floats | None = None, vocab: int = 20) -> Floats:
    """Return the share of each token at each column ``[L, vocab]``; equal shares where all tokens are unknown."""
    n, length = tokens.shape
    w = np.full(n, 1.0) if weights is None else weights
    counts = np.zeros((length, vocab))
    for a in range(vocab):
        counts[:, a] = w @ (tokens == a)
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.where(totals > 0, totals, 1.0), 1.0 / vocab)


def composition(tokens: Integers, weights: Floats | None = None, vocab: int = 20) -> Floats:
    """Return the share of each token ``[vocab]`` over all rows and columns."""
    w = np.ones(len(tokens)) if weights is None else weights
    counts = np.array([float(w @ (tokens == a).sum(axis=1)) for a in range(vocab)])
    total: float = counts.sum()
    return counts / total if total > 0 else counts


def entropy(text: str) -> float:
    """Return the entropy in bits of the letters of a text: 4.2 for an average protein, 0 for a single letter."""
    _, counts = np.unique(list(text), return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0


def longest_run(text: str) -> tuple[int, str]:
    """Return the length and the letter of the longest stretch of one letter, the first of equals."""
    best, letter, start = 0, "", 0
    for i in range(1, len(text) + 1):
        if i == len(text) or text[i] != text[start]:
            if i - start > best:
                best, letter = i - start, text[start]
            start = i
    return best, letter
