"""The files of a design: FASTA in three dialects, CSV tables, the manifest."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastguide.protein import Design


@dataclass(frozen=True)
class DesignRow:
    """A finished design.

    Attributes:
        rank: from 1, best reward first.
        name: ``1UBI_0001``.
        tokens: int64 ``[R_out]``.
        reward: the optimised reward.
        log_weight: of the sample it comes from.
        scores: further columns by their key.
        nll: mean negative log-likelihood of the designed residues in nats, None before scoring.
        recovery: share of the designed residues of known native that equal it, None where there is none.
        mutations: designed residues that differ from a known native.
    """

    rank: int
    name: str
    tokens: Tensor
    reward: float
    log_weight: float
    scores: Mapping[str, float]
    nll: float | None
    recovery: float | None
    mutations: int | None

    @property
    def confidence(self) -> float | None:
        """exp(−nll): the geometric mean of the probabilities of the designed residues."""
        return None if self.nll is None else math.exp(-self.nll)


@dataclass(frozen=True)
class FastaContext:
    """What headers say beside the design itself.

    Attributes:
        temperature: of the draws. seed: of the run. model: name of the weights.
        native_nll: mean negative log-likelihood of the native, None where it is unknown.
    """

    temperature: float
    seed: int
    model: str
    native_nll: float | None = None


def fasta(rows: Sequence[DesignRow], design: Design, style: str, context: FastaContext) -> str:
    """Return the FASTA file of the designs.

    Args:
        rows: best first.
        design: what was designed.
        style: ``fastguide`` (keys as in the CSV, chains separated by ``/``), ``proteinmpnn`` (native first, ``/``) or
            ``ligandmpnn`` (native first, ``:``). In the latter two a number that does not exist is ``nan``.
        context: the rest of the headers.
    """
    lines = []
    name = design.structure.name
    # A global score is over all residues of the structure; where some are kept, the run has no likelihood for them.
    whole = len(design.free) == len(design.structure)
    separator = ":" if style == "ligandmpnn" else "/"
    native = design.to_string(design.native, separator)
    score = _nan(context.native_nll)
    if style == "proteinmpnn":
        shown = sorted({row.chain for row in design.table()})
        other = [chain for chain in design.structure.chain_ids if chain not in shown]
        lines += [
            f">{name}, score={score:.4f}, global_score={score if whole else math.nan:.4f}, fixed_chains={other}, "
            f"designed_chains={shown}, model_name={context.model}, seed={context.seed}",
            native,
        ]
    elif style == "ligandmpnn":
        length = len(design.native)
        lines += [
            f">{name}, T={context.temperature:g}, seed={context.seed}, num_res={length}, model={context.model}",
            native,
        ]
    for row in rows:
        lines += [_header(row, style, context, name, whole), design.to_string(row.tokens, separator)]
    return "\n".join(lines) + "\n"


def _header(row: DesignRow, style: str, context: FastaContext, name: str, whole: bool) -> str:
    nll, recovery = _nan(row.nll), _nan(row.recovery)
    if style == "proteinmpnn":
        return (
            f">T={context.temperature:g}, sample={row.rank}, score={nll:.4f}, "
            f"global_score={nll if whole else math.nan:.4f}, seq_recovery={recovery:.4f}"
        )
    if style == "ligandmpnn":
        confidence = _nan(row.confidence)
        return (
            f">{name}, id={row.rank}, T={context.temperature:g}, seed={context.seed}, "
            f"overall_confidence={confidence:.4f}, ligand_confidence={confidence:.4f}, seq_rec={recovery:.4f}"
        )
    values = {"rank": row.rank, "reward": row.reward, **row.scores, "nll": row.nll}
    values |= {"confidence": row.confidence, "recovery": row.recovery, "log_weight": row.log_weight}
    values["seed"] = context.seed
    return f">{row.name} " + " ".join(f"{k}={_text(v)}" for k, v in values.items() if v is not None)


def designs_csv(rows: Sequence[DesignRow], design: Design, score_keys: Iterable[str]) -> str:
    """Return the table of designs, one row each, one sequence column a chain."""
    chains = list(dict.fromkeys(row.chain for row in design.table()))
    keys = list(score_keys)
    head = ["rank", "name", *(f"sequence_{chain or 'chain'}" for chain in chains), "reward", *keys]
    head += ["nll", "confidence", "recovery", "log_weight", "mutations"]
    lines = [
        [
            row.rank,
            row.name,
            *design.to_string(row.tokens).split("/"),
            row.reward,
            *(row.scores.get(key) for key in keys),
            row.nll,
            row.confidence,
            row.recovery,
            row.log_weight,
            row.mutations,
        ]
        for row in rows
    ]
    return table([head, *lines])


def residues_csv(design: Design, confidence: Sequence[float | None]) -> str:
    """Return the table of residues: author label, column, chain, native, state, mean confidence of the designs."""
    head = ["label", "column", "chain", "native", "state", "variable", "mean_confidence"]
    rows = [
        [row.label, row.column, row.chain, row.native, row.state, row.variable, value]
        for row, value in zip(design.table(), confidence, strict=True)
    ]
    return table([head, *rows])


def samples_csv(tokens: Tensor, rewards: Sequence[float], design: Design) -> str:
    """Return the table of the unguided samples."""
    chains = list(dict.fromkeys(row.chain for row in design.table()))
    head = ["sample", *(f"sequence_{chain or 'chain'}" for chain in chains), "reward"]
    rows = [
        [i, *design.to_string(row).split("/"), reward]
        for i, (row, reward) in enumerate(zip(tokens, rewards, strict=True), start=1)
    ]
    return table([head, *rows])


def table(rows: Iterable[Iterable[object]]) -> str:
    """Return CSV text: floats to six significant digits, None as an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([_text(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def manifest_json(manifest: Mapping[str, Any]) -> str:
    """Return the manifest as JSON; numbers that JSON does not know become null."""
    return json.dumps(_plain(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
