"""Slices at the middle of discs in the space of an atlas, as Xia 2019 learned from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.levels import disc_of, level_of
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import list_participants
from bids_muscle.dataset.label_maps import LabelMap, candidate_scans, translated
from bids_muscle.dataset.names import anat_path
from bids_muscle.dataset.scan import Contrast
from bids_muscle.dataset.writer import BIDS_VERSION, write_image, write_json, write_tsv
from bids_muscle.imaging.conform import load_image, to_canonical
from bids_muscle.imaging.correction import whole_numbers

#: Discs through whose middle the slices go.
DISCS = ('L4-L5', 'L5-S1')
#: Numbers of what is no muscle in the label maps of slices.
BONE, DISC = 7, 8


def write_slices(
    data: Path,
    maps: Sequence[LabelMap],
    seg: str,
    muscles: Sequence[str],
    output: Path,
    report: Callable[[str], None],
) -> tuple[int, list[str]]:
    """Write a BIDS dataset of axial T2w slices in atlas space, with their label maps.

    Each scan is corrected by N4 and aligned with the lumbar atlas by an affine map, led by its
    label map; of the slices of the atlas those nearest to the middles of the scan's own discs are
    taken, 256 x 256 pixels of 1 mm.

    Parameters
    ----------
    data
        BIDS dataset.
    maps
        Its label maps: of each scan one with muscles and one, or the same, with single discs.
    seg
        The ``seg`` entity of the label maps that are written.
    muscles
        Abbreviations of the muscles that are wanted.
    output
        Folder of the new dataset.
    report
        Receives progress lines.

    Returns
    -------
    count
        Number of slices.
    remarks
        Which scans gave none, and why.
    """
    table = load_label_table('lumbar')
    wanted = {label.index for label in table if label.abbreviation in muscles}
    spines = [m for m in maps if any(map(disc_of, m.names.values()))]
    count, remarks = 0, []
    for participant in sorted(list_participants(data)):
        own = [m for m in maps if m.entities.get('sub') == participant and m.names]
        scans = find_scans(data, participant, region='lumbar') if own else []
        for label_map in own:
            if not wanted & set(label_map.codes(table).values()):
                continue
            paths = [
                s.paths[Contrast.T2W]
                for s in candidate_scans(label_map, scans)
                if Contrast.T2W in s.paths
            ]
            spine = next((s for s in spines if s.scan_entities == label_map.scan_entities), None)
            if not paths or spine is None:
                continue
            made, why = _write_scan(paths[0], label_map, spine, wanted, seg, output)
            report(f'sub-{participant}: {made} slices')
            count += made
            remarks += [f'{label_map.path.name}: {why}.'] if why else []
            break
    if count:
        lookup = [
            *({'index': n, 'name': table.by_index[n].name} for n in sorted(wanted)),
            {'index': BONE, 'name': 'vertebral body'},
            {'index': DISC, 'name': 'disc'},
        ]
        write_tsv(lookup, output / f'derivatives/reference/seg-{seg}_dseg.tsv')
        description = {
            'Name': 'Slices in atlas space',
            'BIDSVersion': BIDS_VERSION,
            'DatasetType': 'raw',
        }
        write_json(description, output / 'dataset_description.json')
        for name in ('participants.tsv', 'participants.json'):
            if (data / name).is_file():
                shutil.copyfile(data / name, output / name)
    return count, remarks


def _write_scan(
    path: Path, label_map: LabelMap, spine: LabelMap, wanted: set[int], seg: str, output: Path
) -> tuple[int, str]:
    """Write the slices of one scan; return how many, and why there are none."""
    from bids_muscle.imaging.alignment import align_scan
    from bids_muscle.imaging.atlas import find_atlas, read_atlas
    from bids_muscle.imaging.prepare import prepare_scan
    from bids_muscle.segmentation.atlas_space import axial_slices

    table = load_label_table('lumbar')
    atlas = read_atlas(find_atlas(None, 'lumbar'))
    prepared = prepare_scan({'T2w': load_image(path)})
    image = prepared.corrected['T2w']
    muscles, bones = (
        whole_numbers(to_canonical(load_image(m.path)), m.path) for m in (label_map, spine)
    )
    leading = translated(muscles, label_map.codes(table)).astype(np.uint8)
    kinds = {
        code: BONE if level_of(name) else DISC
        for code, name in spine.names.items()
        if level_of(name) or disc_of(name)
    }
    hard = translated(bones, kinds).astype(np.uint8)
    labels = np.where(hard > 0, hard, np.where(np.isin(leading, list(wanted)), leading, 0))
    guide = nib.Nifti1Image(leading, image.affine)
    alignment = align_scan({'T2w': image}, guide, prepared.body_mask, atlas)
    if not alignment.trusted:
        return 0, f'the alignment with the atlas is not trusted: {"; ".join(alignment.reasons)}'
    flat = axial_slices(alignment, atlas, image)
    drawn = axial_slices(alignment, atlas, nib.Nifti1Image(labels, image.affine), order=0)
    count = 0
    for code, name in spine.names.items():
        disc = disc_of(name)
        where = np.argwhere(bones == code)
        if disc not in DISCS or not len(where):
            continue
        centre = apply_affine(alignment.matrix, apply_affine(image.affine, where.mean(axis=0)))
        k = round(float(apply_affine(np.linalg.inv(flat.affine), centre)[2]))
        if not 0 <= k < flat.shape[2] or not np.any(drawn.dataobj[:, :, k]):
            continue  # the scan ends before the slice of the atlas
        entities = {**label_map.scan_entities, 'acq': disc.replace('-', '')}
        raw = anat_path(entities, 'T2w.nii.gz')
        reference = anat_path(entities, f'seg-{seg}_dseg.nii.gz')
        write_image(flat.slicer[:, :, k : k + 1], output / raw)
        write_image(drawn.slicer[:, :, k : k + 1], output / 'derivatives/reference' / reference)
        count += 1
    return count, '' if count else f'no slice at {" and ".join(DISCS)} lies in it'
