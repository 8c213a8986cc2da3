"""The graphs of a scan over the product of options: every input is set or connected, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nipype import Workflow
from nipype.interfaces.base import isdefined

from bids_muscle.dataset.scan import Contrast, Scan, ScanImage
from bids_muscle.engine.outcome import Key
from bids_muscle.engine.resources import Resources
from bids_muscle.settings import Settings
from bids_muscle.workflows.participant import (
    SessionStep,
    init_participant_wf,
    init_scan_wf,
    init_session_wf,
    init_spine_wf,
)
from bids_muscle.workflows.planning import RunInputs

ONE_GPU = Resources(nprocs=2, omp_nthreads=2, memory_gb=8, devices=('cuda:0',))
#: Node, output, node, input of a scan that a network segments.
FROM_PREPARE = {
    'segment': {'corrected': 'images'},
    'align': ('native', 'corrected', 'body_mask'),
    'measure': (
        *('raw', 'corrected', 'body_mask', 'fat_fraction', 'bounded', 'swap'),
        *('swap_searched', 'image_doubt'),
    ),
    'quality': ('raw', 'corrected', 'body_mask', 'swap', 'swap_searched'),
    'figures': ('raw', 'corrected', 'fat_fraction', 'body_mask'),
    'publish': ('native', 'corrected', 'body_mask', 'fat_fraction', 'swap'),
}
FROM_SEGMENT = {
    'align': ('labels',),
    'measure': ('labels', 'quality'),
    'quality': ('labels',),
    'figures': ('labels', 'confidence'),
    'publish': ('labels', 'confidence', 'quality'),
}
FROM_ALIGN = {
    'measure': ('levels',),
    'figures': ('atlas_image', 'atlas_labels', 'levels'),
    'publish': ('aligned', 'alignment'),
}
TO_PUBLISH = {'measure': ('tables', 'fat_map'), 'quality': ('iqm',), 'figures': ('figures',)}
Edges = set[tuple[str, str, str, str]]


def expected(*, manual: bool, in_atlas: bool) -> Edges:
    tables: dict[str, Mapping[str, Any]] = {
        'prepare': FROM_PREPARE,
        'segment': FROM_SEGMENT,
        'align': FROM_ALIGN,
        **{source: {'publish': names} for source, names in TO_PUBLISH.items()},
    }
    edges = {
        (source, out, target, name)
        for source, targets in tables.items()
        for target, names in targets.items()
        for out, name in (
            names.items() if isinstance(names, dict) else zip(names, names, strict=True)
        )
    }
    if not manual:
        return edges | ({('prepare', 'body_mask', 'segment', 'body_mask')} if in_atlas else set())
    # A person's labels have neither confidence nor predicted quality.
    edges = {edge for edge in edges if edge[0] != 'segment' or edge[1] == 'labels'}
    edges -= {('prepare', 'corrected', 'segment', 'images')}
    edges |= {('prepare', 'native', 'segment', 'native')}

    def renamed(name: str) -> str:
        return 'correct' if name == 'segment' else name

    return {(renamed(source), out, renamed(target), name) for source, out, target, name in edges}


def edges_of(workflow: Workflow) -> Edges:
    return {
        (source.name, out, target.name, name)
        for source, target, data in workflow._graph.edges(data=True)
        for out, name in data['connect']
    }


def check_inputs(workflow: Workflow) -> None:
    """Every needed input is set or connected, none is both, and each edge ends somewhere."""
    for node in workflow._graph.nodes:
        connected = [
            name
            for _, _, data in workflow._graph.in_edges(node, data=True)
            for _, name in data['connect']
        ]
        assert len(connected) == len(set(connected))
        needed = set(node.inputs.traits(mandatory=True))
        given = {name for name in needed if isdefined(getattr(node.inputs, name))}
        assert needed - given <= set(connected), node.name
        assert given.isdisjoint(connected), node.name
        assert node.key.step == node.name


@pytest.fixture
def inputs(tmp_path: Path) -> RunInputs:
    levels = tmp_path / 'levels.tsv'
    levels.write_text('slice\tlevel\n0\tL5\n')
    settings = Settings(
        bids_dir=tmp_path, output_dir=tmp_path / 'out', level='participant', levels=levels
    )
    return RunInputs.find(settings)


def image(folder: Path, name: str) -> Path:
    path = folder / f'{name}.nii'
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), path)
    return path


def scan_of(folder: Path, region: str, contrasts: tuple[Contrast, ...]) -> Scan:
    images = tuple(ScanImage(each, image(folder, each), None) for each in contrasts)
    return Scan((('sub', '01'), ('acq', region)), 'T1w', region, images)


@pytest.mark.parametrize(
    ('region', 'contrasts', 'manual', 'in_atlas', 'register', 'spine', 'gpu'),
    [
        each
        for each in product(
            ('lumbar', 'cervical'),
            ((Contrast.WATER, Contrast.FAT), (Contrast.T2W,), (Contrast.FAT_FRACTION,)),
            (False, True),
            (False, True),
            ('affine', 'deformable'),
            (False, True),
            (False, True),
        )
        if each[0] == 'lumbar' or each[1] == (Contrast.T2W,)
    ],
)
def test_every_input_of_every_step_of_a_scan_is_there(
    inputs: RunInputs,
    tmp_path: Path,
    region: str,
    contrasts: tuple[Contrast, ...],
    manual: bool,
    in_atlas: bool,
    register: str,
    spine: bool,
    gpu: bool,
) -> None:
    scan = scan_of(tmp_path, region, contrasts)
    if manual:
        scan = replace(scan, manual=(('dseg', image(tmp_path, 'manual')),))
    model = inputs.models[region]
    if in_atlas:
        model = replace(model, card={**model.card, 'space': 'atlas'})
    inputs = replace(
        inputs,
        models={**inputs.models, region: model},
        settings=replace(inputs.settings, register=register),
    )
    sagittal = scan_of(tmp_path, 'spine', (Contrast.T2W,))
    vertebrae = {image(tmp_path, 'own'): sagittal, image(tmp_path, 'other'): None}
    resources = ONE_GPU if gpu else replace(ONE_GPU, devices=('cpu',))
    workflow = init_scan_wf(
        scan=scan, vertebrae=vertebrae if spine else {}, inputs=inputs, resources=resources
    )
    assert edges_of(workflow) == expected(manual=manual, in_atlas=in_atlas)
    check_inputs(workflow)
    nodes = {node.name: node for node in workflow._graph.nodes}
    assert nodes['align'].inputs.deformable == (register == 'deformable')
    assert len(nodes['align'].inputs.vertebrae) == 2 * spine
    assert list(nodes['align'].inputs.sagittal.values()) == [str(sagittal.images[0].path)] * spine
    if not manual:
        segment = nodes['segment']
        assert (segment.inputs.use_gpu, segment.n_procs) == (gpu, 2)
        # In the atlas, more memory is counted.
        plain = nodes['align'].mem_gb
        assert (segment.mem_gb > 2 * plain) == in_atlas


def test_every_input_of_a_sagittal_scan_is_there(inputs: RunInputs, tmp_path: Path) -> None:
    scan = scan_of(tmp_path, 'spine', (Contrast.T2W,))
    workflow = init_spine_wf(scan=scan, inputs=inputs, resources=ONE_GPU)
    check_inputs(workflow)
    assert {edge[:3:2] for edge in edges_of(workflow)} == {
        ('segment', 'measure'),
        ('segment', 'publish'),
        ('measure', 'publish'),
    }


def test_each_scan_of_a_participant_is_a_graph_of_its_own(
    inputs: RunInputs, tmp_path: Path
) -> None:
    scans = [scan_of(tmp_path, region, (Contrast.T2W,)) for region in ('spine', 'lumbar')]
    workflow = init_participant_wf(
        participant='01', scans=scans, sagittal=[], inputs=inputs, resources=ONE_GPU
    )
    keys = [node.key for graph in workflow._graph.nodes for node in graph._graph.nodes]
    assert len(keys) == len(set(keys)) == 10
    assert {key.scan for key in keys} == {scan.name for scan in scans}


def test_the_last_steps_wait_for_nothing() -> None:
    from bids_muscle.interfaces.session import JoinPlanes, MeasureMaps

    steps = [
        SessionStep('sub-01_desc-spine_morph', 'measure_maps', MeasureMaps(), '0', 1_000_000_000),
        SessionStep('sub-01_desc-joined_morph', 'join_planes', JoinPlanes(), '0'),
    ]
    workflow = init_session_wf(participant='01', steps=steps)
    nodes = [node for graph in workflow._graph.nodes for node in graph._graph.nodes]
    assert [node.key for node in nodes] == [Key(step.name, step.kind) for step in steps]
    assert nodes[0].mem_gb > 10 > nodes[1].mem_gb
    assert not workflow._graph.edges
