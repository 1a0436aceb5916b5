"""What a change of import saves: each stand-in against what it stands for, in turn, in one process.

FK steering and DAS are no packages: theirs is the clone where ``FG_PEERS`` names a folder that has one, else the transcription
in ``tests/adapters/peers.py``; AlignInversePro and SVDD are transcribed in ``peers_masked.py``; ``particles`` is the installed
package. Every row says which. Run with OMP_PROC_BIND=true; ``--only NAME`` for one case.
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
from tests.adapters.peers import (  # noqa: E402
    DAS_UTILS,
    FKD_CLASS,
    TheirFKD,
    clone,
    their_resampling,
    their_tempering,
)

RESULT = ROOT / "bench" / "results" / "dropin.json"
TABLE = RESULT.with_suffix(".md")
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

    def make(kind: Any) -> Callable[[], Any]:
        return lambda: kind(
            potential_type="diff", lmbda=1.0, num_particles=n, adaptive_resampling=False, resample_frequency=1,
            resampling_t_start=0, resampling_t_end=10**5, time_steps=LAST, device="cpu",
            reward_fn=lambda x: torch.randn(n), latent_to_decode_fn=lambda x: rewards,
        )  # fmt: skip

    def theirs() -> TheirFKD:
        return TheirFKD("diff", 1.0, n, False, False, set(range(10**5)), LAST, lambda x: torch.randn(n))

    def step(f: Any, i: int) -> None:
        f.resample(sampling_idx=i, latents=latents, x0_preds=latents)

    calls["fastguide"] = repeat(make(FKD), step)
    original = clone(FKD_CLASS)
    if original is None:
        calls["theirs"] = repeat(theirs, lambda f, i: f.resample(i, latents, rewards))
    else:
        calls["theirs"] = repeat(make(original.FKD), step)
    return alternate(calls)


def das_resampling() -> Times:
    from particles import resampling as rs

    log_w = 2 * torch.randn(64, 1024)
    ours, original = das.resampling_function("systematic", 0.5), clone(DAS_UTILS)
    theirs = original and original.resampling_function("systematic", 0.5)
    return alternate(
        {
            "fastguide": lambda: ours(log_w.clone()),
            "theirs": lambda: theirs(log_w.clone()) if theirs else their_resampling(rs.systematic, log_w.clone(), 0.5),
        }
    )


def das_tempering() -> Times:
    base, twist, zero = 0.5 * torch.randn(64, 1024), 5 * torch.randn(64, 1024), torch.zeros(64, 1024)
    low, original = torch.full((64,), 0.01), clone(DAS_UTILS)
    given = (base, zero, twist, zero, zero, low, 0.5)
    return alternate(
        {
            "fastguide": lambda: das.adaptive_tempering(*given),
            "theirs": lambda: (
                original.adaptive_tempering(*given) if original else their_tempering(base, twist, low, 0.5)
            ),
        },
        budget=1.0,
        rounds=5,
    )


def bootstrap_filter() -> Times:
    """The stochastic volatility of their documentation, its data of 20 steps and default settings."""
    import particles
    from particles import state_space_models as ssm

    import fastguide.adapters.particles as ours

    np.random.seed(0)  # noqa: NPY002
    model = ssm.StochVol(sigma=0.3, rho=0.9)
    _, data = model.simulate(20)

    def run(smc: Any, scheme: str) -> None:
        smc(fk=ssm.Bootstrap(ssm=model, data=data), N=10**6, resampling=scheme).run()

    return alternate(
        {
            "fastguide": lambda: run(ours.SMC, "systematic"),
            "its scheme alone": lambda: run(particles.SMC, "fastguide_systematic"),
            "theirs": lambda: run(particles.SMC, "systematic"),
        },
        budget=10.0,
        rounds=9,
    )


def random_walk_filter() -> Times:
    """The random walk of their README, seen through noise that makes every step resample."""
    import particles
    from particles import distributions, state_space_models

    import fastguide.adapters.particles as ours

    class Toy(state_space_models.StateSpaceModel):
        def PX0(self) -> Any:  # noqa: N802
            return distributions.Normal()

        def PX(self, t: int, xp: Any) -> Any:  # noqa: N802
            return distributions.Normal(loc=xp)

        def PY(self, t: int, xp: Any, x: Any) -> Any:  # noqa: N802
            return distributions.Normal(loc=x, scale=self.sigma)

    np.random.seed(0)  # noqa: NPY002
    model = Toy(sigma=0.2)
    _, data = model.simulate(20)

    def run(smc: Any) -> None:
        smc(fk=state_space_models.Bootstrap(ssm=model, data=data), N=10**6).run()

    return alternate({"fastguide": lambda: run(ours.SMC), "theirs": lambda: run(particles.SMC)}, budget=10.0, rounds=9)


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


def blackjax_resampling() -> Times:
    import blackjax.smc.resampling as theirs
    import jax

    import fastguide.adapters.blackjax as ours

    n = 2**20
    key, weights = jax.random.key(0), jax.nn.softmax(jax.random.normal(jax.random.key(1), (n,)))

    def jitted(module: Any) -> Callable[[], Any]:
        draw = jax.jit(lambda k, w: module.systematic(k, w, n))
        return lambda: draw(key, weights).block_until_ready()

    return alternate({"fastguide": jitted(ours), "theirs": jitted(theirs)})


def source(file: str) -> str:
    """Say what stands for a peer that is no package."""
    return "transcription" if clone(file) is None else "clone"


CASES: dict[str, tuple[str, Callable[[], Times]]] = {
    "fkd": (f"FKD.resample, 4,096 particles of 64 KiB ({source(FKD_CLASS)})", fkd),
    "das": (f"DAS resampling, 64 x 1,024 ({source(DAS_UTILS)})", das_resampling),
    "tempering": (f"DAS adaptive tempering, 64 x 1,024 ({source(DAS_UTILS)})", das_tempering),
    "filter": ("particles, bootstrap filter, stochastic volatility, N = 10^6 (installed)", bootstrap_filter),
    "walk": ("particles, bootstrap filter, random walk, N = 10^6 (installed)", random_walk_filter),
    "blackjax": ("blackjax, systematic resampling under jit, N = 2^20 (installed)", blackjax_resampling),
    "scheme": ("particles, systematic resampling alone, N = 10^6 (installed)", particles_resampling),
    "align": ("AlignInversePro, SVDD, ProteinMPNN, 1UBI, batch 5, M = 10, 50 times (transcription)", align_inverse_pro),
    "svdd": ("SVDD, RNA, L = 50, 64 sequences, M = 10, 128 steps, convolutions (transcription)", svdd_rna),
}


def table(rows: dict[str, Any]) -> str:
    """Return a table of what was measured; the head says how to measure it again."""
    lines = [
        "# Drop-ins",
        "",
        "Medians; in brackets the 10 % and 90 % quantiles of the ratios of single rounds. The peer is its installed package,",
        "its clone (in the folder that `FG_PEERS` names) or a transcription of its algorithm.",
        "`OMP_PROC_BIND=true python bench/bench_dropin.py` prints it again.",
        "",
        "| case | fastguide, ms | theirs, ms | times faster |",
        "|---|---|---|---|",
    ]
    for row in rows.values():
        (median, low, high), s = row["ratio"], row["seconds"]
        lines.append(
            f"| {row['case']} | {s['fastguide'] * 1e3:.3g} | {s['theirs'] * 1e3:.4g} | {median:.3g} [{low:.3g}, {high:.3g}] |"
        )
    return "\n".join(lines) + "\n"


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
    known = {name: known[name] for name in [*CASES, *known] if name in known}
    RESULT.write_text(json.dumps({"machine": machine(), "rows": known}, indent=1) + "\n")
    TABLE.write_text(table(known))


if __name__ == "__main__":
    main()
