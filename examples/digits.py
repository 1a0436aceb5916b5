"""Handwritten digits drawn by a small diffusion model, steered to one digit by a classifier that the model never saw.

Everything is trained here, on the 1,797 real 8 × 8 digits that come with scikit-learn: a Gaussian diffusion model (40 seconds
on two cores), and two classifiers, each on one half of the data. The reward is the log-probability ``log p(digit | x0)`` of the
first; the second, held out, tells whether the samples are that digit or only fool the first. At ``alpha = 1`` the target is the
model's law given the digit, and the normaliser is the probability that an unguided sample is one.

    pip install "fastguide[bench]"
    python examples/digits.py --digit 3
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

import fastguide as fg

SHOWN = 12
"""Samples of each guidance in the picture."""


class Network(nn.Module):
    """Predicts v of states ``[n, 8, 8]`` at noise levels ``[n]``: residual layers over all pixels."""

    def __init__(self, width: int, layers: int = 3) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.arange(1, 17) * math.pi / 2, requires_grad=False)
        self.enter, self.leave = nn.Linear(64 + 32, width), nn.Linear(width, 64)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(layers)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        h = self.enter(torch.cat([x.flatten(1), angles.sin(), angles.cos()], dim=1))
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h).view_as(x)


class Classifier(nn.Sequential):
    """Logits of the ten digits."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))


def train(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    steps: int,
    rate: float,
    generator: torch.Generator,
    rows: int,
) -> nn.Module:
    """Minimise ``loss_of(batch of row numbers)`` by Adam, its rate falling to 0; return the model, frozen."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(torch.randint(rows, (128,), generator=generator)).backward()
        optimizer.step()
        falling.step()
    return model.eval().requires_grad_(False)


def train_diffusion(images: Tensor, process: fg.GaussianProcess, steps: int, width: int) -> nn.Module:
    """Train at the levels of the process: ``v = alpha eps − sigma x0`` by least squares."""
    generator, model = torch.Generator().manual_seed(0), Network(width)
    alphas, sigmas = torch.tensor(process.alphas), torch.tensor(process.sigmas_of_states)
    times = torch.tensor(process.times)

    def loss(batch: Tensor) -> Tensor:
        x0 = images[batch]
        level = torch.randint(process.steps, (len(batch),), generator=generator)
        a, s = alphas[level, None, None], sigmas[level, None, None]
        eps = torch.randn(x0.shape, generator=generator)
        return nn.functional.mse_loss(model(a * x0 + s * eps, times[level]), a * eps - s * x0)

    return train(model, loss, steps, 2e-3, generator, len(images))


def train_classifier(images: Tensor, labels: Tensor, steps: int) -> nn.Module:
    """Train on images with some noise, so that it has something to say of predicted clean samples."""
    generator, model = torch.Generator().manual_seed(1), Classifier()

    def loss(batch: Tensor) -> Tensor:
        noisy = images[batch] + 0.2 * torch.randn(images[batch].shape, generator=generator)
        return nn.functional.cross_entropy(model(noisy), labels[batch])

    return train(model, loss, steps, 3e-3, generator, len(images))


def picture(path: str, shown: dict[str, Tensor], notes: dict[str, str], title: str) -> None:
    figure = Figure(figsize=(8.0, 0.95 * len(shown) + 0.5), layout="constrained")
    for axis, (name, images) in zip(figure.subplots(len(shown), 1), shown.items(), strict=True):
        framed = nn.functional.pad(images[:SHOWN], (1, 1, 1, 1), value=-1.0)
        axis.imshow(torch.cat(list(framed), dim=1), cmap="gray_r", vmin=-1.0, vmax=1.0)
        axis.set_title(f"{name}: {notes[name]}", loc="left", fontsize=9)
        axis.axis("off")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)


def main(
    digit: int = 3,
    steps: int = 40,
    particles: int = 256,
    training: int = 5_000,
    width: int = 256,
    out: str = "digits.png",
) -> dict[str, fg.Result]:
    torch.manual_seed(0)  # of the first weights and of the dropout
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32) / 8.0 - 1.0
    labels = torch.tensor(data.target)
    process = fg.GaussianProcess((8, 8), steps, prediction="v", schedule="cosine", clip_x0=1.0)
    model = train_diffusion(images, process, training, width)
    first, second = (train_classifier(images[k::2], labels[k::2], max(200, training // 10)) for k in range(2))

    def log_probability(x0: Tensor) -> Tensor:
        return first(x0).log_softmax(1)[:, digit]

    guidances = {
        "unguided": fg.BestOfN(alpha=0.0),
        "SMC": fg.SMC(alpha=1.0),
        "SVDD, 4 children": fg.SVDD(alpha=1.0, branch=4),
        "TDS": fg.TDS(alpha=1.0),
        "ClassifierGuidance": fg.ClassifierGuidance(alpha=1.0),
    }
    results, shown, notes = {}, {}, {}
    for name, guidance in guidances.items():
        result = results[name] = fg.sample(
            process, model, log_probability, guidance, particles=particles, progress=False
        )
        print(f"{name}: {result}")
        shown[name] = drawn = result.draw(particles)
        right = (second(drawn).argmax(1) == digit).double().mean()
        reward = log_probability(drawn).mean()
        notes[name] = f"mean log p({digit} | x0) {reward:.2f}; a held-out classifier reads {right:.0%} as {digit}"
        print(f"  {notes[name]}, {result.diversity().distinct} distinct")
    shown["data"], notes["data"] = images[labels == digit], f"the real {digit}s"
    picture(out, shown, notes, f"8 × 8 digits by a Gaussian diffusion of {steps} steps, steered to {digit}")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digit", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--particles", type=int, default=256)
    parser.add_argument("--training", type=int, default=5_000, help="training steps of the diffusion model")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--out", default="digits.png")
    main(**vars(parser.parse_args()))
