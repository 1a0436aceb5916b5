"""Predicted pLDDT of a sequence: alphaPredict's recurrent network, whose weights come with that package.

The network (MIT licence, https://github.com/idptools/alphaPredict) is a bidirectional LSTM with a linear head, trained
to give AlphaFold2's per-residue confidence from the sequence alone. It is fast and can be fooled: report held-out
scores beside it. ``V7`` is meant to be optimised, ``V6`` to be held out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastguide.errors import BackendUnavailable
from fastguide.protein.alphabet import ALPHABET
from fastguide.rewards.protocol import Reward
from fastguide.rewards.tokens import check_chains, check_tokens, split_chains


class PLDDT(Reward):
    """Mean predicted pLDDT of a sequence, 0 to 100, higher is better.

    Every call runs the network on blocks of ``rows`` sequences, the last one padded: the bits of a matrix product may
    depend on its shape, so one shape makes the value of a sequence the same in any batch.

    Args:
        version: ``"V7"`` (100 hidden units a direction), ``"V6"`` (40), or an earlier one that the package holds.
        chains: lengths of the chains that the columns hold; each is scored by itself, and all residues count alike.
            None takes all columns for one chain.
        rows: sequences a block. 32 take 12 % more time a sequence than 64, and less of it goes into padding.
        name: column name; by default ``plddt``, and ``plddt_v6`` for V6.
        device: where the network runs.

    Raises:
        BackendUnavailable: the package alphaPredict is not installed.
        ValueError: there is no such version.
    """

    batch_invariant = True
    differentiable = True

    def __init__(
        self,
        version: str = "V7",
        *,
        chains: Sequence[int] | None = None,
        rows: int = 32,
        name: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if rows < 1:
            raise ValueError(f"rows: expected 1 or more, got {rows}")
        self.name = name or ("plddt" if version == "V7" else f"plddt_{version.lower()}")
        self.version = version
        self.chains = check_chains(chains, self.name)
        self.rows = rows
        self.device = torch.device(device)
        self.weights = weights_file(version)
        self._lstm, self._head = _load(self.weights, self.device)

    def __call__(self, x0: Any) -> Tensor:
        """Return float32 ``[n]`` of int64 tokens ``[n, L]``, or of a soft one-hot ``[n, L, 20]`` as `soft` does."""
        if isinstance(x0, Tensor) and x0.is_floating_point() and x0.dim() == 3:
            return self.soft(x0)
        tokens = check_tokens(x0, self.name)
        means = [block.mean(dim=1)[:count] for block, count in self._blocks(tokens)]
        return torch.cat(means).to(tokens.device) if means else torch.empty(0, device=tokens.device)

    def per_residue(self, x0: Any) -> Tensor:
        """Return float32 ``[n, L]``, the predicted pLDDT of each residue of int64 tokens ``[n, L]``."""
        tokens = check_tokens(x0, self.name)
        parts = [block[:count] for block, count in self._blocks(tokens)]
        return torch.cat(parts).to(tokens.device) if parts else torch.empty(tokens.shape, device=tokens.device)

    def soft(self, one_hot: Tensor) -> Tensor:
        """Return ``[n]``, the mean pLDDT of float32 amino-acid weights ``[n, L, 20]``, with gradients to them."""
        if not one_hot.is_floating_point() or one_hot.dim() != 3 or one_hot.shape[2] != len(ALPHABET):
            got = f"{str(one_hot.dtype).removeprefix('torch.')} {list(one_hot.shape)}"
            raise ValueError(f"{self.name}: expected a floating one-hot [n, L, {len(ALPHABET)}], got {got}")
        weights = one_hot.to(device=self.device, dtype=torch.float32)
        return self._network(weights).mean(dim=1).to(one_hot.device)

    def _blocks(self, tokens: Tensor) -> list[tuple[Tensor, int]]:
        """Return the scores ``[rows, L]`` of each block of sequences, and how many of its rows are no padding."""
        scored = []
        for block in torch.split(tokens.to(self.device), self.rows) if len(tokens) else ():
            padded = torch.cat([block, block[-1:].expand(self.rows - len(block), -1)])
            with torch.no_grad():
                # By comparison: torch's one_hot reads how large the largest token is.
                one_hot = padded[..., None] == torch.arange(len(ALPHABET), device=self.device)
                scored.append((self._network(one_hot.to(torch.float32)), len(block)))
        return scored

    def _network(self, one_hot: Tensor) -> Tensor:
        """Return ``[n, L]`` of ``[n, L, 20]``, each chain by itself."""
        chains = split_chains(one_hot, self.chains, self.name)
        return torch.cat([self._head(self._lstm(chain)[0])[..., 0] for chain in chains], dim=1)


def weights_file(version: str) -> Path:
    """Return the path of alphaPredict's weights of a version, without importing the package.

    Raises:
        BackendUnavailable: the package is not installed.
        ValueError: it holds no such version.
    """
    # The package fails to import without a dependency that it does not declare; only its files are needed.
    spec = importlib.util.find_spec("alphaPredict")
    if spec is None or spec.origin is None:
        raise BackendUnavailable(
            "the pLDDT reward needs the weights of alphaPredict: pip install --no-deps alphapredict==1.3.0"
        )
    folder = Path(spec.origin).parent / "backend" / "networks"
    found = {path.stem.split("_")[2].removeprefix("network"): path for path in folder.glob("alpha_fold_network*.pt")}
    if version not in found:
        raise ValueError(f"version: {version!r} is not among the networks of {folder}: {', '.join(sorted(found))}")
    return found[version]


def _load(path: Path, device: torch.device) -> tuple[torch.nn.LSTM, torch.nn.Linear]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    hidden = state["lstm.weight_hh_l0"].shape[1]
    layers = sum(name.startswith("lstm.weight_hh") for name in state) // 2
    # On the meta device nothing is initialised, and so no random number is taken from the global generator.
    with torch.device("meta"):
        lstm = torch.nn.LSTM(len(ALPHABET), hidden, layers, batch_first=True, bidirectional=True)
        head = torch.nn.Linear(2 * hidden, 1)
    for module, prefix in ((lstm, "lstm."), (head, "fc.")):
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        module.load_state_dict(own, assign=True)
        module.requires_grad_(False).eval()
    lstm = lstm.to(device)
    lstm.flatten_parameters()
    return lstm, head.to(device)
