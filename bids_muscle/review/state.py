"""The state of one server: who is in, what runs, and what corrections started from."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bids_muscle.errors import OutputError
from bids_muscle.reports.outputs import ScanOutputs, read_scans, segmentations
from bids_muscle.reports.parts import settle_parts
from bids_muscle.reports.ratings import Rating, merge_ratings, read_ratings, saved_ratings
from bids_muscle.review.access import Tokens
from bids_muscle.review.measuring import Measurements
from bids_muscle.review.scans import EditorScan, find_start_map, open_scan
from bids_muscle.review.voxels import label_positions

#: Label maps that corrections started from and that are kept in memory, to count what changed.
_MOST_STARTS = 8


class ReviewState:
    """One server: its folder, its guests and its runs.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    hosts
        Names under which the server may be reached.
    rater
        Who reads, unless the reader says another name.
    proxies
        Names of proxies in front of it.
    on_admission
        Called with the next token when one was used.
    """

    def __init__(
        self,
        output_dir: Path,
        hosts: Iterable[str],
        rater: str = '',
        proxies: Iterable[str] = (),
        on_admission: Callable[[str], None] = lambda token: None,
    ) -> None:
        self.output_dir = output_dir
        self.hosts = (*hosts, *proxies)
        self.proxies = tuple(proxies)
        self.rater = rater
        self.tokens = Tokens()
        self.measurements = Measurements(output_dir)
        self.readonly = not _can_write(output_dir)
        self.on_admission = on_admission
        self._lock = threading.Lock()
        self._starts: OrderedDict[str, np.ndarray] = OrderedDict()

    def open(self, name: str) -> EditorScan:
        """Return a scan that can be edited."""
        return open_scan(self.output_dir, name)

    def start_labels(self, scan: EditorScan, key: str) -> tuple[str, np.ndarray]:
        """Return the SHA-256 and the label positions of maps to start from, and keep them."""
        start = find_start_map(self.output_dir, scan, key)
        digest = start.digest
        positions = label_positions(start.paths.values(), scan.table)
        with self._lock:
            self._starts[digest] = positions
            while len(self._starts) > _MOST_STARTS:
                self._starts.popitem(last=False)
        return digest, positions

    def kept_start(self, digest: str) -> np.ndarray | None:
        """Return the label positions of a map that a page was given, if they are still known."""
        return self._starts.get(digest)

    def scans(self) -> list[ScanOutputs]:
        """Return all scans with what the raters say now."""
        scans = read_scans(self.output_dir)
        merged = merge_ratings(self.ratings(), segmentations(scans))
        scans = [replace(scan, verdict=merged.verdicts.get(scan.record.scan)) for scan in scans]
        return settle_parts(scans)

    def ratings(self) -> list[Rating]:
        """Return all ratings in the output folder."""
        return read_ratings(saved_ratings(self.output_dir))

    def ratings_of(self, rater: str) -> dict[str, dict[str, Any]]:
        """Return the ratings of one person by scan."""
        return {
            rating.scan: {
                'segmentation': rating.segmentation,
                'rating': rating.rating,
                'muscles': list(rating.muscles),
                'comment': rating.comment,
                'rater': rating.rater,
                'rated_at': rating.rated_at,
            }
            for rating in self.ratings()
            if rating.rater == rater
        }

    def require_writing(self) -> None:
        """Refuse what would change a file where none can be changed."""
        if self.readonly:
            raise OutputError(
                f'The output folder {self.output_dir} is read-only.',
                'Export your ratings from the review page; corrections cannot be saved.',
            )


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
