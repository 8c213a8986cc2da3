"""Figures of a scan: files of their own, or together in an archive."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bids_muscle.dataset.names import derivative_path, figure_paths
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
) -> tuple[dict[str, Path], dict[str, Path | Packed]]:
    """Return where each figure would be as a file of its own, and those that are there."""
    places = {name: output_dir / path for name, path in figure_paths(scan, names).items()}
    found: dict[str, Path | Packed] = {
        name: path for name, path in places.items() if path.is_file()
    }
    archive = output_dir / derivative_path(scan, 'packed_figures')
    if archive.is_file():
        with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(archive) as packed:
            inside = {name.partition('.')[0]: Packed(archive, name) for name in packed.namelist()}
            found |= {name: inside[name] for name in places if name in inside}
    return places, found
