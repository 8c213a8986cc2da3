"""What the group level works on: scans, people, sessions and ratings, put together."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from bids_muscle.dataset.sessions import RawVisits
from bids_muscle.errors import BadDataError
from bids_muscle.reports.cohort import People, recorded_people, session_name
from bids_muscle.reports.cohort_values import CohortValues, read_values
from bids_muscle.reports.copies import mark_copies
from bids_muscle.reports.exclusions import apply_exclusions, read_exclusions
from bids_muscle.reports.outputs import ScanOutputs, segmentations
from bids_muscle.reports.parts import settle_parts
from bids_muscle.reports.ratings import (
    CohortReview,
    Rating,
    merge_ratings,
    read_ratings,
    saved_ratings,
)
from bids_muscle.statistics.sessions import (
    SessionOrder,
    Visits,
    order_sessions,
)


@dataclass(frozen=True)
class GroupOptions:
    """What the user asks of the group level.

    Parameters
    ----------
    ratings
        Files exported from the review page, besides those of ``bids_muscle-report serve``, which
        lie in the output folder; what they exclude keeps its rows in the tables, and
        is left out of the statistics.
    exclude
        List of what does not count either.
    formula, groups, harmonise_sites
        See :class:`bids_muscle.statistics.cohort.AnalysisPlan`.
    session_order
        The order of sessions that the user gave.
    norms
        A file of ``bids_muscle-norms build``.
    detectable
        List of smallest detectable changes.
    """

    ratings: Sequence[Path] = ()
    exclude: Path | None = None
    formula: str | None = None
    groups: Sequence[str] = ()
    harmonise_sites: bool = True
    session_order: Sequence[str] = ()
    norms: Path | None = None
    detectable: Path | None = None


@dataclass(frozen=True)
class RawTables:
    """What the raw dataset says of its participants.

    Parameters
    ----------
    people
        Rows of ``participants.tsv`` by participant; None for what the participant level noted.
    unusable
        Folders that look like participants and are none.
    visits
        What is known of the sessions of each participant; that of participants who are not here
        is what the participant level noted.
    remarks
        Sentences about the tables.
    labels
        Labels of all participants who have a folder.
    """

    people: People | None = None
    unusable: Sequence[str] = ()
    visits: RawVisits = field(default_factory=dict)
    remarks: Sequence[str] = ()
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Cohort:
    """All scans of a derivatives dataset, and what is known of their people.

    Parameters
    ----------
    scans
        Each with its verdict, and with what excludes it.
    people
        Rows of ``participants.tsv`` by participant, as of the first session.
    visits
        What is known of each session of each participant.
    order
        The sessions in the order of time.
    unusable
        Folders of the raw dataset that look like participants and are none.
    ratings
        All ratings, also those of other segmentations.
    review
        What follows from the ratings; None without any.
    remarks
        Sentences about what the list of exclusions names and is not here, and about copies.
    """

    scans: Sequence[ScanOutputs]
    people: People
    visits: Visits
    order: SessionOrder
    unusable: Sequence[str]
    ratings: Sequence[Rating]
    review: CohortReview | None
    remarks: Sequence[str]

    @cached_property
    def values(self) -> CohortValues:
        """The numbers of all muscles of all scans."""
        return read_values(self.scans)

    @property
    def order_text(self) -> str:
        """The order of the sessions in words; empty where there are no two."""
        return self.order.text if len(self.order.names) > 1 else ''

    def check_ratings(self) -> None:
        """Refuse ratings of which none is about a segmentation that is here.

        Raises
        ------
        BadDataError
            If that is so.
        """
        if self.review and self.ratings and not self.review.verdicts:
            first = self.ratings[0]
            raise BadDataError(
                f'None of the {len(self.ratings)} ratings is about a segmentation of this dataset '
                f'({first.place} is about {first.scan!r}). The cohort was written without them.',
                'Give rating files that were exported from the review page of this output folder.',
            )


def settle_cohort(
    scans: Sequence[ScanOutputs], output_dir: Path, options: GroupOptions, raw: RawTables
) -> Cohort:
    """Put the scans of a derivatives dataset together with what excludes them.

    Parameters
    ----------
    scans
        All scans of the dataset.
    output_dir
        The derivatives dataset; participants without a result have their place as well.
    options
        The ratings, the exclusions and the order of sessions of the user.
    raw
        What the raw dataset says.

    Raises
    ------
    MissingInputError, BadDataError, UsageError
        If the ratings or the list of exclusions cannot be used.
    """
    unknown: list[str] = []
    if options.exclude:
        scans, unknown = apply_exclusions(read_exclusions(options.exclude), scans)
    ratings = read_ratings([*options.ratings, *saved_ratings(output_dir)])
    review = None
    if ratings or options.ratings:
        review = merge_ratings(ratings, segmentations(scans))
        scans = [replace(scan, verdict=review.verdicts.get(scan.record.scan)) for scan in scans]
    scans, copies = mark_copies(scans)
    scans = settle_parts(scans)
    for sentence in (*unknown, *copies):
        print(f'bids_muscle: {sentence}', file=sys.stderr)
    visits = _visits(scans, raw.visits)
    order = order_sessions(visits, options.session_order)
    scans = [_of_today(scan, raw.people, visits) for scan in scans]
    return Cohort(
        scans=scans,
        people={**(raw.people or {}), **recorded_people(scans, order)},
        visits=visits,
        order=order,
        unusable=raw.unusable,
        ratings=ratings,
        review=review,
        remarks=[*unknown, *copies],
    )


def _visits(scans: Sequence[ScanOutputs], raw: RawVisits) -> Visits:
    """Return what is known of each session of each participant."""
    visits: dict[str, dict[str, Mapping[str, str]]] = {}
    for record in (scan.record for scan in scans):
        noted = {record.session: record.session_info}
        info = raw.get(record.participant, noted).get(record.session, {})
        own = visits.setdefault(f'sub-{record.participant}', {})
        own[session_name(record)] = info
    return visits


def _of_today(scan: ScanOutputs, people: People | None, visits: Visits) -> ScanOutputs:
    """Return a scan with what the tables of today say of its participant and session."""
    record = scan.record
    info = record.participant_info if people is None else people.get(record.participant, {})
    visit = visits[f'sub-{record.participant}'][session_name(record)]
    return replace(scan, record=replace(record, participant_info=info, session_info=visit))
