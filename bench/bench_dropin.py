"""What a change of import saves: each stand-in against what it stands for, in turn, in one process.

FK steering, DAS, AlignInversePro and SVDD are no packages: their algorithms are transcribed in ``tests/adapters/peers*.py``;
``particles`` is the installed package. Run with OMP_PROC_BIND=true; ``--only NAME`` for one case.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fastguide.adapters import das  # noqa: E402
from fastguide.adapters.fkd import FKD  # noqa: E402
from fastguide.bench.timing import Times, alternate, machine  # noqa: E402
from tests.adapters.peers import TheirFKD, their_resampling, their_tempering  # noqa: E402

RESULT = ROOT / "bench" / "results" / "dropin.json"
LAST = 10**6
"""A step that never comes."""


def fkd() -> Times:
    n, rewards = 4096, torch.randn(4096)
    latents = torch.randn(n, 16, 32, 32)  # 64 KiB each
    calls: dict[str, Callable[[], Any]] = {}

    def repeat(make: Callable[[], Any], step: Callable[[Any, int], Any]) -> Callable[[], Any]:
        state = {"fkd": make(), "i": -1}

        def call() -> None:
            state["i"] += 1
            step(state["fkd"], state["i"])

        return call

    def ours() -> FKD:
        return FKD(
            potential_type="rt", lmbda=1.0, num_particles=n, adaptive_resampling=False, resample_frequency=1,
            resampling_t_start=0, resampling_t_end=LAST - 2, time_steps=LAST, reward_fn=lambda x: rewards, device="cpu",
            latent_to_decode_fn=lambda x: rewards,
        )  # fmt: skip

    def theirs() -> TheirFKD:
        return TheirFKD("rt", 1.0, n, False, False, set(range(10**5)), LAST, lambda x: rewards)

    calls["fastguide"] = repeat(ours, lambda f, i: f.resample(sampling_idx=i, latents=latents, x0_preds=latents))
    calls["theirs"] = repeat(theirs, lambda f, i: f.resample(i, latents, rewards))
    return alternate(calls)


def das_resampling() -> Times:
    from particles import resampling as rs

    log_w = 2 * torch.randn(64, 1024)
    ours = das.resampling_function("systematic", 0.5)
    return alternate(
        {
            "fastguide": lambda: ours(log_w.clone()),
            "theirs": lambda: their_resampling(rs.systematic, log_w.clone(), 0.5),
        }
    )


def das_tempering() -> Times:
    base, twist, zero = 0.5 * torch.randn(64, 1024), 5 * torch.randn(64, 1024), torch.zeros(64, 1024)
    low = torch.full((64,), 0.01)
    return alternate(
        {
            "fastguide": lambda: das.adaptive_tempering(base, zero, twist, zero, zero, low, 0.5),
            "theirs": lambda: their_tempering(base, twist, low, 0.5),
        },
        budget=1.0,
        rounds=5,
    )


def bootstrap_filter() -> Times:
    import particles
    from particles import state_space_models as ssm

    import fastguide.adapters.particles as ours

    np.random.seed(0)  # noqa: NPY002
    model = ssm.StochVol(mu=-1.0, rho=0.9, sigma=0.1)
    _, data = model.simulate(10)

    def run(smc: Any, scheme: str) -> None:
        smc(fk=ssm.Bootstrap(ssm=model, data=data), N=10**6, resampling=scheme, ESSrmin=1.0).run()

    return alternate(
        {
            "fastguide": lambda: run(ours.SMC, "systematic"),
            "its scheme alone": lambda: run(particles.SMC, "fastguide_systematic"),
            "theirs": lambda: run(particles.SMC, "systematic"),
        },
        rounds=9,
    )


def particles_resampling() -> Times:
    from particles import resampling as rs

    import fastguide.adapters.particles as ours

    w = np.exp(np.random.default_rng(0).normal(size=10**6))
    w /= w.sum()
    return alternate({"fastguide": lambda: ours.systematic(w), "theirs": lambda: rs.systematic(w)})


def align_inverse_pro() -> Times:
    """All of theirs would take minutes: 2 of its 49 steps, which ask the same of networks and reward each, stand for it."""
    from fastguide.adapters.align_inverse_pro import install
    from fastguide.rewards import PLDDT
    from tests.adapters.peers_masked import TheirInterpolant
    from tests.adapters.peers_mpnn import TheirNetwork, ubiquitin

    model, backbone, plddt = TheirNetwork(), ubiquitin(5), PLDDT(rows=5)
    reward = lambda X, x, *rest: plddt.soft(x[..., :20])  # noqa: E731, N803
    settings = (model, *backbone, reward, "stability")
    ours, theirs = install(TheirInterpolant(50, 0.1)), TheirInterpolant(3, 0.1)
    times = alternate(
        {
            "fastguide": lambda: ours.sample_controlled_SVDD(*settings, repeats=10),
            "theirs": lambda: theirs.sample_controlled_SVDD(*settings, repeats=10),
        },
        rounds=3,
        budget=1.0,
    )
    return Times({**times.seconds, "theirs": {i: s * 49 / 2 for i, s in times.seconds["theirs"].items()}})


def svdd_rna() -> Times:
    """Convolutions of random weights stand for network and reward."""
    from fastguide.adapters.svdd import install
    from tests.adapters.peers_masked import TheirDiffusion

    layers = [torch.nn.Conv1d(a, b, 9, padding=4) for a, b in ((5, 64), (64, 64), (64, 64), (64, 4), (4, 64), (64, 1))]

    def network(x: torch.Tensor) -> torch.Tensor:
        h = torch.nn.functional.one_hot(x, 5).float().transpose(1, 2)
        for layer in layers[:3]:
            h = torch.relu(layer(h))
        return layers[3](h).transpose(1, 2).contiguous()

    def reward(x: torch.Tensor) -> torch.Tensor:
        return layers[5](torch.relu(layers[4](x))).mean(2)

    models = {
        "fastguide": install(TheirDiffusion(network, 50, 128, 64)),
        "theirs": TheirDiffusion(network, 50, 128, 64),
    }

    def run(name: str) -> Callable[[], Any]:
        return lambda: models[name].controlled_sample_tweedie(reward, sample_M=10, options="True")

    return alternate({name: run(name) for name in models}, rounds=3, budget=1.0)


CASES: dict[str, tuple[str, Callable[[], Times]]] = {
    "fkd": ("FKD.resample, 4,096 particles of 64 KiB (transcription)", fkd),
    "das": ("DAS resampling, 64 x 1,024 (transcription)", das_resampling),
    "tempering": ("DAS adaptive tempering, 64 x 1,024 (transcription)", das_tempering),
    "filter": ("particles bootstrap filter, N = 10^6, 10 steps (installed)", bootstrap_filter),
    "align": (
        "AlignInversePro SVDD, ProteinMPNN, 1UBI, batch 5, M = 10, 50 times (transcription)",
        align_inverse_pro,
    ),
    "svdd": ("SVDD RNA, L = 50, 64 sequences, M = 10, 128 steps, convolutions (transcription)", svdd_rna),
    "scheme": ("particles systematic resampling alone, N = 10^6 (installed)", particles_resampling),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CASES)
    only = parser.parse_args().only
    torch.manual_seed(0)
    known = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    for name, (title, measure) in CASES.items():
        if only in (None, name):
            times = measure()
            ratio, medians = times.ratio("theirs", "fastguide"), times.medians
            print(f"{title}: {medians['fastguide'] * 1e3:.3f} ms, theirs {medians['theirs'] * 1e3:.3f} ms, "
                  f"{ratio.median:.2f} x [{ratio.low:.2f}, {ratio.high:.2f}]")  # fmt: skip
            known[name] = {"case": title, "seconds": medians, "ratio": list(ratio)}
    RESULT.write_text(json.dumps({"machine": machine(), "rows": known}, indent=1) + "\n")


if __name__ == "__main__":
    main()
