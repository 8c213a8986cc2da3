"""What counts in a cohort where people were scanned in parts: the joined scan, never a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bids_muscle.dataset.parts import JOINED
from bids_muscle.reports.outputs import ScanOutputs, number
from bids_muscle.segmentation.quality import LEAST_PART
from bids_muscle.tables import MISSING

#: Labels that scans of one kind may differ in.
_NOT_OF_KIND = ('sub', 'ses', 'run', 'chunk')


def kind_of(scan: ScanOutputs) -> str:
    """Return the name of a scan without participant, session, run and chunk: ``acq-dixon``.

    A joined scan is of the kind of one that shows all at once.
    """
    parts = scan.record.scan.split('_')
    kind = '_'.join(part for part in parts if part.split('-')[0] not in _NOT_OF_KIND)
    return kind.removesuffix(JOINED) if scan.record.parts else kind


def settle_parts(scans: Sequence[ScanOutputs]) -> list[ScanOutputs]:
    """Mark what does not count since it is a part, or joined of parts that do not count.

    What a list or the raters exclude of a part is excluded of the joined scan, and so is a muscle
    whose outline there is not to be used, if the part has enough of it. A part that is
    alone, a ``chunk`` or a scan beside which another one of its kind failed, does not count where
    other people have joined scans of its kind.

    Parameters
    ----------
    scans
        All scans of the cohort, each with its exclusions and verdict.
    """
    by_name = {scan.record.scan: scan for scan in scans}
    joined = {(scan.record.region, kind_of(scan)) for scan in scans if scan.record.parts}
    failed = {_place(scan) for scan in scans if not (scan.done or scan.record.parts)}
    settled = []
    for scan in scans:
        reasons = dict(scan.excluded)
        if scan.record.parts:
            for name in set(scan.record.parts) - set(scan.record.aside):
                if part := by_name.get(name):
                    for key, reason in _judged(_without_ends(part, scan)).items():
                        reasons.setdefault(key, f'{name}: {reason}')
        elif (
            not scan.part_of
            and (scan.record.region, kind_of(scan)) in joined
            and ('_chunk-' in scan.record.scan or _place(scan) in failed)
        ):
            reasons.setdefault('', 'a part alone; other people have all parts')
        settled.append(replace(scan, excluded=reasons) if reasons else scan)
    return settled


def _place(scan: ScanOutputs) -> tuple[str, str | None, str]:
    return scan.record.participant, scan.record.session, kind_of(scan)


def _without_ends(part: ScanOutputs, whole: ScanOutputs) -> ScanOutputs:
    """Return a part without doubt about outlines of which it has only a small end."""
    if not part.unusable:
        return part
    ml, of_whole = (
        {row['name']: number(row.get('volume_ml', MISSING)) or 0.0 for row in scan.rows}
        for scan in (part, whole)
    )
    dice = {
        name: value
        for name, value in part.predicted_dice.items()
        if ml.get(name, 0.0) >= LEAST_PART * of_whole.get(name, 0.0)
    }
    return replace(part, predicted_dice=dice)


def _judged(part: ScanOutputs) -> dict[str, str]:
    """Return what a list or the raters exclude of a part: '' for all of it, names of muscles."""
    if whole := part.judgement():
        return {'': whole}
    names = {row['name']: part.judgement(row) for row in part.rows}
    return {name: reason for name, reason in names.items() if reason}
