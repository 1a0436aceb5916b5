"""From a backbone to designs on disk: read, draw without guidance, draw with it, choose, score, write.

Each stage writes what it finished before the next begins, so a reward that fails late, or Ctrl-C, costs only what was not
done yet.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastguide.design.folder import RunFolder
from fastguide.design.page import render_report
from fastguide.design.report import DesignReport, Floats, Samples
from fastguide.design.scores import Column, make_scores
from fastguide.design.settings import DesignSettings
from fastguide.design.writers import (
    DesignRow,
    FastaContext,
    designs_csv,
    fasta,
    manifest_json,
    residues_csv,
    samples_csv,
)
from fastguide.guidance import BestOfN, Guidance
from fastguide.models import ProteinMPNN
from fastguide.processes import MaskedProcess
from fastguide.progress import Status, make_progress
from fastguide.protein import Design, read_structure
from fastguide.protein.alphabet import UNKNOWN
from fastguide.report import Score
from fastguide.report.data import roots_of
from fastguide.report.diversity import median_distance
from fastguide.result import Result
from fastguide.rewards import NLL, Reward, resolve, wrap
from fastguide.sample import sample

MOST_UNGUIDED = 64
"""Samples of the unguided run: enough for a mean with a standard error of an eighth of the spread."""
MOST_SCORED = 256
"""Guided samples whose held-out scores are computed; of more, an equally weighted draw is."""
UNGUIDED_SEED = 1 << 62
"""Added to the seed for the unguided run, so that the two runs share no random number."""


class DesignRun:
    """One run of the pipeline; ``folder`` says what is on disk, also after an exception.

    Args:
        settings: what to do.
        say: takes each line for the user; None says nothing.

    Raises:
        ValueError: the output folder is taken.
    """

    def __init__(self, settings: DesignSettings, say: Callable[[str], object] | None = None) -> None:
        self.settings = settings
        self.folder = RunFolder(settings.out, overwrite=settings.overwrite)
        self._say = say or (lambda line: None)

    def execute(self) -> DesignReport:
        """Run all stages and return the report.

        Raises:
            ValueError, FileNotFoundError: a setting does not fit the structure.
            RewardError: the reward failed; what was finished is in ``folder``.
            DegenerateWeights: every sample has weight zero.
            BackendUnavailable: a package is missing.
        """
        with _threads(self.settings.threads):
            self._prepare()
            manifest = self._manifest()
            self.folder.claim(self.design.structure.name)
            self.folder.write("manifest.json", manifest_json({"status": "running", **manifest}))
            try:
                report = self._run(manifest)
            except BaseException as error:
                status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                ended = {"status": status, "error": " ".join(str(error).split()), **manifest}
                self.folder.write("manifest.json", manifest_json(ended))
                raise
        return report

    def _prepare(self) -> None:
        s = self.settings
        self.design = self._read()
        self._say(f"{self.design.structure.name}: {self.design.header()}")
        for note in self.design.notes:
            self._say(f"note: {note}")
        self.model = ProteinMPNN(self.design, weights=s.weights)
        self.soluble = ProteinMPNN(self.design, soluble=True)
        self.reward = self._reward()
        self.scores = make_scores(self.design, self.model, self.soluble, self.reward, s.orders)
        self.process = MaskedProcess(
            length=self.design.length, vocab=self.model.vocab, steps=s.steps, temperature=s.temperature
        )
        for note in self.scores.notes:
            self._say(f"note: {note}")
        guidance = s.make_guidance()
        self._say(
            f"{guidance} · reward {self.reward.name} · {s.particles} particles · {s.steps} steps · temperature "
            f"{s.temperature:g} · seed {s.seed}"
        )

    def _read(self) -> Design:
        s = self.settings
        wishes = {"fix": s.fix, "redesign": s.redesign, "tie": s.tie, "omit": s.omit, "bias": s.bias}
        if s.pdb is None:
            with as_file(files("fastguide").joinpath("data/1UBI.pdb")) as path:
                structure = read_structure(path)
        else:
            structure = read_structure(s.pdb)
        return Design.create(structure, chains=s.chain, **wishes)  # type: ignore[arg-type]

    def _reward(self) -> Reward:
        s = self.settings
        if not isinstance(s.reward, str):
            return wrap(s.reward)
        context: dict[str, Reward] = {
            "likelihood": NLL(self.model, orders=s.orders, name="likelihood"),
            "soluble": NLL(self.soluble, orders=s.orders, name="soluble"),
        }
        return resolve(s.reward, context=context, chains=self.design.chain_lengths)

    def _run(self, manifest: dict[str, Any]) -> DesignReport:
        s, began = self.settings, time.perf_counter()
        unguided = self._sample(BestOfN(alpha=0.0), min(s.particles, MOST_UNGUIDED), s.seed ^ UNGUIDED_SEED, "unguided")
        count = len(unguided.samples)
        known = {"reward": unguided.rewards.numpy()}
        plain = Samples(self.model.decode(unguided.samples), np.full(count, 1 / count), known)
        self.folder.write("unguided.csv", samples_csv(plain.tokens, unguided.rewards.tolist(), self.design))

        result = self._sample(s.make_guidance(), s.particles, s.seed, "guided")
        rows = self._choose(result)
        self._write_designs(rows, None)
        if len(rows) < s.designs:
            self.scores.notes.append(f"{s.designs} designs were asked for, the run has {len(rows)} distinct ones")

        self._say("scoring …")
        guided = self._scored_samples(result)
        native = self._native()
        scores = [self._score(column, guided, plain, native) for column in self.scores.columns]
        rows, confidence = self._score_rows(rows)
        self._write_designs(rows, native.values.get("nll") if native else None)
        self.folder.write("residues.csv", residues_csv(self.design, confidence))

        report = DesignReport(
            settings=s,
            design=self.design,
            result=result,
            unguided=unguided,
            rows=rows,
            scores=scores,
            warnings=[],
            notes=self.scores.notes,
            median_distance=median_distance(torch.stack([row.tokens for row in rows]).numpy()),
            manifest=manifest,
            files={},
        )
        self._finish(report, guided, plain, native, time.perf_counter() - began)
        return report

    def _sample(self, guidance: Guidance, particles: int, seed: int, label: str) -> Result:
        s = self.settings
        with _display(s.progress, label) as show:
            return sample(
                self.process,
                self.model,
                self.reward,
                guidance,
                particles=particles,
                seed=seed,
                memory=s.memory,
                progress=show,
            )

    def _choose(self, result: Result) -> list[DesignRow]:
        best = result.best_indices(self.settings.designs)
        tokens = self.model.decode(result.samples[best])
        self.design.check(tokens)
        free, native = self.design.variable_of >= 0, self.design.native
        known = free & (native != UNKNOWN)
        rows = []
        for rank, (i, sequence) in enumerate(zip(best.tolist(), tokens, strict=True), start=1):
            same = int((sequence[known] == native[known]).sum())
            count = int(known.sum())
            rows.append(
                DesignRow(
                    rank=rank,
                    name=f"{self.design.structure.name}_{rank:04d}",
                    tokens=sequence,
                    reward=float(result.rewards[i]),
                    log_weight=float(result.log_weights[i]),
                    scores={},
                    nll=None,
                    recovery=same / count if count else None,
                    mutations=count - same if count else None,
                )
            )
        return rows

    def _scored_samples(self, result: Result) -> Samples:
        if len(result.samples) > MOST_SCORED:
            drawn = result.draw_indices(MOST_SCORED, seed=self.settings.seed)
            weights = np.full(MOST_SCORED, 1 / MOST_SCORED)
        else:
            drawn = torch.arange(len(result.samples))
            log_weights = result.log_weights.numpy()
            weights = np.exp(log_weights - log_weights.max())
            weights /= weights.sum()
        known = {"reward": result.rewards[drawn].numpy()}
        return Samples(self.model.decode(result.samples[drawn]), weights, known, roots_of(result)[drawn.numpy()])

    def _native(self) -> Samples | None:
        native = self.design.native
        if (native == UNKNOWN).any():
            self.scores.notes.append("the native has residues of unknown amino acid, so it has no scores")
            return None
        return Samples(native[None], np.ones(1))

    def _score(self, column: Column, guided: Samples, plain: Samples, native: Samples | None) -> Score:
        for samples in (guided, plain, native):
            if samples is not None and column.key not in samples.values:
                samples.values[column.key] = column.evaluate(samples.tokens).numpy().astype(np.float64)
        return Score(
            name=column.label,
            role=column.role,
            better=column.better,
            guided=guided.values[column.key],
            weights=guided.weights,
            ancestors=guided.ancestors,
            unguided=plain.values[column.key],
            native=None if native is None else float(native.values[column.key][0]),
            unit=column.unit,
        )

    def _score_rows(self, rows: list[DesignRow]) -> tuple[list[DesignRow], list[float | None]]:
        tokens = torch.stack([row.tokens for row in rows])
        residues = self.scores.residues(tokens).to(torch.float64)
        free = self.design.variable_of >= 0
        nll = residues[:, free].mean(dim=1).tolist()
        further = [c for c in self.scores.columns if c.key not in ("reward", "nll")]
        values = {column.key: column.evaluate(tokens).tolist() for column in further}
        scored = [
            replace(row, scores={key: column[i] for key, column in values.items()}, nll=nll[i])
            for i, row in enumerate(rows)
        ]
        confidence = torch.exp(-residues.mean(dim=0)).tolist()
        return scored, [value if designed else None for value, designed in zip(confidence, free.tolist(), strict=True)]

    def _write_designs(self, rows: list[DesignRow], native_nll: Floats | None) -> None:
        s = self.settings
        context = FastaContext(
            temperature=s.temperature,
            seed=s.seed,
            model=Path(s.weights).stem,
            native_nll=None if native_nll is None else float(native_nll[0]),
        )
        keys = list(rows[0].scores) if rows else []
        self.folder.write("designs.fasta", fasta(rows, self.design, s.fasta_style, context))
        self.folder.write("designs.csv", designs_csv(rows, self.design, keys))

    def _manifest(self) -> dict[str, Any]:
        import fastguide

        s = self.settings
        return {
            "command": s.command(s.out if s.out is None else Path(s.out)),
            "settings": s.as_dict(),
            "seed": s.seed,
            "structure": self.design.structure.name,
            "designed": self.design.header(),
            "versions": {
                "fastguide": fastguide.__version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "machine": f"{platform.system()} {platform.machine()}",
            "weights": {
                str(Path(s.weights).stem): self.model.weights_hash,
                "soluble v_48_020": self.soluble.weights_hash,
            },
            "columns": {
                column.key: {"label": column.label, "role": column.role, "better": column.better}
                for column in self.scores.columns
            }
            | {
                "confidence": {"label": "exp(-nll)", "role": "model", "better": "higher"},
                "recovery": {"label": "share of designed residues equal to the native", "better": None},
            },
        }

    def _finish(
        self, report: DesignReport, guided: Samples, plain: Samples, native: Samples | None, seconds: float
    ) -> None:
        result, unguided = report.result, report.unguided
        page, report.warnings = render_report(report, guided, plain, native)
        self.folder.write("report.html", page)
        report.manifest = {
            "status": "finished",
            **report.manifest,
            "designs": len(report.rows),
            "median_distance": report.median_distance,
            "log_normalizer": str(result.log_normalizer),
            "denoiser_rows": {"guided": result.denoiser_rows, "unguided": unguided.denoiser_rows},
            "reward_rows": {"guided": result.reward_rows, "unguided": unguided.reward_rows},
            "seconds": {"guided": result.seconds, "unguided": unguided.seconds, "total": seconds},
            "peak_memory_bytes": peak_memory(),
            "means": {
                column.key: {
                    "guided": score.guided_mean.mean,
                    "unguided": None if score.unguided_mean is None else score.unguided_mean.mean,
                    "native": score.native,
                }
                for column, score in zip(self.scores.columns, report.scores, strict=True)
            },
            "warnings": report.warnings,
            "notes": report.notes,
        }
        self.folder.write("manifest.json", manifest_json(report.manifest))
        report.files = {name: self.folder.path / name for name in self.folder.written}


def run(settings: DesignSettings | None = None, **changes: Any) -> DesignReport:
    """Design sequences and write them with their report; see `DesignSettings` for the settings.

        report = fastguide.design.run(pdb="backbone.pdb", chain="A", fix="A1-10", out="designs")

    Args:
        settings: all of them, or None for the defaults.
        changes: settings that differ.
    """
    if settings is None:
        settings = DesignSettings(**changes)
    elif changes:
        raise TypeError(f"settings: give DesignSettings or keywords, not both ({', '.join(changes)})")
    return DesignRun(settings).execute()


def peak_memory() -> int | None:
    """Return the most bytes that this process has held, None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) if sys.platform == "darwin" else int(most) * 1024


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def _display(progress: bool | Callable[[Status], object], label: str) -> Iterator[bool | Callable[[Status], object]]:
    if not isinstance(progress, bool) or not progress:
        yield progress
        return
    display = make_progress(True, label=label)
    try:
        yield display
    finally:
        display.close()
