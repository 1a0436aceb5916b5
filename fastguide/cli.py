"""The command line: ``fastguide design``, ``fastguide bench`` and ``fastguide doctor``.

Exit codes: 0 done; 1 ``doctor`` found that the main job cannot run; 2 a mistake of the user, told in one line; 130 Ctrl-C.
Anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import NoReturn

from fastguide.errors import BackendUnavailable, DegenerateWeights, RewardError

MISTAKES = (ValueError, TypeError, OSError, RewardError, BackendUnavailable, DegenerateWeights)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with a suggestion for a misspelt option."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            word = unknown[1].split("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
            message = f"unknown argument {unknown[1]}; {hint}"
        fail(self.prog, message)


def fail(program: str, message: object) -> NoReturn:
    """Print one line on stderr and leave with exit code 2."""
    print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    from fastguide import __version__
    from fastguide.bench import cli as bench

    parser = _Parser(
        prog="fastguide",
        description="Reward-guided generation from pretrained diffusion models.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastguide {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    design = _design_parser(commands)
    benchmarks = bench.add_parser(commands)
    commands.add_parser("doctor", help="say what works on this machine, and how to get what is missing")
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = {"design": design, "bench": benchmarks[getattr(given, "benchmark", None) or ""]}
        known.get(given.command, parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if given.command == "design":
        return _design(given)
    if given.command == "bench" and given.benchmark is not None:
        return _bench(given)
    if given.command == "doctor":
        return _doctor()
    (benchmarks[""] if given.command == "bench" else parser).print_help()
    return 0


def _design_parser(commands: argparse._SubParsersAction[_Parser]) -> _Parser:
    from fastguide.design.settings import FASTA_STYLES, GUIDANCE, DesignSettings

    default = {f.name: f.default for f in fields(DesignSettings)}
    parser = commands.add_parser(
        "design",
        help="design protein sequences for a backbone, guided by a reward",
        description="Design protein sequences for a backbone with ProteinMPNN, guided by a reward. Writes designs.fasta, "
        "designs.csv, residues.csv, unguided.csv, manifest.json and report.html.",
        allow_abbrev=False,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}

    def add(group: str, option: str, text: str, metavar: str, **more: object) -> None:
        where = groups.get(group) or groups.setdefault(group, parser.add_argument_group(group))
        name = option.removeprefix("--").replace("-", "_")
        # Only what was written is handed on, so that DesignSettings alone knows the defaults.
        shown = text if default[name] is None else f"{text} (default: {default[name]})"
        where.add_argument(option, help=shown, metavar=metavar, default=argparse.SUPPRESS, **more)  # type: ignore[arg-type]

    what, how, output = "what to design", "how to draw", "output"
    add(what, "--pdb", "PDB or mmCIF file (default: the bundled 1UBI)", "FILE")
    add(what, "--chain", "chains to design, A or A,B; others are context (default: all)", "A[,B]")
    add(what, "--fix", "residues to keep: A10-25,B52A,C (author numbers)", "RESIDUES")
    add(what, "--redesign", "the only residues to design", "RESIDUES")
    add(what, "--tie", "residues that are equal: A=B for chains, A10,B12;A11,B13 for sets", "TIES")
    add(what, "--omit", "amino acids never drawn: C, or A10-12:PG;C", "LETTERS")
    add(what, "--bias", "logits added: A=0.5,K=-1 or A10:W=2", "AMOUNTS")
    add(how, "--guidance", f"algorithm: {', '.join(GUIDANCE)}", "NAME", choices=GUIDANCE)
    add(how, "--reward", "plddt, plddt-0.1*gravy, my.py:score, …", "TEXT")
    add(how, "--alpha", "temperature of the reward; smaller steers harder", "X", type=float)
    add(how, "--particles", "samples held", "N", type=int)
    add(how, "--branch", "children a particle proposes, of nested-smc, svdd and beam", "M", type=int)
    add(how, "--steps", "reverse steps", "T", type=int)
    add(how, "--temperature", "of the amino-acid draws", "X", type=float)
    add(how, "--seed", "of all draws", "S", type=int)
    add(how, "--weights", "packaged ProteinMPNN weights, or a file", "NAME|FILE")
    add(how, "--memory", "for predictions that are kept: auto, 512MB, 2GB", "SIZE")
    add(how, "--threads", "of torch and the kernels (default: torch's)", "K", type=int)
    add(output, "--designs", "distinct designs to return", "N", type=int)
    add(output, "--orders", "decoding orders that likelihoods are averaged over", "K", type=int)
    add(output, "--fasta-style", f"{', '.join(FASTA_STYLES)}", "STYLE", choices=FASTA_STYLES)
    add(output, "--out", "folder, new or empty (default: a new fastguide_NAME)", "DIR")
    text = "replace the results of another run in --out"
    groups[output].add_argument("--overwrite", action="store_true", default=argparse.SUPPRESS, help=text)
    groups[output].add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _say(line: str) -> None:
    """Print a line; where nobody reads on (``| head``), the run goes on in silence, as its results are on disk."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # The interpreter flushes the stream once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _design(given: argparse.Namespace) -> int:
    from fastguide.design import DesignRun, DesignSettings

    program = "fastguide design"
    say: Callable[[str], object] = (lambda line: None) if given.quiet else _say
    chosen = {name: value for name, value in vars(given).items() if name not in ("command", "quiet")}
    run: DesignRun | None = None
    try:
        settings = DesignSettings(progress=not given.quiet, **chosen)
        for name in settings.unread:
            if name in chosen:
                raise ValueError(f"{name}: {settings.guidance} has no use for it; leave it out")
        run = DesignRun(settings, say)
        report = run.execute()
    except MISTAKES as error:
        kept = f" ({run.folder.describe()})" if run is not None and run.folder.written else ""
        fail(program, f"{error}{kept}")
    except KeyboardInterrupt:
        kept = run.folder.describe() if run is not None else "nothing was written"
        print(f"\n{program}: interrupted; {kept}", file=sys.stderr)
        return 130
    from fastguide.design.summary import summary

    say(summary(report))
    return 0


def _bench(given: argparse.Namespace) -> int:
    from fastguide.bench import cli as bench

    program = f"fastguide bench {given.benchmark}"
    try:
        return bench.main(given, _say)
    except MISTAKES as error:
        fail(program, error)
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted; nothing was written", file=sys.stderr)
        return 130


def _doctor() -> int:
    from fastguide import doctor

    text, able = doctor.report(doctor.examine())
    print(text)
    return 0 if able else 1
