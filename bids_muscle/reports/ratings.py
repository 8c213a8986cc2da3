"""Ratings that people gave on the review page: read, matched with the scans, merged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import format_tsv, write_text
from bids_muscle.errors import PARSE_ERRORS, BadDataError, MissingInputError
from bids_muscle.files import MAX_TABLE_BYTES, read_small
from bids_muscle.statistics.agreement import cohen_kappa
from bids_muscle.tables import MISSING, parse_rows

#: From the best to the worst; where raters differ the worst one holds.
RATINGS = ('pass', 'artefact', 'fail')
#: Columns of a rating file, and keys of a rating in JSON.
COLUMNS = ('scan', 'segmentation', 'rating', 'muscles', 'comment', 'rater', 'rated_at')
FORMAT = 'bids_muscle ratings'
SEPARATOR = '; '


class RatedMap(NamedTuple):
    """What a rating is about: the digest of a label map, and the muscles of its table."""

    digest: str
    muscles: Sequence[str]


@dataclass(frozen=True)
class Rating:
    """What one person says about one segmentation.

    Parameters
    ----------
    scan
        Name of the scan.
    segmentation
        First twelve hex digits of the SHA-256 of the label map that was looked at.
    rating
        One of :data:`RATINGS`.
    muscles
        Names of the muscles that are marked as wrong.
    comment, rater
        Free text.
    rated_at
        When, in ISO 8601, UTC.
    file, place
        File, and file with row, for messages.
    """

    scan: str
    segmentation: str
    rating: str
    muscles: tuple[str, ...] = ()
    comment: str = ''
    rater: str = ''
    rated_at: str = ''
    file: str = ''
    place: str = ''


@dataclass(frozen=True)
class Verdict:
    """What all raters together say about one scan.

    Parameters
    ----------
    rating
        The worst rating that any rater gave.
    muscles
        All muscles that any rater marked.
    raters
        Who rated it, and how.
    comments
        Who said what.
    """

    rating: str
    muscles: tuple[str, ...]
    raters: tuple[str, ...]
    comments: tuple[str, ...]

    def exclusion(self, muscle: str | None = None) -> str:
        """Return why a scan, or one of its muscles, is left out of the cohort; empty if it is not.

        Examples
        --------
        >>> Verdict('pass', ('left psoas',), (), ()).exclusion('left psoas')
        'marked as wrong in the review'
        """
        if self.rating == 'fail':
            return 'rated fail in the review'
        if muscle in self.muscles:
            return 'marked as wrong in the review'
        return ''


@dataclass(frozen=True)
class RaterPair:
    """Agreement of two raters on the scans that both rated."""

    rater_1: str
    rater_2: str
    n_scans: int
    agreement_pct: float
    cohen_kappa: float


@dataclass(frozen=True)
class CohortReview:
    """All ratings of a cohort.

    Parameters
    ----------
    verdicts
        By name of the scan.
    pairs
        Agreement of each two raters.
    notes
        What was left out, and why.
    """

    verdicts: Mapping[str, Verdict]
    pairs: tuple[RaterPair, ...] = ()
    notes: tuple[str, ...] = ()


def read_ratings(paths: Iterable[Path]) -> list[Rating]:
    """Read rating files that the review page exported, as TSV or JSON.

    Raises
    ------
    MissingInputError
        If a file cannot be read.
    BadDataError
        If a file is no rating file, or one of its ratings is broken; the message says which.
    """
    ratings = []
    for path in paths:
        try:
            text = read_small(path, MAX_TABLE_BYTES).decode('utf-8-sig')
        except OSError as error:
            raise MissingInputError(
                f'The rating file {path} cannot be read: {error.strerror}.', 'Check --qc-ratings.'
            ) from error
        except UnicodeDecodeError as error:
            raise _not_ratings(path) from error
        rows = _json_rows(text, path) if path.suffix == '.json' else _tsv_rows(text, path)
        ratings += [_rating(row, str(path), n) for n, row in enumerate(rows, 1)]
    return ratings


def saved_ratings(output_dir: Path) -> list[Path]:
    """Return the rating files that the server of the pages keeps in an output folder, sorted."""
    return sorted((output_dir / dataset_path('ratings', rater='any')).parent.glob('*.tsv'))


def keep_rating(path: Path, row: Mapping[str, Any]) -> None:
    """Add a rating to the file of a rater; it takes the place of an earlier one of the scan.

    Parameters
    ----------
    path
        File of one rater; it need not exist.
    row
        Has :data:`COLUMNS`, with ``muscles`` as a list; without a rating, that of the scan is
        removed.

    Raises
    ------
    MissingInputError, BadDataError
        If the file, or the rating, cannot be used.
    OutputError, FullDiskError
        If the file cannot be written.
    """
    new = [_rating(row, str(path), 1)] if row.get('rating') else []
    kept = read_ratings([path] if path.exists() else [])
    rows = [*(each for each in kept if each.scan != row.get('scan')), *new]
    rows.sort(key=lambda each: each.scan)
    cells = [
        {name: getattr(each, name) for name in COLUMNS} | {'muscles': SEPARATOR.join(each.muscles)}
        for each in rows
    ]
    write_text(format_tsv(cells) if cells else '\t'.join(COLUMNS) + '\n', path)


def merge_ratings(ratings: Sequence[Rating], scans: Mapping[str, RatedMap]) -> CohortReview:
    """Match ratings with the scans of a dataset and merge those of several raters.

    Where one rater rated a scan more than once, the last one counts. A rating of a label map
    other than the present one is ignored, and listed in the notes.

    Raises
    ------
    BadDataError
        If a muscle is unknown.
    """
    latest: dict[tuple[str, str], Rating] = {}
    unknown, outdated = [], []
    for rating in sorted(ratings, key=lambda rating: rating.rated_at):
        scan = scans.get(rating.scan)
        if scan is None:
            unknown.append(rating.scan)
        elif rating.segmentation != scan.digest:
            outdated.append(rating.scan)
        else:
            _check_muscles(rating, scan.muscles)
            latest[rating.scan, rating.rater] = rating
    by_scan: dict[str, list[Rating]] = {}
    for (name, _), rating in sorted(latest.items()):
        by_scan.setdefault(name, []).append(rating)
    # A rating that counts may be replaced by a later one, but its file is of this dataset.
    ours = {rating.file for rating in ratings if rating.scan in scans}
    foreign = sorted({rating.file for rating in ratings} - ours)
    notes = [
        *(
            f'{file} is about none of the scans of this dataset: is it of another?'
            for file in foreign
        ),
        f'{_count(unknown)} no scan of this dataset and left out: {_some(unknown)}.'
        if unknown
        else '',
        f'{_count(outdated)} another segmentation than the present one and left out, so rate '
        f'again: {_some(outdated)}.'
        if outdated
        else '',
    ]
    return CohortReview(
        {name: _verdict(group) for name, group in by_scan.items()},
        tuple(_agreement(by_scan)),
        tuple(note for note in notes if note),
    )


def _verdict(ratings: Sequence[Rating]) -> Verdict:
    return Verdict(
        max((rating.rating for rating in ratings), key=RATINGS.index),
        tuple(dict.fromkeys(muscle for rating in ratings for muscle in rating.muscles)),
        tuple(f'{rating.rater or "unnamed"}: {rating.rating}' for rating in ratings),
        tuple(
            f'{rating.rater or "unnamed"}: {rating.comment}'
            for rating in ratings
            if rating.comment
        ),
    )


def _agreement(by_scan: Mapping[str, Sequence[Rating]]) -> Iterable[RaterPair]:
    raters = sorted({rating.rater for group in by_scan.values() for rating in group})
    given = {
        rater: {
            name: rating.rating
            for name, group in by_scan.items()
            for rating in group
            if rating.rater == rater
        }
        for rater in raters
    }
    for one, two in combinations(raters, 2):
        both = [name for name in given[one] if name in given[two]]
        agreement_pct, kappa = cohen_kappa(
            [given[one][name] for name in both], [given[two][name] for name in both]
        )
        yield RaterPair(one or 'unnamed', two or 'unnamed', len(both), agreement_pct, kappa)


def _tsv_rows(text: str, path: Path) -> Sequence[Mapping[str, Any]]:
    # str.splitlines knows line ends that have no meaning in TSV.
    lines = [line.removesuffix('\r') for line in text.split('\n')]
    if not set(COLUMNS) <= set(lines[0].split('\t')):
        raise _not_ratings(path)
    try:
        cells = list(parse_rows(lines))
    except ValueError as error:
        raise BadDataError(
            f'{path}: {error}.', 'Correct it, or export the ratings again.'
        ) from error
    rows = []
    for each in cells:
        row: dict[str, Any] = {key: '' if cell == MISSING else cell for key, cell in each.items()}
        row['muscles'] = [name for name in row['muscles'].split(SEPARATOR) if name]
        row['segmentation'] = row['segmentation'] or MISSING
        rows.append(row)
    return rows


def _json_rows(text: str, path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        content = json.loads(text)
    except PARSE_ERRORS as error:
        raise _not_ratings(path) from error
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise _not_ratings(path)
    rows = content.get('ratings')
    if not isinstance(rows, list):
        raise _not_ratings(path)
    return rows


def _rating(row: Any, file: str, number: int) -> Rating:
    """Check one rating and build it."""
    source = f'{file}, rating {number}'
    texts = [name for name in COLUMNS if name != 'muscles']
    whole = isinstance(row, dict) and all(isinstance(row.get(name), str) for name in texts)
    muscles = row.get('muscles') if whole else None
    if not isinstance(muscles, list) or not all(isinstance(name, str) for name in muscles):
        raise BadDataError(
            f'{source}: it lacks one of {", ".join(COLUMNS)}.',
            'Correct it, or export the ratings again.',
        )
    if row['rating'] not in RATINGS:
        raise BadDataError(
            f'{source}: {row["rating"]!r} is not a rating.', f'Use one of {", ".join(RATINGS)}.'
        )
    cells = {name: row[name] for name in texts}
    return Rating(**cells, muscles=tuple(muscles), file=file, place=source)


def _check_muscles(rating: Rating, known: Sequence[str]) -> None:
    for name in rating.muscles:
        if name not in known:
            raise BadDataError(
                f'{rating.place}: {name!r} is not a muscle of {rating.scan}.',
                f'Use names of its table: {", ".join(known)}.',
            )


def _not_ratings(path: Path) -> BadDataError:
    return BadDataError(
        f'{path} is not a rating file.',
        'Export the ratings from the review page, as TSV (.tsv) or JSON (.json).',
    )


def _count(names: Sequence[str]) -> str:
    return '1 rating is of' if len(names) == 1 else f'{len(names)} ratings are of'


def _some(names: Sequence[str]) -> str:
    listed = sorted(set(names))
    return ', '.join(listed[:5]) + (f' and {len(listed) - 5} more' if len(listed) > 5 else '')
