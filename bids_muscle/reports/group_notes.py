"""What the cohort page says about scans that may not be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from bids_muscle.anatomy.labels import REGIONS, load_label_table
from bids_muscle.dataset.records import ScanRecord
from bids_muscle.measurement.muscle import SCAN
from bids_muscle.reports.cohort_values import CohortValues
from bids_muscle.reports.outputs import ScanOutputs


def models_of(scans: Sequence[ScanOutputs]) -> list[str]:
    """Return the models that were used, and the limits that their cards name."""
    models = [scan.record.model for scan in scans if scan.done]
    named = (f'{m["name"]} {m["version"]}: {m["limits"]}' for m in models if m.get('limits'))
    return sorted(set(named))


def mixed(values: CohortValues) -> list[str]:
    """Return what was not the same for all scans, since it may change the numbers."""
    scans = values.scans
    done = [scan.record for scan in scans if scan.done]
    found = {
        'versions of bids_muscle': {record.made_with.version for record in done},
        'settings': {record.made_with.settings for record in done},
        'kinds of device': {record.device.partition(':')[0] for record in done},
    }
    # A corrected scan has neither model nor device.
    counts = {what: len(values - {''}) for what, values in found.items()}
    return [
        f'The scans were processed with {count} different {what}; see group_scans.tsv.'
        for what, count in counts.items()
        if count > 1
    ] + [*_mixed_models(done), *_mixed_extents(values)]


def _mixed_models(done: Sequence[ScanRecord]) -> list[str]:
    """Return where scans of one region were segmented by several models."""
    sentences = []
    for region in sorted({str(record.region) for record in done}):
        used = Counter(
            tuple(record.model.get(key, '') for key in ('name', 'version', 'sha256'))
            for record in done
            if str(record.region) == region and record.model.get('sha256')
        )
        if len(used) > 1:
            named = ', '.join(
                f'{name} {version} ({count} scan{"s" if count > 1 else ""})'
                for (name, version, _), count in sorted(used.items())
            )
            sentences.append(
                f'The scans were processed with {len(used)} different models for the {region} '
                f'region: {named}; see group_scans.tsv. A muscle of the same name counts as the '
                'same, but models outline it differently: differences between them are no '
                'differences between people.'
            )
    return sentences


def _mixed_extents(values: CohortValues) -> list[str]:
    """Return where scans that are compared show different parts of their muscles."""
    sentences = []
    # Structures that only models of other programs know have no such levels.
    known = {label.muscle for region in REGIONS for label in load_label_table(region)}
    of_scan: dict[str, set[str]] = {}
    for scan, (first, last) in zip(values.scans, pairwise(values.starts), strict=True):
        kinds = set(values.kind[first:last][values.kept[first:last]].tolist())
        own = (values.kinds[kind] for kind in kinds)
        of_scan[scan.record.scan] = {extent for _, muscle, _, extent in own if muscle in known}
    for region, contrast, members in by_series(values.scans):
        extents = [of_scan[scan.record.scan] for scan in members]
        whole = sum(SCAN in each for each in extents)
        if 0 < whole < sum(map(bool, extents)):
            sentences.append(
                f'In {whole} of {len(members)} {region} scans ({contrast}) muscles are measured '
                'wherever the scan shows them, in the others within their vertebral levels '
                '(column extent of group_muscles.tsv): volumes, areas and fat are of different '
                'parts of the muscles and are not comparable.'
            )
    return sentences


def by_series(scans: Sequence[ScanOutputs]) -> list[tuple[str, str, list[ScanOutputs]]]:
    """Group scans that can be compared: one region, one contrast."""
    series: dict[tuple[str, str], list[ScanOutputs]] = {}
    for scan in scans:
        if scan.rows:
            series.setdefault((str(scan.record.region), scan.contrast), []).append(scan)
    return [(*key, members) for key, members in sorted(series.items())]
