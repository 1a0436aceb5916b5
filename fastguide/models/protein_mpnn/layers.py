"""The few layers that encoder and decoder share, in a form whose rows have the same bits in any batch.

The bits of a row of a matrix product depend on the *shape* of the product, not on the rows beside it. So products are
taken in blocks of one shape. On the CPU they go through a 1x1 convolution: oneDNN's runs at twice the speed of the BLAS behind
``torch.mm`` on the AVX-512 machines that this BLAS does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CPU = torch.device("cpu")


@contextmanager
def inference(device: torch.device = CPU) -> Iterator[None]:
    """No graph is recorded and no product on ``device`` is cast down inside, whatever the caller's modes are."""
    kind = device.type
    cast = torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
    with torch.no_grad(), cast, _whole_products() if kind == "cuda" else nullcontext():
        yield


@contextmanager
def _whole_products() -> Iterator[None]:
    """Products of float32 on a GPU are not rounded to TF32 inside, whose factors have 11 bits for float32's 24.

    A sample may not depend on a switch of the whole process that other code sets for its own speed; it is put back.
    """
    matmul = torch.backends.cuda.matmul
    older = True
    try:
        before, precision = matmul.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # chosen by torch's newer setting, after which the older one cannot be read
        older, before, precision = False, matmul.fp32_precision, ""
    name, whole = ("allow_tf32", False) if older else ("fp32_precision", "ieee")
    if before == whole:
        yield
        return
    setattr(matmul, name, whole)
    try:
        yield
    finally:
        setattr(matmul, name, before)
        if precision == "medium":  # on a GPU the same as "high", which the line above has made of it
            torch.set_float32_matmul_precision(precision)


BLOCK = 256
"""Rows of a product of node states. With one thread, torch hands no convolution of fewer than 160 rows to oneDNN."""

GPU_BLOCK = 2048
"""The same on a GPU, and rows of a chunk of the decoder there: enough for all its multiprocessors at 128 columns."""

_IMAGE = 16
"""Rows of one image of such a product: oneDNN gives whole images to its threads."""


class Affine(NamedTuple):
    """A linear map.

    Attributes:
        weight: ``[out, in]`` float32.
        bias: ``[out]`` float32, or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``[m, in]`` to ``[m, out]``, in blocks of one shape."""
        m, rows = len(x), BLOCK if x.device.type == "cpu" else GPU_BLOCK
        x = F.pad(x, (0, 0, 0, -m % rows))
        out = torch.empty(len(x), len(self.weight), dtype=torch.float32, device=x.device)
        for start in range(0, m, rows):
            images = x[start : start + rows].view(-1, _IMAGE, x.shape[1])
            out[start : start + rows] = self.block(images).view(rows, -1)
        return out[:m]

    def block(self, x: Tensor) -> Tensor:
        """Map ``[b, m, in]`` to ``[b, m, out]``, both contiguous, in one product."""
        if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return F.linear(x, self.weight, self.bias)
        image = x.transpose(1, 2).unsqueeze(2)
        return F.conv2d(image, self.weight[:, :, None, None], self.bias).squeeze(2).transpose(1, 2).contiguous()


class Norm(NamedTuple):
    """A layer normalisation over the last axis."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise ``[..., H]``."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class NodeUpdate(NamedTuple):
    """What a layer does to a node once its messages are summed: both kinds of layer end in it.

    Attributes:
        message: the last map of the message network, moved behind the sum over neighbours (it is linear).
        norm1, inner, outer, norm2: residual normalisation, feed-forward network, residual normalisation.
    """

    message: Affine
    norm1: Norm
    inner: Affine
    outer: Affine
    norm2: Norm

    def __call__(self, h: Tensor, total: Tensor) -> Tensor:
        """Update nodes ``h [m, H]`` by their summed messages ``total [m, H]``."""
        h = self.norm1(self.message(total).add_(h))
        return self.norm2(self.outer(gelu_(self.inner(h))).add_(h))


def gelu_(x: Tensor) -> Tensor:
    """Apply the exact (error function) GELU in place."""
    return torch.ops.aten.gelu_(x)  # type: ignore[no-any-return]


def affine(parameters: dict[str, Tensor], name: str) -> Affine:
    """Return the linear map called ``name``; its bias is None where the file holds none."""
    return Affine(parameters[f"{name}.weight"], parameters.get(f"{name}.bias"))


def norm(parameters: dict[str, Tensor], name: str) -> Norm:
    """Return the layer normalisation called ``name``."""
    return Norm(parameters[f"{name}.weight"], parameters[f"{name}.bias"])


def node_update(parameters: dict[str, Tensor], name: str, scale: float, neighbours: int | None) -> NodeUpdate:
    """Return the end of layer ``name``.

    Args:
        parameters: the weights by name.
        name: the layer's prefix.
        scale: what the summed messages are divided by.
        neighbours: how many messages are summed, each of which brings the bias once. None where the count differs from
            node to node; the map then has no bias, and the caller adds it.
    """
    last = affine(parameters, f"{name}.W3")
    assert last.bias is not None
    return NodeUpdate(
        Affine(last.weight / scale, None if neighbours is None else last.bias * (neighbours / scale)),
        norm(parameters, f"{name}.norm1"),
        affine(parameters, f"{name}.dense.W_in"),
        affine(parameters, f"{name}.dense.W_out"),
        norm(parameters, f"{name}.norm2"),
    )
