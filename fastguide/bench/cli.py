"""The command line of the benchmarks: ``fastguide bench kernels | bars | step | sample | record``."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

EFFORTS = ("quick", "normal", "full")
RESULTS = Path("bench") / "results"


def add_parser(commands: Any) -> dict[str, argparse.ArgumentParser]:
    """Add ``bench`` and its commands to a command line; return the parsers by command."""
    from fastguide.bench.registry import KERNELS
    from fastguide.bench.sample import DENOISERS, GUIDANCE, PROCESSES, SampleSettings

    bench = commands.add_parser(
        "bench",
        help="measure this machine: kernels against their peers, guided steps, whole runs",
        description="Measure this machine. Competitors take turns in one process; every result is checked before it is timed. "
        "Set OMP_PROC_BIND=true and leave the machine alone for figures that mean something.",
        allow_abbrev=False,
    )
    parts = bench.add_subparsers(dest="benchmark", metavar="BENCHMARK", parser_class=type(bench))

    def add(name: str, help_text: str, more: str = "") -> Any:
        return parts.add_parser(name, help=help_text, description=f"{help_text}. {more}".strip(), allow_abbrev=False)

    kernels = add("kernels", "each kernel against the packages installed", "Peers that are absent are named.")
    kernels.add_argument("--ops", metavar="OP[,OP]", help=f"kernels to run: {', '.join(KERNELS)} (default: all)")
    bars = add("bars", "the ratios that the kernels have to reach, each met or not")
    bars.add_argument("--only", metavar="WORDS", help="only rows whose description contains these words")
    step = add(
        "step",
        "the whole guided step against eager torch",
        "Propose, predict, value, weigh, select, move; masked and Gaussian; denoiser inside the step, or its output given.",
    )
    for parser in (kernels, step):
        effort = parser.add_mutually_exclusive_group()
        effort.add_argument("--quick", action="store_const", const="quick", dest="effort", help="one small size")
        effort.add_argument("--full", action="store_const", const="full", dest="effort", help="all sizes up to 2^26")
        parser.add_argument("--sizes", metavar="N[,N]", help="particle counts, such as 1000,2^20")
        parser.set_defaults(effort="normal")

    run = add("sample", "a whole guided run: samples a second, rows a second, shares of time, peak memory")
    default = {f.name: f.default for f in fields(SampleSettings)}
    options: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        (
            "process",
            "masked, uniform, autoregressive: bundled small denoiser; protein: 1UBI, ProteinMPNN weights",
            "NAME",
            {"choices": PROCESSES},
        ),
        ("particles", "samples held", "N", {"type": int}),
        ("branch", "children a particle proposes, svdd only", "M", {"type": int}),
        ("length", "positions of a state, not protein", "L", {"type": int}),
        ("vocab", "tokens, not protein", "V", {"type": int}),
        ("steps", "reverse steps", "T", {"type": int}),
        ("guidance", f"algorithm: {', '.join(GUIDANCE)}", "NAME", {"choices": GUIDANCE}),
        ("alpha", "temperature of the reward", "X", {"type": float}),
        ("reward", "pwm or file.py:function; with protein as in fastguide design", "TEXT", {}),
        ("denoiser", f"{', '.join(DENOISERS)}, not protein", "NAME", {"choices": DENOISERS}),
        ("memory", "for predictions that are kept: auto, 512MB, 2GB", "SIZE", {}),
        ("seed", "of all draws", "S", {"type": int}),
        ("repeats", "runs; that of median duration counts", "R", {"type": int}),
    )
    for name, text, metavar, more in options:
        shown = text if default[name] is None else f"{text} (default: {default[name]})"
        run.add_argument(f"--{name}", help=shown, metavar=metavar, default=argparse.SUPPRESS, **more)
    run.add_argument("--json", action="store_true", help="print JSON")

    record = add("record", "what the documentation shows: tables and plots, under nine minutes a part")
    record.add_argument("part", choices=("select", "kernels", "step", "bars"), help="what to record")
    for parser in (kernels, bars, step, record):
        parser.add_argument(
            "--rounds", type=int, default=15, metavar="R", help="turns of each competitor (default: 15)"
        )
    where = "folder for JSON, Markdown and plots"
    for parser in (kernels, bars, step, run):
        parser.add_argument("--out", metavar="DIR", type=Path, help=f"{where} (default: none, only print)")
    record.add_argument("--out", metavar="DIR", type=Path, default=RESULTS, help=f"{where} (default: {RESULTS})")
    return {"": bench, **parts.choices}


def main(given: argparse.Namespace, say: Callable[[str], object]) -> int:
    """Run a benchmark; ``say`` prints a line.

    Raises:
        ValueError: an option is wrong. BackendUnavailable: a package that was asked for is missing.
    """
    if given.benchmark == "sample":
        return _sample(given, say)
    if given.rounds < 3:
        raise ValueError(f"rounds: expected a whole number of at least 3, got {given.rounds}")
    part = given.part if given.benchmark == "record" else given.benchmark
    return {"select": _kernels, "kernels": _kernels, "step": _step, "bars": _bars}[part](given, say)


def parse_sizes(text: str | None) -> tuple[int, ...] | None:
    """Return ``1000,2^20`` as numbers.

    Raises:
        ValueError: the text cannot be read, or a size is out of range.
    """
    if text is None:
        return None
    sizes = []
    for word in text.split(","):
        base, _, power = word.strip().partition("^")
        size = 0
        with suppress(ValueError, OverflowError):
            size = int(base) ** int(power) if power and int(power) < 64 else int(base) if not power else 0
        if not 4 <= size <= 2**30:
            raise ValueError(f"sizes: cannot use {word.strip()!r}; write numbers from 4 to 2^30, such as 1000,2^20")
        sizes.append(size)
    return tuple(sizes)


def _kernels(given: argparse.Namespace, say: Callable[[str], object]) -> int:
    from fastguide.bench import registry
    from fastguide.bench.case import Sizes

    ops = getattr(given, "ops", None)
    names = registry.choose(ops.split(",") if ops is not None else None)
    file = "kernels"
    if given.benchmark == "record":
        # `select` has a record of its own: so many sizes and peers that each part ends within its time.
        file = given.part
        names = ("select",) if file == "select" else tuple(name for name in names if name != "select")
    sizes = Sizes(parse_sizes(getattr(given, "sizes", None)), getattr(given, "effort", "normal"))
    return _run(file, file.capitalize(), names, sizes, ("select",), given, say)


def _step(given: argparse.Namespace, say: Callable[[str], object]) -> int:
    from fastguide.bench.case import Sizes

    sizes = Sizes(parse_sizes(getattr(given, "sizes", None)), getattr(given, "effort", "normal"))
    return _run("guided_step", "The whole guided step", ("guided_step",), sizes, ("guided_step",), given, say)


def _run(
    file: str,
    title: str,
    names: Iterable[str],
    sizes: Any,
    panels: tuple[str, ...],
    given: Any,
    say: Callable[[str], object],
) -> int:
    from fastguide.bench import output, plot, registry, run

    machine, copy, about = _machine(say)
    rows: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    code = 0
    try:
        for name in names:
            for case in registry.cases(name, sizes):
                outcome = run.measure(case, rounds=given.rounds)
                found = outcome.rows(copy)
                rows += found
                absent |= {f"{case.op}, {case.job}: {peer}": why for peer, why in outcome.case.absent.items()}
                say(output.case_lines(found, outcome.case.absent))
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    if given.out is not None and rows:
        content = {"machine": machine, "copy_bytes_per_s": copy, "rows": rows, "absent": absent}
        written = output.save(given.out, file, content, output.rows_markdown(title, about, rows, absent))
        for panel in panels:
            if any(row["op"] == panel for row in rows):
                path = given.out / f"{panel}.png"
                plot.draw([panel], rows, path)
                written.append(path)
        say(f"wrote {', '.join(map(str, written))}")
    return code


def _machine(say: Callable[[str], object]) -> tuple[dict[str, Any], float, str]:
    from fastguide.bench import output, timing

    machine, copy = timing.machine(), timing.copy_bandwidth()
    about = output.heading(machine, copy)
    say(about)
    if not os.environ.get("OMP_PROC_BIND"):
        say("OMP_PROC_BIND is not set: two threads may share a core; set OMP_PROC_BIND=true for figures to keep")
    return machine, copy, about


def _bars(given: argparse.Namespace, say: Callable[[str], object]) -> int:
    from fastguide.bench import output, registry, run

    only = getattr(given, "only", None) or ""
    chosen = [bar for bar in registry.bars() if only.lower() in f"{bar.what}, {bar.against}".lower()]
    if not chosen:
        raise ValueError(f"only: no row contains {only!r}; fastguide bench bars prints them all")
    machine, copy, about = _machine(say)
    results: list[dict[str, Any]] = []
    code = 0
    try:
        for _, same in groupby(chosen, key=lambda bar: bar.what):
            found = run.check_bars(list(same), copy, rounds=given.rounds)
            results += found
            say("\n".join(map(output.bar_line, found)))
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    met = sum(r["met"] is True for r in results)
    say(f"{met} of {len(chosen)} met, {sum(r['met'] is None for r in results)} not available")
    if given.out is not None and results:
        content = {"machine": machine, "copy_bytes_per_s": copy, "bars": results}
        written = output.save(given.out, "bars", content, output.bars_markdown(about, results))
        say(f"wrote {', '.join(map(str, written))}")
    return code


def _sample(given: argparse.Namespace, say: Callable[[str], object]) -> int:
    from fastguide.bench import sample, timing

    chosen = {f.name: getattr(given, f.name) for f in fields(sample.SampleSettings) if hasattr(given, f.name)}
    figures = sample.measure(sample.SampleSettings(**chosen))
    content = json.dumps({"machine": timing.machine(), **figures}, indent=1)
    say(content if given.json else sample.text(figures))
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        path = given.out / "sample.json"
        path.write_text(content + "\n", encoding="utf-8")
        if not given.json:
            say(f"wrote {path}")
    return 0
