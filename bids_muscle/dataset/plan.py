"""What would be done, as text for ``--dry-run``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.dataset.names import expected_outputs, joined_outputs
from bids_muscle.dataset.parts import PartSet, find_part_sets
from bids_muscle.dataset.scan import Scan

if TYPE_CHECKING:
    from bids_muscle.segmentation.bundle import ModelBundle


def format_plan(
    scans: Sequence[Scan],
    models: Mapping[str, ModelBundle],
    bids_dir: Path,
    *,
    bias_correction: bool = True,
    atlases: Mapping[str, str] | None = None,
    deformable: bool = False,
    level: str = 'full',
) -> str:
    """Describe inputs, steps and outputs of each scan.

    Parameters
    ----------
    scans
        From :func:`~bids_muscle.dataset.discovery.find_scans`.
    models
        The model of each region; a scan that needs another one says so as its problem.
    bids_dir
        Raw dataset.
    bias_correction, deformable, level
        As in :func:`~bids_muscle.dataset.names.expected_outputs`.
    atlases
        Name of the atlas by region; by default those of the package.

    Returns
    -------
    str
        A block of lines for each scan.
    """
    names = atlases or {}
    choices = {'bias_correction': bias_correction, 'deformable': deformable, 'level': level}
    blocks = [
        _format_scan(scan, models, bids_dir, atlas=names.get(scan.region or ''), **choices)
        for scan in scans
    ]
    if level != 'minimal':
        blocks += [_format_parts(each) for each in find_part_sets(scans)]
    return '\n\n'.join(blocks) + '\n'


def format_counts(scans: Iterable[Scan]) -> str:
    """Return how many scans there are of each region and contrast, the commonest first.

    Parameters
    ----------
    scans
        Of all participants.
    """
    kinds = Counter(
        (scan.region or 'unknown', '+'.join(scan.paths)) for scan in scans if scan.paths
    )
    return ''.join(
        f'{number:>7} {region:<8} {contrasts}\n'
        for (region, contrasts), number in kinds.most_common()
    )


def _format_parts(parts: PartSet) -> str:
    lines = [parts.scan.name]
    lines += [
        f'  {"" if place else "joins":<8} {scan.name}' for place, scan in enumerate(parts.members)
    ]
    lines += [
        f'  {"" if place else "output":<8} {path}'
        for place, path in enumerate(joined_outputs(parts.scan))
    ]
    return '\n'.join(lines)


def _format_scan(
    scan: Scan, models: Mapping[str, ModelBundle], bids_dir: Path, **choices: Any
) -> str:
    lines = [scan.name]
    lines += [
        f'  {"input" if number == 0 else "":<8} {image.contrast:<13} '
        f'{image.path.relative_to(bids_dir)}'
        for number, image in enumerate(scan.images)
    ]
    lines.append(f'  {"region":<8} {scan.region or "unknown"}')
    lines += [f'  {"warning":<8} {warning}' for warning in scan.warnings]
    if scan.problem:
        lines.append(f'  {"problem":<8} {scan.problem.message}')
        lines.append(f'  {"remedy":<8} {scan.problem.remedy}')
    elif model := models.get(scan.region or ''):
        lines.append(
            f'  {"labels":<8} corrected by a person: {", ".join(str(p) for _, p in scan.manual)}'
            if scan.manual
            else f'  {"model":<8} {model.name} {model.version} (SHA-256 {model.sha256[:12]}...)'
        )
        if not scan.manual:
            lines += [f'  {"":<8} {remark}' for remark in model.remarks()]
        outputs = expected_outputs(scan, **choices)
        lines += [
            f'  {"output" if number == 0 else "":<8} {path}' for number, path in enumerate(outputs)
        ]
    return '\n'.join(lines)
