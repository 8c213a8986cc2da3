"""Figures of a scan: files of their own, or together in an archive."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bids_muscle.dataset.names import derivative_path, figure_names
from bids_muscle.dataset.scan import Scan


@dataclass(frozen=True)
class Packed:
    """A file in a zip archive, read as a path is."""

    archive: Path
    name: str

    @property
    def suffix(self) -> str:
        """Ending of its name, with the dot."""
        return Path(self.name).suffix

    def read_bytes(self) -> bytes:
        """Return its content; OSError if it cannot be read."""
        try:
            with zipfile.ZipFile(self.archive) as archive:
                return archive.read(self.name)
        except (zipfile.BadZipFile, KeyError) as error:
            raise OSError(f'{self.archive} is broken') from error

    def read_text(self, encoding: str = 'utf-8') -> str:
        """Return its content as text."""
        return self.read_bytes().decode(encoding)


def read_figures(
    output_dir: Path, scan: Scan, names: Iterable[str]
) -> tuple[Path, dict[str, str], dict[str, Path | Packed]]:
    """Return the folder of the figures, the names of their files, and those that are there."""
    relative, files = figure_names(scan, names)
    folder = output_dir / relative
    there = _list_files(folder)
    found: dict[str, Path | Packed] = {
        name: folder / file for name, file in files.items() if file in there
    }
    archive = output_dir / derivative_path(scan, 'packed_figures')
    if archive.name in there:
        with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(archive) as packed:
            inside = {name.partition('.')[0]: Packed(archive, name) for name in packed.namelist()}
            found |= {name: inside[name] for name in files if name in inside}
    return folder, files, found


def _list_files(folder: Path) -> set[str]:
    """Return the names of the files of a folder: a cohort has too many to ask for each."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()
