"""What would be done, as text for ``--dry-run``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.dataset.names import expected_outputs
from bids_muscle.dataset.scan import Scan
from bids_muscle.errors import BidsMuscleError, Problem

if TYPE_CHECKING:
    from bids_muscle.segmentation.bundle import ModelBundle


def format_plan(
    scans: Sequence[Scan],
    models: Mapping[str, ModelBundle | BidsMuscleError],
    bids_dir: Path,
    output_dir: Path,
) -> str:
    """Say for each scan what goes in, what runs and what comes out.

    Parameters
    ----------
    scans
        From :func:`~bids_muscle.dataset.discovery.find_scans`.
    models
        By region: the model that would be used, or why there is none.
    bids_dir, output_dir
        Raw and derivatives dataset.

    Returns
    -------
    str
        Lines for people; the last one counts.
    """
    blocks = [_format_scan(scan, models, bids_dir) for scan in scans]
    ready = sum(_problem(scan, models) is None for scan in scans)
    blocks.append(
        f'{ready} of {len(scans)} scans can be processed; outputs go to {output_dir}. '
        'Nothing was computed.'
    )
    return '\n\n'.join(blocks) + '\n'


def _format_scan(
    scan: Scan, models: Mapping[str, ModelBundle | BidsMuscleError], bids_dir: Path
) -> str:
    problem = _problem(scan, models)
    lines = [scan.name]
    lines += [
        f'  {"input" if place == 0 else "":<8} {image.contrast:<13} '
        f'{image.path.relative_to(bids_dir)}'
        for place, image in enumerate(scan.images)
    ]
    lines.append(f'  {"region":<8} {scan.region or "unknown"}')
    lines += [f'  {"warning":<8} {warning}' for warning in scan.warnings]
    if problem:
        lines += [f'  {"problem":<8} {problem.message}', f'  {"remedy":<8} {problem.remedy}']
        return '\n'.join(lines)
    model = models.get(scan.region or '')
    if model is not None and not isinstance(model, BidsMuscleError):
        lines.append(
            f'  {"model":<8} {model.name} {model.version} (SHA-256 {model.sha256[:12]}...)'
        )
        outputs = expected_outputs(scan, seg=model.labels.segmentation)
        lines += [
            f'  {"output" if place == 0 else "":<8} {path}' for place, path in enumerate(outputs)
        ]
    return '\n'.join(lines)


def _problem(scan: Scan, models: Mapping[str, ModelBundle | BidsMuscleError]) -> Problem | None:
    model = models.get(scan.region or '')
    return scan.problem or (model.problem if isinstance(model, BidsMuscleError) else None)
