"""The review page: a wall of all scans, to be rated by keyboard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bids_muscle.dataset.names import dataset_path
from bids_muscle.reports.figure_files import Packed
from bids_muscle.reports.outputs import ScanOutputs, edited_scans
from bids_muscle.reports.page import SCANS_HERE, data_uri, environment, page_pieces
from bids_muscle.reports.ratings import FORMAT, SEPARATOR
from bids_muscle.reports.scan_data import ScanData

#: Scans whose pictures are in archives and are part of the page, at most: each takes about 0.5 MB.
MOST_EMBEDDED = 500


def review_page(
    scans: Sequence[ScanOutputs],
    data: ScanData,
    output_dir: Path,
    served: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Give the review page in pieces; its pictures are files beside it.

    Parameters
    ----------
    scans
        All scans of the dataset.
    data
        From :func:`~bids_muscle.reports.scan_data.scan_data`.
    output_dir
        The derivatives dataset.
    served
        If it comes from the server: ``rater``, ``readonly``, and the ``ratings`` that are kept.
    """
    # The server takes pictures out of archives one by one, which a file cannot.
    embed = served is None
    too_many = embed and _has_many_packed(scans)

    def pictures(scan: ScanOutputs) -> dict[str, str]:
        figures = dict(scan.figures.items())
        if too_many:
            figures = {n: each for n, each in figures.items() if not isinstance(each, Packed)}
        return _pictures(figures, output_dir, embed=embed)

    rows = (
        {**row, **pictures(scan), 'edited': edited_scans(scan)}
        for scan, row in zip(scans, data.scans(), strict=True)
    )
    page = (
        environment()
        .get_template('review.html.j2')
        .render(
            title='Review',
            script='scans.js review.js',
            served=served,
            too_many=too_many,
            scans=len(scans),
            cohort=str(dataset_path('group_report')),
            data={
                **data.shared,
                'format': FORMAT,
                'separator': SEPARATOR,
                'scans': SCANS_HERE,
                'served': served,
            },
        )
    )
    return page_pieces(page, rows)


def _has_many_packed(scans: Sequence[ScanOutputs]) -> bool:
    """Return whether more scans have pictures in archives than a page can hold."""
    packed = (
        scan for scan in scans if any(isinstance(each, Packed) for _, each in scan.figures.items())
    )
    return len(list(islice(packed, MOST_EMBEDDED + 1))) > MOST_EMBEDDED


def _pictures(
    figures: Mapping[str, Path | Packed], output_dir: Path, *, embed: bool
) -> dict[str, str]:
    """Return addresses relative to the output folder, empty where there is no picture.

    A picture within an archive is its own address, or has one below that of the archive, which
    the server knows.
    """

    def address(*names: str) -> str:
        picture = next((figures[name] for name in names if name in figures), None)
        if isinstance(picture, Packed):
            if embed:
                return data_uri(picture)
            picture = picture.archive / picture.name
        return quote(picture.relative_to(output_dir).as_posix()) if picture else ''

    return {
        'thumbnail': address('thumbnail', 'segmentation'),
        'bare': address('slices'),
        'outlined': address('segmentation'),
        'extent': address('extent'),
    }
