"""ProteinMPNN: a denoiser call, and an unguided trajectory against the package's own forward pass at every step.

Run ``python bench/bench_protein_mpnn.py [--particles 64] [--steps 50] [--threads 2]``. The package's forward costs the
same at every step, so it is timed once or twice and multiplied by the number of steps; ours runs the whole trajectory.
Times are the best of the repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import fastguide
from fastguide.models import ProteinMPNN
from fastguide.protein import Design, Structure, read_structure

MASK = 20


def best(repeats: int, run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def package_forward(structure: Structure, n: int) -> Callable[[], object]:
    import proteinmpnn
    from proteinmpnn.protein_mpnn_utils import ProteinMPNN as Package

    file = Path(proteinmpnn.__file__).parent / "data" / "vanilla_model_weights" / "v_48_020.pt"
    content = torch.load(file, weights_only=True)
    network = Package(21, 128, 128, 128, 3, 3, 21, content["num_edges"], augment_eps=0.0, dropout=0.0)
    network.load_state_dict(content["model_state_dict"])
    network.eval()
    size = len(structure.tokens)
    arguments = (
        structure.coordinates.expand(n, -1, -1, -1),
        torch.randint(20, (n, size)),
        torch.ones(n, size),
        torch.ones(n, size),
        structure.residue_index.expand(n, -1),
        (structure.chain + 1).expand(n, -1),
        torch.randn(n, size),
    )

    def run() -> None:
        with torch.no_grad():
            network(*arguments)

    return run


def draw(logits: Tensor) -> Tensor:
    return torch.multinomial(logits.softmax(-1).flatten(0, 1), 1).view(logits.shape[:2])


def trajectory(model: ProteinMPNN, n: int, steps: int, look_ahead: bool) -> Tensor:
    """Draw ``n`` sequences; with ``look_ahead`` every masked position is predicted at every step, as guidance needs."""
    x = torch.full((n, model.length), MASK)
    when = torch.rand(n, model.length).argsort(1) * steps // model.length
    state = model.init(n)
    for step in range(steps):
        wanted = when == step
        found = model.predict(x, state, wanted=None if look_ahead else wanted)
        state = found.state
        x = torch.where(wanted, draw(found.output), x)
    return x


def children(model: ProteinMPNN, n: int, branch: int, steps: int) -> None:
    """Call the model as SVDD does: the distinct children of ``n`` particles, the first of each going on."""
    state = model.init(n)
    x = torch.full((n, model.length), MASK)
    when = torch.rand(n, model.length).argsort(1) * steps // model.length
    rows = torch.arange(n).repeat_interleave(branch)
    logits = torch.zeros(n, model.length, model.vocab)
    for step in range(steps):
        proposed = torch.where((when == step)[rows], draw(logits)[rows].roll(1, 0), x[rows])
        found = model(proposed, torch.ones(len(rows)), state, rows)
        chosen = torch.arange(n) * branch
        x, logits, state = proposed[chosen], found.output[chosen], model.move(found.state, chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pdb", type=Path, default=Path(fastguide.__file__).parent / "data" / "1UBI.pdb")
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    structure = read_structure(options.pdb)
    n, steps = options.particles, options.steps
    model = ProteinMPNN(Design.create(structure))
    start = time.perf_counter()
    state = model.init(n)
    print(f"N = {n}, L = {model.length}, {steps} steps, {options.threads} threads, best of {options.repeats}")
    print(f"backbone encoded and tabulated   {1e3 * (time.perf_counter() - start):9.1f} ms, once")

    tokens = torch.randint(20, (n, model.length))
    for name, part in (("fully", 1.0), ("half", 0.5)):
        x = torch.where(torch.rand(tokens.shape) < part, MASK, tokens)
        seconds = best(options.repeats, lambda x=x: model(x, torch.ones(n), state))
        print(f"call, {name} masked{'':{20 - len(name)}}{1e3 * seconds:9.1f} ms")
    seconds = best(options.repeats, lambda: model.nll(tokens))
    print(f"nll, one order                  {1e3 * seconds:10.1f} ms")
    seconds = best(min(2, options.repeats), lambda: children(model, 16, 8, 19))
    print(f"16 particles x 8 children, 19 steps {seconds:6.2f} s, no two children merged")

    ahead = best(options.repeats, lambda: trajectory(model, n, steps, look_ahead=True))
    plain = best(options.repeats, lambda: trajectory(model, n, steps, look_ahead=False))
    forward = best(min(2, options.repeats), package_forward(structure, n))
    print(f"package's forward                {1e3 * forward:9.1f} ms, times {steps} = {steps * forward:.1f} s")
    print(f"trajectory                       {1e3 * plain:9.1f} ms, {steps * forward / plain:.0f}x faster")
    print(f"trajectory, all masked predicted {1e3 * ahead:9.1f} ms, {steps * forward / ahead:.0f}x faster")


if __name__ == "__main__":
    main()
