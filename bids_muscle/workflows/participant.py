"""One Nipype graph per participant: seven nodes for each scan, three for a sagittal one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nipype.pipeline.engine import Node, Workflow

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.participants import height_m, read_participant_info
from bids_muscle.dataset.scan import DIXON, Contrast, Scan
from bids_muscle.dataset.spine_maps import find_spine_maps
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
    models: Mapping[str, ModelBundle],
    atlases: Mapping[str, Path],
    levels: Path | None,
    derivatives: Sequence[Path],
    sagittal: Sequence[Scan],
    bids_dir: Path,
    output_dir: Path,
    settings: Mapping[str, Any],
    omp_nthreads: int,
    use_gpu: bool,
) -> Workflow:
    """Connect the steps of all scans of one participant.

    Parameters
    ----------
    participant
        Label without ``sub-``.
    scans
        Scans without a problem, each with a region.
    models
        Model by region.
    atlases
        Folder of the atlas by region.
    levels
        Table of levels marked by hand, or None.
    derivatives
        Folders of other programs that may have label maps of the vertebrae.
    sagittal
        The sagittal scans whose vertebrae are in the derivatives dataset by now.
    bids_dir, output_dir
        Raw dataset and derivatives dataset.
    settings
        The settings that may change a number, the model apart.
    omp_nthreads
        Threads of one step.
    use_gpu
        Whether segmentation leases a GPU.

    Returns
    -------
    Workflow
        With one sub-workflow per scan, named by :func:`workflow_name`.
    """
    workflow = Workflow(workflow_name(f'sub-{participant}'))
    # Maps of other programs go before those of bids_muscle itself.
    by_name = {scan.name: scan for scan in sagittal}
    own = [each for each in find_spine_maps([output_dir], participant) if each.stem in by_name]
    spines = [*find_spine_maps(derivatives, participant), *own]
    for scan in scans:
        assert scan.region is not None  # noqa: S101 - a scan without region has a problem
        if scan.region == SPINE:
            workflow.add_nodes(
                [
                    init_spine_wf(
                        scan=scan,
                        model=models[SPINE],
                        bids_dir=bids_dir,
                        output_dir=output_dir,
                        settings=settings,
                        omp_nthreads=omp_nthreads,
                        use_gpu=use_gpu,
                    )
                ]
            )
            continue
        workflow.add_nodes(
            [
                init_scan_wf(
                    scan=scan,
                    region=scan.region,
                    model=models[scan.region],
                    atlas_card=atlases[scan.region] / ATLAS_CARD
                    if scan.region in atlases
                    else None,
                    levels=levels,
                    vertebrae={
                        each.vertebrae: by_name.get(each.stem)
                        for each in spines
                        if each.vertebrae and each.session == scan.session
                    },
                    bids_dir=bids_dir,
                    output_dir=output_dir,
                    settings=settings,
                    omp_nthreads=omp_nthreads,
                    use_gpu=use_gpu,
                )
            ]
        )
    return workflow


def init_scan_wf(
    *,
    scan: Scan,
    region: str,
    model: ModelBundle,
    atlas_card: Path | None,
    levels: Path | None,
    vertebrae: Mapping[Path, Scan | None],
    bids_dir: Path,
    output_dir: Path,
    settings: Mapping[str, Any],
    omp_nthreads: int,
    use_gpu: bool,
) -> Workflow:
    """Connect the steps of one scan, from prepare to publish.

    Where a person made the labels, they are read instead of segmented.
    """
    images = {str(contrast): str(path) for contrast, path in scan.paths.items()}
    # A fat fraction has no anatomy where there is no signal; it is measured, not segmented,
    # unless it is all there is.
    contrasts = [name for name in images if name != Contrast.FAT_FRACTION] or list(images)
    kind = 'dixon' if scan.images[0].contrast in DIXON else str(scan.images[0].contrast)

    n_voxels = sum(
        math.prod(read_grid(path).shape) for path in (*scan.paths.values(), *scan.echoes)
    )

    in_atlas = model.card.get('space') == 'atlas'

    node = partial(_node, scan, n_voxels)
    prepare = node(
        'prepare',
        PrepareScan(
            images=images,
            echoes=[str(path) for path in scan.echoes],
            echo_times_s=list(scan.echo_train.times_s) if scan.echo_train else [],
            field_t=scan.echo_train.field_t if scan.echo_train else 0.0,
            bias_correction=settings['bias_correction'],
            fix_swaps=settings['fix_swaps'],
        ),
    )
    if scan.manual:
        labels = node('correct', CorrectScan(manual=str(scan.manual), table=model.labels))
    else:
        labels = node(
            'segment',
            SegmentScan(
                contrasts=contrasts,
                model=str(model.path),
                model_card=json.dumps(model.card, sort_keys=True),
                model_sha256=model.sha256,
                region=region,
                tta=settings['tta'],
                orientation=settings.get('model_orientation'),
                use_gpu=use_gpu,
                atlas_card=atlas_card if in_atlas else None,
            ),
            like='segment_in_atlas' if in_atlas else 'segment',
            threads=omp_nthreads,
        )
    align = node(
        'align',
        AlignScan(
            atlas_card=atlas_card,
            table=model.labels,
            deformable=settings['register'] == 'deformable',
            levels_file=levels,
            vertebrae=[str(path) for path in vertebrae],
            sagittal={
                str(path): str(other.images[0].path) for path, other in vertebrae.items() if other
            },
            frame_of_reference=scan.frame_of_reference,
            sagittal_frames={
                str(path): other.frame_of_reference
                for path, other in vertebrae.items()
                if other and other.frame_of_reference
            },
            participant=scan.participant,
            session=scan.session,
        ),
    )
    measure = node(
        'measure',
        MeasureScan(
            table=model.labels,
            contrast=kind,
            fat_suppressed=scan.fat_suppressed,
            fat_doubt=scan.fat_doubt,
            fix_swaps=settings['fix_swaps'],
            fat_method=settings['fat_method'],
            height_m=height_m(read_participant_info(bids_dir, scan.participant)),
            unlabelled=[]
            if scan.manual or model.labels.seg
            else [label.index for label in model.unlabelled],
        ),
    )
    quality = node('quality', AssessScan(table=model.labels))
    figures = node('figures', PlotScan(table=model.labels))
    publish = node(
        'publish',
        PublishScan(
            scan=scan,
            model=str(model.path),
            bids_dir=str(bids_dir),
            output_dir=str(output_dir),
            settings=dict(settings),
        ),
    )
    workflow = Workflow(workflow_name(scan.name))
    workflow.connect(
        [
            (prepare, align, _same('corrected', 'body_mask')),
            (labels, align, _same('labels')),
            (align, measure, _same('levels')),
            (align, figures, _same('atlas_image', 'atlas_labels', 'levels')),
            (align, publish, _same('aligned', 'alignment')),
            (
                prepare,
                measure,
                _same(
                    *('raw', 'corrected', 'body_mask', 'fat_fraction', 'bounded', 'swap'),
                    'image_doubt',
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
        workflow.connect(prepare, 'corrected', labels, 'images')
        if in_atlas:
            workflow.connect(prepare, 'body_mask', labels, 'body_mask')
        workflow.connect(labels, 'confidence', figures, 'confidence')
        workflow.connect(labels, 'confidence', publish, 'confidence')
        workflow.connect(labels, 'quality', publish, 'quality')
        workflow.connect(labels, 'quality', measure, 'quality')
    return workflow


def init_spine_wf(
    *,
    scan: Scan,
    model: ModelBundle,
    bids_dir: Path,
    output_dir: Path,
    settings: Mapping[str, Any],
    omp_nthreads: int,
    use_gpu: bool,
) -> Workflow:
    """Connect the steps of one sagittal scan: segment, measure, publish."""
    node = partial(_node, scan, math.prod(read_grid(scan.images[0].path).shape))
    segment = node(
        'segment',
        SegmentSpine(
            images={str(image.contrast): str(image.path) for image in scan.images[:1]},
            model=str(model.path),
            model_card=json.dumps(model.card, sort_keys=True),
            model_sha256=model.sha256,
            use_gpu=use_gpu,
        ),
        like='segment_spine',
        threads=omp_nthreads,
    )
    measure = node('measure', MeasureSpine())
    publish = node(
        'publish',
        PublishSpine(
            scan=scan,
            model=str(model.path),
            bids_dir=str(bids_dir),
            output_dir=str(output_dir),
            settings=dict(settings),
        ),
    )
    workflow = Workflow(workflow_name(scan.name))
    workflow.connect(
        [
            (segment, measure, _same('image', 'labels', 'found')),
            (segment, publish, _same('native', 'labels', 'found')),
            (measure, publish, _same('table', 'figure')),
        ]
    )
    return workflow


def _node(
    scan: Scan,
    n_voxels: int,
    name: str,
    interface: object,
    *,
    like: str | None = None,
    threads: int = 1,
) -> Node:
    """Make the node of a step that holds as much as `_MEMORY` says of it, or of another."""
    base_gb, voxel_bytes = _MEMORY[like or name]
    memory_gb = base_gb + voxel_bytes * n_voxels / 1e9
    node = Node(interface, name=name, n_procs=threads, mem_gb=memory_gb)
    node.key = Key(scan.name, name)
    return node


def _same(*names: str) -> list[tuple[str, str]]:
    return [(name, name) for name in names]
