"""The front that the defaults of `fastguide design` were chosen from: reward, held-out scores, diversity and cost on 1UBI.

python bench/bench_design_front.py            # the whole grid, one seed
python bench/bench_design_front.py --defaults # the defaults over three seeds, against the unguided run
"""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import torch

import fastguide as fg
from fastguide.design import DesignSettings
from fastguide.models import ProteinMPNN
from fastguide.protein import Design, read_structure
from fastguide.rewards import PLDDT


class Bench:
    def __init__(self) -> None:
        self.design = Design.create(read_structure(str(files("fastguide") / "data" / "1UBI.pdb")))
        self.model = ProteinMPNN(self.design)
        self.soluble = ProteinMPNN(self.design, soluble=True)
        self.plddt, self.held_out = PLDDT("V7"), PLDDT("V6")

    def run(self, s: DesignSettings) -> None:
        process = fg.MaskedProcess(self.model.length, self.model.vocab, s.steps, temperature=s.temperature)
        result = fg.sample(
            process, self.model, self.plddt, s.make_guidance(), particles=s.particles, seed=s.seed, progress=False
        )
        x = self.model.decode(result.draw(min(64, s.particles)) if s.guidance == "smc" else result.samples)
        distance = (x[:, None] != x[None]).sum(-1).double()
        distance = distance[~torch.eye(len(x), dtype=torch.bool)].median()
        print(
            f"{s.guidance:9s} T {s.temperature:<4} alpha {s.alpha:<4} N {s.particles:<4} M {s.make_guidance().branch:<3} "
            f"steps {s.steps:<3} seed {s.seed} | V7 {self.plddt(x).mean():6.2f}  V6 {self.held_out(x).mean():6.2f}  "
            f"soluble NLL {self.soluble.nll(x, orders=4).mean():.3f}  distinct {len(x.unique(dim=0))}/{len(x)}  "
            f"median Hamming {distance:.0f}/{x.shape[1]} | {result.denoiser_rows} denoiser rows, {result.reward_rows} "
            f"reward rows, {result.seconds:.1f} s",
            flush=True,
        )


def main() -> None:
    bench, base = Bench(), DesignSettings()
    for temperature in (0.1, 0.3, 0.5, 0.7, 1.0):
        bench.run(replace(base, temperature=temperature, guidance="best-of-n", alpha=0.0))
        bench.run(replace(base, temperature=temperature))
    for alpha in (0.0, 0.1, 1.0):
        bench.run(replace(base, alpha=alpha))
    for branch in (4, 16):
        bench.run(replace(base, branch=branch))
    for alpha in (0.5, 2.0):
        bench.run(replace(base, guidance="smc", alpha=alpha, particles=256))


if __name__ == "__main__":
    main()
