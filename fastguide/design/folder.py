"""The folder of a run: claimed once, filled file by file, never shared with another run by accident."""

from __future__ import annotations

from pathlib import Path

from fastguide.report.files import write_text

FILES = ("designs.fasta", "designs.csv", "residues.csv", "unguided.csv", "manifest.json", "report.html")
"""What a run writes."""


class RunFolder:
    """Where a run writes. Nothing is created before the first file.

    Args:
        path: the folder, or None for a new one in the working directory.
        overwrite: allow results of another run there; they are deleted before the first file is written.

    Raises:
        ValueError: the folder holds something, or is a file.
    """

    def __init__(self, path: str | Path | None, *, overwrite: bool = False) -> None:
        self._given = None if path is None else Path(path).expanduser()
        self._overwrite = overwrite
        self._path: Path | None = None
        self.written: list[str] = []
        if self._given is None:
            return
        if self._given.exists() and not self._given.is_dir():
            raise ValueError(f"out: {self._given} is a file; name a folder")
        if not overwrite and self._given.is_dir() and any(self._given.iterdir()):
            raise ValueError(
                f"out: {self._given} is not empty; name another folder, or add --overwrite to replace a run"
            )

    def claim(self, name: str) -> Path:
        """Create the folder (``fastguide_<name>``, numbered if that exists, where none was given) and return it."""
        if self._path is not None:
            return self._path
        if self._given is not None:
            try:
                self._given.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"out: cannot create {self._given} ({error.strerror}); name another folder") from error
            for file in FILES if self._overwrite else ():
                (self._given / file).unlink(missing_ok=True)
            self._path = self._given
            return self._path
        number = 1
        while self._path is None:
            candidate = Path(f"fastguide_{name}" if number == 1 else f"fastguide_{name}_{number}")
            try:
                # Creating is the test, so that two runs started at once get two folders.
                candidate.mkdir()
                self._path = candidate
            except FileExistsError:
                number += 1
        return self._path

    @property
    def path(self) -> Path:
        """The folder, once claimed."""
        if self._path is None:
            raise RuntimeError("the folder is not claimed yet")
        return self._path

    def write(self, name: str, text: str) -> Path:
        """Write a file whole; a second time replaces it."""
        path = write_text(self.path / name, text)
        if name not in self.written:
            self.written.append(name)
        return path

    def describe(self) -> str:
        """Return what is on disk, for a message."""
        if not self.written:
            return "nothing was written"
        return f"on disk in {self.path}: {', '.join(self.written)}"
