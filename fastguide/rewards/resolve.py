"""Rewards written as text, as after ``--reward`` on the command line.

A text is a sum of terms, ``plddt``, ``plddt+0.1*charge`` or ``plddt-2*gravy+my.py:score``. A term is a name with,
perhaps, a number and ``*`` before it. A name is one of `NAMES`, one that the caller adds, or ``file.py:function`` with
a function ``x0 -> [n]`` (or a `Reward`) of a Python file. ``@`` and a number after a property name the value to come
close to: ``isoelectric_point@6.5`` is ``-|pI − 6.5|``. Spaces between terms do not matter.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastguide.rewards.combine import Weighted
from fastguide.rewards.plddt import PLDDT
from fastguide.rewards.properties import ProtParam
from fastguide.rewards.protocol import Reward, wrap

NETWORKS = {"plddt": "V7", "plddt_v6": "V6"}
PROPERTY_NAMES = {
    "isoelectric_point": "isoelectric_point",
    "instability": "instability_index",
    "gravy": "gravy",
    "molecular_weight": "molecular_weight",
    "aromaticity": "aromaticity",
    "charge": "charge_at_pH7",
}
NAMES = (*NETWORKS, *PROPERTY_NAMES)

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


def resolve(text: str, *, context: Mapping[str, Reward] | None = None, chains: Sequence[int] | None = None) -> Reward:
    """Return the reward that a text describes.

    Args:
        text: see the module's description.
        context: further names, such as the likelihood under the model of this run.
        chains: chain lengths for the rewards that score chains by themselves.

    Raises:
        ValueError: the text cannot be read, a name is unknown, or a file fails to load or lacks the function.
        FileNotFoundError: there is no such file.
        BackendUnavailable: a package that a reward needs is not installed.
    """
    extra = dict(context or {})
    names = [*NAMES, *extra]
    term = _term(names)
    terms: list[tuple[float, Reward]] = []
    position, end = 0, len(text.rstrip())
    while position < end or not terms:
        found = term.match(text, position)
        if found is None or (terms and found["sign"] is None):
            rest = text[position:].strip() or "nothing"
            raise ValueError(
                f"reward: cannot read {rest!r} in {text!r}; names are {', '.join(names)} and file.py:function, "
                "joined as in plddt+0.1*charge"
            )
        weight = float(found["number"] or 1) * (-1 if found["sign"] == "-" else 1)
        if math.isinf(weight):
            raise ValueError(f"reward: the number in {found[0].strip()!r} is too large; write a finite one")
        terms.append((weight, _reward(found, extra, chains)))
        if terms[-1][1].name in [term.name for _, term in terms[:-1]]:
            raise ValueError(
                f"reward: two terms of {text!r} are named {terms[-1][1].name!r}; add up their numbers, or rename one "
                "function"
            )
        position = found.end()
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    return Weighted(terms, name=re.sub(r"\s+", "", text))


def _term(names: Sequence[str]) -> re.Pattern[str]:
    known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    return re.compile(
        rf"""\s* (?P<sign>[+-])? \s* (?: (?P<number>{_NUMBER}) \s*\* )? \s*
        (?: (?P<name>{known}) (?: @(?P<target>[+-]?{_NUMBER}) )?
          | (?P<path>[^*:]*?\.py) : (?P<function>[A-Za-z_]\w*) )
        (?= \s* (?: [+-] | $ ) )""",
        re.VERBOSE,
    )


def _reward(found: re.Match[str], extra: Mapping[str, Reward], chains: Sequence[int] | None) -> Reward:
    if found["path"] is not None:
        return _from_file(found["path"].strip(), found["function"])
    name, target = found["name"], found["target"]
    if target is not None and (name in extra or name not in PROPERTY_NAMES):
        raise ValueError(f"reward: {name}@{target}: only {', '.join(PROPERTY_NAMES)} take a target")
    if name in extra:
        return wrap(extra[name], name=name)
    if name in NETWORKS:
        return PLDDT(NETWORKS[name], chains=chains)
    label = name if target is None else f"{name}@{target}"
    return ProtParam(PROPERTY_NAMES[name], target=None if target is None else float(target), name=label)


def _from_file(path: str, function: str) -> Reward:
    source = Path(path).expanduser().resolve()
    if not source.is_file():
        raise FileNotFoundError(f"reward: {path}: no such file; give file.py:function")
    spec = importlib.util.spec_from_file_location(f"fastguide_reward_{source.stem}", source)
    if spec is None or spec.loader is None:
        raise ValueError(f"reward: {source} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up by name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    # A user's file may raise anything, and the line that did is what helps.
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise ValueError(f"reward: {source} fails to load{_line(error, source)}: {error!r}") from error
    value: Any = getattr(module, function, None)
    if not callable(value):
        there = [name for name, member in vars(module).items() if callable(member) and not name.startswith("_")]
        raise ValueError(f"reward: {source} has no function {function!r}; it has {', '.join(there) or 'none'}")
    if isinstance(value, type):
        raise ValueError(f"reward: {function} in {source} is a class; name a function or an instance of it")
    return wrap(value, name=function)


def _line(error: BaseException, source: Path) -> str:
    if isinstance(error, SyntaxError):
        return f" (line {error.lineno})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(source)]
    return f" (line {lines[-1]})" if lines else ""
