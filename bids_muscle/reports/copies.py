"""Scans of a cohort that have the images of another scan, such as one uploaded for two people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from bids_muscle.reports.outputs import ScanOutputs
from bids_muscle.tables import name_some


def mark_copies(scans: Sequence[ScanOutputs]) -> tuple[list[ScanOutputs], list[str]]:
    """Mark scans that do not count since another scan has the same images.

    As repeats they would agree perfectly, as sessions nothing would ever change, and as people
    they would count twice. Within a session the first one counts; elsewhere nothing tells to whom,
    or to which session, the images belong, so none does. Scans that are excluded are not compared:
    once the wrong one is, the other counts.

    Parameters
    ----------
    scans
        All scans of the cohort, each with its exclusions and verdict.

    Returns
    -------
    scans : list of ScanOutputs
        Each with what is excluded of it.
    notes : list of str
        A sentence for each set of equal images.
    """
    by_images: dict[str, list[ScanOutputs]] = defaultdict(list)
    for scan in scans:
        record = scan.record
        # A joined scan has the checksum of its first part, and does not count without its parts.
        if record.images_sha256 and scan.done and not (record.parts or scan.judgement()):
            by_images[record.images_sha256].append(scan)
    reasons: dict[str, str] = {}
    notes = []
    for copies in (each for each in by_images.values() if len(each) > 1):
        names = [scan.record.scan for scan in copies]
        places = {(scan.record.participant, scan.record.session) for scan in copies}
        if len(places) == 1:
            reasons |= dict.fromkeys(
                names[1:], f'it has the images of {names[0]}, so it is no repeat'
            )
            left_out = 'Only the first counts in the cohort.'
        else:
            people = {participant for participant, _ in places}
            whose = 'which participant' if len(people) > 1 else 'which session'
            reasons |= {
                name: f'it has the images of {name_some(n for n in names if n != name)}, and it '
                f'is not known to {whose} they belong'
                for name in names
            }
            left_out = (
                f'It is not known to {whose} they belong, so none counts in the cohort. Correct '
                'the dataset, or exclude the wrong ones with --exclude.'
            )
        notes.append(f'These scans have the same images: {name_some(names)}. {left_out}')
    marked = [
        replace(scan, excluded={**scan.excluded, '': reasons[scan.record.scan]})
        if scan.record.scan in reasons
        else scan
        for scan in scans
    ]
    return marked, notes
