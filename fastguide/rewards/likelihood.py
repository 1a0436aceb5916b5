"""The likelihood of a sequence under an inverse-folding model, as a reward or as a held-out score."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from fastguide.errors import RewardError
from fastguide.rewards.protocol import Reward
from fastguide.rewards.tokens import check_tokens


class HasNLL(Protocol):
    """A model that scores sequences, such as `fastguide.models.ProteinMPNN`."""

    def nll(self, tokens: Tensor, *, orders: int, seed: int) -> Tensor:
        """Return ``[n, R_out]`` negative log-likelihoods in nats, a mean over ``orders`` decoding orders."""
        ...


class NLL(Reward):
    """Minus the mean negative log-likelihood per residue, in nats, at most 0; higher is better.

    Under the model that designs, it measures how natural a sequence is to that model; under other weights (``soluble``)
    it is a held-out score.

    Args:
        model: its ``nll(tokens, orders=, seed=)`` gives ``[n, R_out]``. Each sequence has to be scored under the same
            decoding orders in any batch.
        orders: number of random decoding orders to average over.
        seed: which orders.
        name: column name.
    """

    def __init__(self, model: HasNLL, *, orders: int = 1, seed: int = 0, name: str = "likelihood") -> None:
        if not callable(getattr(model, "nll", None)):
            raise TypeError(f"model: expected a model with nll(tokens, orders=, seed=), got {type(model).__name__}")
        if orders < 1:
            raise ValueError(f"orders: expected 1 or more, got {orders}")
        self.model = model
        self.orders = orders
        self.seed = seed
        self.name = name

    def __call__(self, x0: Any) -> Tensor:
        """Return ``[n]`` values of int64 tokens ``[n, R_out]``."""
        tokens = check_tokens(x0, self.name)
        nll = self.model.nll(tokens, orders=self.orders, seed=self.seed)
        if nll.shape != tokens.shape:
            raise RewardError(f"{self.name}: nll of tokens {list(tokens.shape)} has the shape {list(nll.shape)}")
        return -nll.mean(dim=1)
