"""Protein design from a backbone to files on disk: what ``fastguide design`` does, as a library.

report = fastguide.design.run(pdb="backbone.pdb", chain="A", fix="A1-10", out="designs")
report.sequences, report.files["report.html"]
"""

from fastguide.design.pipeline import DesignRun, run
from fastguide.design.report import DesignReport
from fastguide.design.settings import DesignSettings
from fastguide.design.writers import DesignRow

__all__ = ["DesignReport", "DesignRow", "DesignRun", "DesignSettings", "run"]
