"""Compiled values of float32 states ``[N, ...]``, whose numbers count as one vector x of D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastguide.reference.activation import ACTIVATIONS
from fastguide.values.compiled.protocol import Compiled, number, parameter

_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class _Dense(Compiled):
    columns: int
    differentiable = True

    def check_columns(self, columns: int) -> None:
        """Raise ValueError unless a state has as many numbers as the parameters."""
        if columns != self.columns:
            raise ValueError(f"{self.name}: expected states of {self.columns} numbers each, got {columns}")


@dataclass(frozen=True, eq=False)
class Linear(_Dense):
    """``bias + weight · x``.

    Products and sums in float64: eight partial sums, of the d mod 8, each in order, then ((0 + 4) + (2 + 6)) +
    ((1 + 5) + (3 + 7)), then the bias; rounded to float32 once.

    Args:
        weight: ``[D]``; taken as float32.
        bias: a number; taken as float32.
        name: column name in tables and reports.
    """

    weight: Tensor
    bias: Tensor | float = 0.0
    name: str = "linear"
    kind: str = field(default="linear", init=False, repr=False)
    columns: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", parameter("weight", self.weight, ["D"]))
        object.__setattr__(self, "bias", number("bias", self.bias))
        object.__setattr__(self, "columns", len(self.weight))

    def soft(self, x0: Tensor) -> Tensor:
        """Return float64 ``[n]`` with gradients, by torch."""
        assert isinstance(self.bias, Tensor)
        return x0.flatten(1).double() @ self.weight.double() + self.bias.double()

    def arguments(self, dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
        """Return weight and bias."""
        assert isinstance(self.bias, Tensor)
        return [self.weight, self.bias], []


@dataclass(frozen=True, eq=False)
class Quadratic(_Dense):
    """``offset + ½ (x − center)ᵀ A (x − center)``: a peak at the center needs A negative definite.

    With a diagonal all of it is float64, ``a_d (y_d y_d)`` summed in the order of `Linear`. With a matrix y = x − center and
    A y are float32, each sum over j = 0, 1, …, and y · (A y) is float64. Rounded to float32 once, after the half and the
    offset.
    A need not be symmetric; only its symmetric part acts.

    Args:
        matrix: ``[D, D]``, or ``[D]``: a diagonal; taken as float32.
        center: ``[D]``, zero where None.
        offset: a number.
        name: column name in tables and reports.
    """

    matrix: Tensor
    center: Tensor | None = None
    offset: Tensor | float = 0.0
    name: str = "quadratic"
    kind: str = field(init=False, repr=False)
    columns: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        diagonal = torch.as_tensor(self.matrix).dim() == 1
        matrix = parameter("matrix", self.matrix, ["D"] if diagonal else ["D", len(self.matrix)])
        center = torch.zeros(len(matrix)) if self.center is None else self.center
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "center", parameter("center", center, [len(matrix)]))
        object.__setattr__(self, "offset", number("offset", self.offset))
        object.__setattr__(self, "kind", "diagonal_quadratic" if diagonal else "quadratic")
        object.__setattr__(self, "columns", len(matrix))

    def soft(self, x0: Tensor) -> Tensor:
        """Return float64 ``[n]`` with gradients, by torch."""
        assert isinstance(self.center, Tensor)
        assert isinstance(self.offset, Tensor)
        y, a = x0.flatten(1).double() - self.center.double(), self.matrix.double()
        return self.offset.double() + 0.5 * (y * (y * a if a.dim() == 1 else y @ a.T)).sum(dim=1)

    def arguments(self, dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
        """Return matrix, center and offset."""
        assert isinstance(self.center, Tensor)
        assert isinstance(self.offset, Tensor)
        return [self.matrix, self.center, self.offset], []


@dataclass(frozen=True, eq=False)
class MLP(_Dense):
    """A small dense network with one output: ``h ← activation(bias + weight h)`` layer by layer, the last one linear.

    Float32 throughout; each sum starts from the bias and takes the inputs in order, products and sums never fused. The
    activations are fixed sequences of float32 operations, right to within a few units in the last place.

    Args:
        weights: of each layer, ``[out, in]`` as in ``torch.nn.Linear``; the last has one output.
        biases: of each layer, ``[out]``; zeros where None.
        activation: ``"relu"``, ``"tanh"``, ``"silu"`` or ``"gelu_tanh"`` (torch's GELU with ``approximate="tanh"``).
        name: column name in tables and reports.
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor] | None = None
    activation: str = "relu"
    name: str = "mlp"
    kind: str = field(default="mlp", init=False, repr=False)
    columns: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: unknown value {self.activation!r}; choose one of {', '.join(ACTIVATIONS)}")
        given = list(self.weights)
        if not given:
            raise ValueError("weights: no layer given")
        weights: list[Tensor] = []
        for i, weight in enumerate(given):
            before: int | str = len(weights[-1]) if weights else "D"
            after: int | str = 1 if i + 1 == len(given) else "out"
            weights.append(parameter(f"weights[{i}]", weight, [after, before]))
        biases: list[Any] = [torch.zeros(len(w)) for w in weights] if self.biases is None else list(self.biases)
        if len(biases) != len(weights):
            raise ValueError(f"biases: expected one for each of the {len(weights)} weights, got {len(biases)}")
        checked = [parameter(f"biases[{i}]", b, [len(w)]) for i, (b, w) in enumerate(zip(biases, weights, strict=True))]
        object.__setattr__(self, "weights", tuple(weights))
        object.__setattr__(self, "biases", tuple(checked))
        object.__setattr__(self, "columns", weights[0].shape[1])

    @classmethod
    def from_torch(cls, module: torch.nn.Sequential, *, name: str = "mlp") -> MLP:
        """Copy a ``torch.nn.Sequential`` of ``Linear`` layers with one kind of activation between them.

        Its values agree with the module's up to rounding; the module multiplies in another order.
        """
        layers = list(module)
        linear = [layer for layer in layers[::2] if isinstance(layer, torch.nn.Linear)]
        between = {_activation_of(layer) for layer in layers[1::2]}
        if len(layers) != 2 * len(linear) - 1 or len(between) > 1:
            raise ValueError(
                "module: expected Linear, activation, Linear, …, Linear with one kind of activation (ReLU, Tanh, SiLU or "
                f"GELU(approximate='tanh')), got {[type(layer).__name__ for layer in layers]}"
            )
        biases = [torch.zeros(layer.out_features) if layer.bias is None else layer.bias for layer in linear]
        return cls([layer.weight for layer in linear], biases, between.pop() if between else "relu", name)

    def soft(self, x0: Tensor) -> Tensor:
        """Return float32 ``[n]`` with gradients, by torch."""
        assert self.biases is not None
        h = x0.flatten(1).float()
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = _TORCH[self.activation](F.linear(h, weight, bias))
        return F.linear(h, self.weights[-1], self.biases[-1])[:, 0]

    def arguments(self, dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
        """Return weight and bias of each layer; the activation, the number of layers and all widths."""
        assert self.biases is not None
        parameters = [p for layer in zip(self.weights, self.biases, strict=True) for p in layer]
        widths = [self.columns, *(len(w) for w in self.weights)]
        return parameters, [list(ACTIVATIONS).index(self.activation), len(self.weights), *widths]


def _activation_of(layer: torch.nn.Module) -> str:
    named = {torch.nn.ReLU: "relu", torch.nn.Tanh: "tanh", torch.nn.SiLU: "silu"}
    if isinstance(layer, torch.nn.GELU) and layer.approximate == "tanh":
        return "gelu_tanh"
    if type(layer) not in named:
        raise ValueError(f"module: no compiled form of {layer}; use ReLU, Tanh, SiLU or GELU(approximate='tanh')")
    return named[type(layer)]
