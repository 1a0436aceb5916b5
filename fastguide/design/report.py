"""What a design run gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastguide.design.settings import DesignSettings
from fastguide.design.writers import DesignRow
from fastguide.protein import Design
from fastguide.report import Score
from fastguide.result import Result

Floats = NDArray[np.float64]


@dataclass
class DesignReport:
    """A finished run.

    Attributes:
        settings: as given. design: what was designed.
        result: the guided run. unguided: the run beside it.
        rows: the designs, best first, all distinct.
        scores: means over all samples, the reward first.
        warnings: alarms, in sentences. notes: what is left out, and why.
        median_distance: median Hamming distance between the designs.
        manifest: settings, versions, counts. files: paths by name.
    """

    settings: DesignSettings
    design: Design
    result: Result
    unguided: Result
    rows: list[DesignRow]
    scores: list[Score]
    warnings: list[str]
    notes: list[str]
    median_distance: float
    manifest: dict[str, Any]
    files: dict[str, Path]

    @property
    def sequences(self) -> list[str]:
        """Letters of the designs, best first, a slash between chains."""
        return [self.design.to_string(row.tokens) for row in self.rows]


@dataclass
class Samples:
    """Sequences of a run with their scores.

    Attributes:
        tokens: int64 ``[n, R_out]``. weights: ``[n]``, summing to 1. values: ``[n]`` by column.
        ancestors: ``[n]`` particle of the first step that each descends from, None if all differ.
    """

    tokens: Tensor
    weights: Floats
    values: dict[str, Floats] = field(default_factory=dict)
    ancestors: NDArray[np.int64] | None = None
