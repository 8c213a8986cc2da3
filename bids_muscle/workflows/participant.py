"""One Nipype graph per participant: seven nodes for each scan, three for a sagittal one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import BaseInterface
from nipype.pipeline.engine import Node, Workflow

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.names import left_out
from bids_muscle.dataset.participants import height_m
from bids_muscle.dataset.scan import DIXON, Contrast, Scan
from bids_muscle.dataset.sessions import read_person
from bids_muscle.dataset.spine_maps import find_spine_maps, read_label_names
from bids_muscle.engine.outcome import Key
from bids_muscle.imaging.atlas import CARD as ATLAS_CARD
from bids_muscle.imaging.conform import read_grid
from bids_muscle.interfaces.align import AlignScan
from bids_muscle.interfaces.correct import CorrectScan
from bids_muscle.interfaces.figures import PlotScan
from bids_muscle.interfaces.measure import MeasureScan
from bids_muscle.interfaces.prepare import PrepareScan
from bids_muscle.interfaces.publish import PublishScan
from bids_muscle.interfaces.quality import AssessScan
from bids_muscle.interfaces.segment import SegmentScan
from bids_muscle.interfaces.spine import MeasureSpine, PublishSpine, SegmentSpine
from bids_muscle.segmentation.bundle import ModelBundle

if TYPE_CHECKING:
    from bids_muscle.engine.resources import Resources
    from bids_muscle.settings import Settings
    from bids_muscle.workflows.planning import RunInputs

#: What a step holds at its peak: GB whatever the scan, and bytes per voxel of all its images; at
#: least a tenth above what was measured on scans of 0.1 and 8 million voxels (docs/benchmarks.md).
_MEMORY = {
    'prepare': (0.47, 42),
    'segment': (0.8, 34),
    'segment_spine': (0.8, 60),
    'segment_in_atlas': (1.7, 40),
    'correct': (0.42, 12),
    'measure': (0.44, 12),
    'quality': (0.42, 18),
    'align': (0.8, 10),
    'figures': (0.55, 22),
    'publish': (0.42, 10),
    'measure_maps': (0.44, 12),
    'join_planes': (0.45, 0),
    'loads': (0.85, 0),
}


def workflow_name(label: str) -> str:
    """Return a Nipype name for a participant label or a scan name.

    Examples
    --------
    >>> workflow_name('sub-01_acq-dixon')
    'sub_01_acq_dixon'
    """
    return label.replace('-', '_').replace('+', '__plus__')


def init_participant_wf(
    *,
    participant: str,
    scans: Sequence[Scan],
    sagittal: Sequence[Scan],
    inputs: RunInputs,
    resources: Resources,
    corrected: Mapping[str, Mapping[str, Path]] = MappingProxyType({}),
) -> Workflow:
    """Connect the steps of all scans of one participant.

    Parameters
    ----------
    participant
        Label without ``sub-``.
    scans
        Scans without a problem, each with a region.
    sagittal
        The sagittal scans whose vertebrae are in the derivatives dataset by now.
    inputs
        Settings, models and atlases of the run.
    resources
        Threads of one step, and whether segmentation leases a GPU.
    corrected
        Images by scan and contrast whose bias field an earlier run has removed.

    Returns
    -------
    Workflow
        With one sub-workflow per scan, named by :func:`workflow_name`.
    """
    workflow = Workflow(workflow_name(f'sub-{participant}'))
    settings = inputs.settings
    # Maps of other programs go before those of bids_muscle itself.
    by_name = {scan.name: scan for scan in sagittal}
    names = {scan.name for scan in (*scans, *sagittal) if scan.region == SPINE}
    own = find_spine_maps([settings.output_dir], participant, names)
    spines = [
        *find_spine_maps(settings.derivatives, participant, names),
        *(spine_map for spine_map in own if spine_map.stem in by_name),
    ]
    for scan in scans:
        if scan.region == SPINE:
            graph = init_spine_wf(scan=scan, inputs=inputs, resources=resources)
        else:
            vertebrae = {
                spine_map.vertebrae: by_name.get(spine_map.stem)
                for spine_map in spines
                if spine_map.vertebrae and spine_map.session == scan.session
            }
            graph = init_scan_wf(
                scan=scan,
                vertebrae=vertebrae,
                inputs=inputs,
                resources=resources,
                corrected=corrected.get(scan.name, {}),
            )
        workflow.add_nodes([graph])
    return workflow


def init_scan_wf(
    *,
    scan: Scan,
    vertebrae: Mapping[Path, Scan | None],
    inputs: RunInputs,
    resources: Resources,
    corrected: Mapping[str, Path] = MappingProxyType({}),
) -> Workflow:
    """Connect the steps of one scan, from prepare to publish.

    Where a person made the labels, they are read instead of segmented.

    Parameters
    ----------
    scan
        A scan of muscles.
    vertebrae
        Label maps of vertebrae of its session, each with its sagittal scan if that is known.
    inputs, resources, corrected
        As for :func:`init_participant_wf`.
    """
    assert scan.region is not None  # noqa: S101 - a scan without region has a problem
    settings, model = inputs.settings, inputs.models[scan.region]
    atlas = inputs.atlases.get(scan.region)
    atlas_card = atlas / ATLAS_CARD if atlas else None
    paths = (*scan.paths.values(), *scan.echoes)
    node = partial(_node, scan.name, sum(math.prod(read_grid(path).shape) for path in paths))
    in_atlas = model.card.get('space') == 'atlas'
    prepare = node('prepare', _prepare(scan, settings, corrected))
    if scan.manual:
        manual = str(dict(scan.manual)['dseg'])
        labels = node('correct', CorrectScan(manual=manual, table=model.labels))
    else:
        labels = node(
            'segment',
            _segment(scan, inputs, atlas_card if in_atlas else None, use_gpu=resources.use_gpu),
            like='segment_in_atlas' if in_atlas else 'segment',
            threads=resources.omp_nthreads,
        )
    align = node('align', _align(scan, model, vertebrae, atlas_card, settings))
    measure = node('measure', _measure(scan, model, settings))
    quality = node('quality', AssessScan(table=model.labels))
    figures = node('figures', PlotScan(table=model.labels, level=settings.output_level))
    publish = node('publish', PublishScan(**_published(scan, model, settings)))
    workflow = Workflow(workflow_name(scan.name))
    workflow.connect(
        [
            (prepare, align, _same('native', 'corrected', 'body_mask')),
            (labels, align, _same('labels')),
            (align, measure, _same('levels')),
            (align, figures, _same('atlas_image', 'atlas_labels', 'levels')),
            (align, publish, _same('aligned', 'alignment')),
            (
                prepare,
                measure,
                _same(
                    *('raw', 'corrected', 'body_mask', 'fat_fraction', 'bounded', 'swap'),
                    *('swap_searched', 'image_doubt'),
                ),
            ),
            (prepare, figures, _same('raw', 'corrected', 'fat_fraction', 'body_mask')),
            (prepare, publish, _same('native', 'corrected', 'body_mask', 'fat_fraction', 'swap')),
            (prepare, quality, _same('raw', 'corrected', 'body_mask', 'swap', 'swap_searched')),
            (labels, quality, _same('labels')),
            (labels, measure, _same('labels')),
            (labels, figures, _same('labels')),
            (measure, publish, _same('tables', 'fat_map')),
            (labels, publish, _same('labels')),
            (quality, publish, _same('iqm')),
            (figures, publish, _same('figures')),
        ]
    )
    if scan.manual:
        workflow.connect(prepare, 'native', labels, 'native')
    else:
        # Other programs do not correct the bias field.
        seen = 'raw' if 'external' in model.card else 'corrected'
        workflow.connect(prepare, seen, labels, 'images')
        if in_atlas:
            workflow.connect(prepare, 'body_mask', labels, 'body_mask')
        workflow.connect(labels, 'confidence', figures, 'confidence')
        workflow.connect(labels, 'confidence', publish, 'confidence')
        workflow.connect(labels, 'quality', publish, 'quality')
        workflow.connect(labels, 'quality', measure, 'quality')
    return workflow


def _prepare(scan: Scan, settings: Settings, corrected: Mapping[str, Path]) -> PrepareScan:
    return PrepareScan(
        images={str(contrast): str(path) for contrast, path in scan.paths.items()},
        echoes=[str(path) for path in scan.echoes],
        echo_times_s=list(scan.echo_train.times_s) if scan.echo_train else [],
        field_t=scan.echo_train.field_t if scan.echo_train else 0.0,
        bias_correction=settings.bias_correction,
        fix_swaps=settings.fix_swaps,
        fat_doubt=scan.fat_doubt,
        already_corrected={contrast: str(path) for contrast, path in corrected.items()},
    )


def _segment(
    scan: Scan, inputs: RunInputs, atlas_card: Path | None, *, use_gpu: bool
) -> SegmentScan:
    model = inputs.models[scan.region or '']
    names = [str(contrast) for contrast in scan.paths]
    # A fat fraction has no anatomy where there is no signal; it is measured, not segmented,
    # unless it is all there is.
    contrasts = [name for name in names if name != Contrast.FAT_FRACTION] or names
    return SegmentScan(
        contrasts=contrasts,
        model=str(model.path),
        model_card=json.dumps(model.card, sort_keys=True),
        model_sha256=model.sha256,
        region=scan.region,
        tta=inputs.settings.tta,
        orientation=inputs.settings.model_orientation,
        overlap=inputs.settings.model_overlap,
        use_gpu=use_gpu,
        atlas_card=atlas_card,
    )


def _align(
    scan: Scan,
    model: ModelBundle,
    vertebrae: Mapping[Path, Scan | None],
    atlas_card: Path | None,
    settings: Settings,
) -> AlignScan:
    seen = {str(path): spine_scan for path, spine_scan in vertebrae.items() if spine_scan}
    return AlignScan(
        atlas_card=atlas_card,
        table=model.labels,
        deformable=settings.register == 'deformable',
        in_atlas='atlas_image' not in left_out(settings.output_level),
        levels_file=settings.levels,
        vertebrae=[str(path) for path in vertebrae],
        sagittal={path: str(spine_scan.images[0].path) for path, spine_scan in seen.items()},
        frame_of_reference=scan.frame_of_reference,
        sagittal_frames={
            path: spine_scan.frame_of_reference
            for path, spine_scan in seen.items()
            if spine_scan.frame_of_reference
        },
        participant=scan.participant,
        session=scan.session,
    )


def _measure(scan: Scan, model: ModelBundle, settings: Settings) -> MeasureScan:
    shown = scan.images[0].contrast
    return MeasureScan(
        table=model.labels,
        contrast='dixon' if shown in DIXON else str(shown),
        fat_suppressed=scan.fat_suppressed,
        fix_swaps=settings.fix_swaps,
        fat_method=settings.fat_method,
        keep_fat_map='fat_map' not in left_out(settings.output_level),
        height_m=height_m(read_person(settings.bids_dir, scan.participant, scan.session)),
        unlabelled=[]
        if scan.manual or model.labels.seg
        else [label.index for label in model.unlabelled],
    )


def _published(scan: Scan, model: ModelBundle, settings: Settings) -> dict[str, Any]:
    """Return the inputs that the publishing of any scan needs."""
    return {
        'scan': scan,
        'model': str(model.path),
        'bids_dir': str(settings.bids_dir),
        'output_dir': str(settings.output_dir),
        'settings': settings.science(),
        'level': settings.output_level,
    }


def init_spine_wf(*, scan: Scan, inputs: RunInputs, resources: Resources) -> Workflow:
    """Connect the steps of one sagittal scan: segment, measure, publish."""
    model = inputs.models[SPINE]
    node = partial(_node, scan.name, math.prod(read_grid(scan.images[0].path).shape))
    segment = node(
        'segment',
        SegmentSpine(
            images={str(image.contrast): str(image.path) for image in scan.images[:1]},
            model=str(model.path),
            model_card=json.dumps(model.card, sort_keys=True),
            model_sha256=model.sha256,
            use_gpu=resources.use_gpu,
            manual={key: str(path) for key, path in scan.manual},
            names={key: read_label_names(path, scan.participant) for key, path in scan.manual},
        ),
        like='segment_spine',
        threads=resources.omp_nthreads,
    )
    measure = node('measure', MeasureSpine())
    publish = node('publish', PublishSpine(**_published(scan, model, inputs.settings)))
    workflow = Workflow(workflow_name(scan.name))
    workflow.connect(
        [
            (segment, measure, _same('image', 'labels', 'found')),
            (segment, publish, _same('native', 'labels', 'found')),
            (measure, publish, _same('table', 'figures')),
        ]
    )
    return workflow


@dataclass(frozen=True)
class SessionStep:
    """A step to be run as a node.

    Parameters
    ----------
    name
        Name of its outputs, without their suffix; also that of its record.
    kind
        ``'measure_maps'``, ``'join_planes'`` or ``'loads'``.
    interface
        Its inputs are all that decides the outputs.
    fingerprint
        Digest of these inputs; of files the content counts.
    n_voxels
        Of the images that it reads; they decide its memory.
    """

    name: str
    kind: str
    interface: BaseInterface
    fingerprint: str
    n_voxels: int = 0


def init_session_wf(*, participant: str, steps: Sequence[SessionStep]) -> Workflow:
    """Collect steps of the sessions of one participant; none waits for another."""
    workflow = Workflow(workflow_name(f'sub-{participant}'))
    for step in steps:
        own = Workflow(workflow_name(step.name))
        own.add_nodes([_node(step.name, step.n_voxels, step.kind, step.interface)])
        workflow.add_nodes([own])
    return workflow


def _node(
    scan: str,
    n_voxels: int,
    name: str,
    interface: BaseInterface,
    *,
    like: str | None = None,
    threads: int = 1,
) -> Node:
    """Make the node of a step that holds as much as `_MEMORY` says of it, or of another."""
    base_gb, voxel_bytes = _MEMORY[like or name]
    memory_gb = base_gb + voxel_bytes * n_voxels / 1e9
    node = Node(interface, name=name, n_procs=threads, mem_gb=memory_gb)
    node.key = Key(scan, name)
    return node


def _same(*names: str) -> list[tuple[str, str]]:
    return [(name, name) for name in names]
