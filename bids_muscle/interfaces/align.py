"""Align one scan with the atlas of its region, and find the vertebral level of its slices."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    Bunch,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_muscle.interfaces.base import ScanInput, load, load_all, sentence


class _AlignInput(ScanInput):
    corrected = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    body_mask = File(exists=True, mandatory=True)
    labels = File(exists=True, mandatory=True)
    # The description holds the checksums of all files, so its content stands for the atlas.
    atlas_card = File(exists=True, mandatory=True)
    deformable = traits.Bool(False, usedefault=True)
    levels_file = traits.Either(File(exists=True), None, usedefault=True)
    vertebrae = traits.List(
        File(exists=True), usedefault=True, desc='their label maps, of any region'
    )
    sagittal = traits.Dict(
        traits.Str, File(exists=True), usedefault=True, desc='scan that a map was made from'
    )
    frame_of_reference = traits.Either(traits.Str, None, usedefault=True)
    sagittal_frames = traits.Dict(traits.Str, traits.Str, usedefault=True, desc='by map')
    participant = traits.Str(mandatory=True)
    session = traits.Either(traits.Str, None, usedefault=True)


class _AlignOutput(TraitedSpec):
    aligned = traits.Dict(traits.Str, File(exists=True), desc='path by key of the output names')
    alignment = traits.Dict(desc='how good the alignment is, for the sidecars')
    levels = File(exists=True, desc='table of the levels of the slices')
    atlas_labels = File(exists=True, desc="the atlas's muscles on the grid of the scan")
    atlas_image = File(exists=True, desc='the atlas on the grid of the scan')
    warnings = traits.List(traits.Str)


class AlignScan(SimpleInterface):
    """Coat over :func:`bids_muscle.imaging.alignment.align_scan`."""

    input_spec = _AlignInput
    output_spec = _AlignOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.dataset.spine_maps import read_label_names
        from bids_muscle.dataset.writer import write_bytes, write_image, write_text, write_tsv
        from bids_muscle.imaging import alignment
        from bids_muscle.imaging.atlas import read_atlas
        from bids_muscle.imaging.conform import load_image
        from bids_muscle.imaging.levels import (
            level_rows,
            levels_from_marks,
            likeliest,
            read_marks,
            slice_probabilities,
            through_middle,
            vertebra_boundaries,
        )

        given, cwd = self.inputs, Path(runtime.cwd)
        atlas = read_atlas(Path(given.atlas_card).parent)
        images = load_all(given.corrected)
        labels, mask = load(given.labels), load(given.body_mask)
        found = alignment.align_scan(images, labels, mask, atlas, deformable=given.deformable)
        n_slices, middle = labels.shape[2], through_middle(labels.affine, labels.shape)
        shares = alignment.level_probabilities(found, atlas, labels)
        levels = likeliest(shares, n_slices, 'atlas')
        movement: dict[str, Any] = {}
        for path in map(Path, given.vertebrae):
            drawn = load_image(path)
            boundaries = vertebra_boundaries(
                np.asarray(drawn.dataobj),
                drawn.affine,
                read_label_names(path, given.participant),
            )
            drawn_shares = slice_probabilities(boundaries, labels.affine, n_slices)
            drawn_levels = likeliest(drawn_shares, n_slices, 'segmentation')
            # Vertebrae of another region say nothing about this scan.
            if any(drawn_levels.names):
                shares, levels = drawn_shares, drawn_levels
                movement = self._movement(path, drawn, images)
                break
        if given.levels_file:
            marks = read_marks(Path(given.levels_file), given.participant, given.session)
            if marks:
                levels = levels_from_marks(marks, middle, n_slices)

        files = {
            'levels': cwd / 'levels.tsv',
            'xfm': cwd / 'xfm.txt',
            'atlas_image': cwd / 'image.nii.gz',
            'atlas_dseg': cwd / 'dseg.nii.gz',
        }
        write_tsv(level_rows(levels, shares, middle), files['levels'])
        write_text(alignment.itk_affine(found.matrix), files['xfm'])
        image = images[found.contrasts[0]]
        write_image(alignment.image_in_atlas(found, atlas, image), files['atlas_image'])
        write_image(alignment.image_in_atlas(found, atlas, labels, order=0), files['atlas_dseg'])
        if found.warp:
            files['xfm_field'] = cwd / 'field.nii.gz'
            field = alignment.itk_field(found, atlas).to_bytes()
            write_bytes(gzip.compress(field, mtime=0), files['xfm_field'])
        carried = alignment.labels_in_scan(found, atlas, labels)
        nib.save(nib.Nifti1Image(carried, labels.affine), cwd / 'atlas_labels.nii')
        carried = alignment.template_in_scan(found, atlas, labels)
        nib.save(nib.Nifti1Image(carried, labels.affine), cwd / 'atlas_image.nii')
        facts: dict[str, Any] = {
            'Atlas': atlas.name,
            'AtlasSHA256': atlas.sha256,
            'Transform': 'affine and SyN' if found.warp else 'affine',
            'Contrast': found.contrasts[0],
            'AtlasContrast': found.contrasts[1],
            'MuscleDice': round(found.overlap, 4),
            'InformationNats': round(found.information_nats, 4),
            'VolumeFactor': round(alignment.volume_factor(found.matrix), 4),
            'Trusted': found.trusted,
            'Reasons': list(found.reasons),
            'LevelSource': levels.source,
            'SlicesWithLevel': int(np.count_nonzero(levels.confidence)),
            **movement,
        }
        self._results = {
            'aligned': {key: str(path) for key, path in files.items()},
            'alignment': facts,
            'levels': str(files['levels']),
            'atlas_labels': str(cwd / 'atlas_labels.nii'),
            'atlas_image': str(cwd / 'atlas_image.nii'),
            'warnings': [
                f'The alignment with the atlas {atlas.name} is not trusted: {reason}.'
                for reason in found.reasons
            ]
            + [sentence(text) for text in movement.get('MovementRemarks', ())],
        }
        return runtime

    def _movement(
        self, path: Path, vertebrae: nib.Nifti1Image, images: dict[str, nib.Nifti1Image]
    ) -> dict[str, Any]:
        """Say how far this scan lies from the one that a map of vertebrae was made from."""
        from bids_muscle.imaging.conform import load_image
        from bids_muscle.imaging.movement import find_movement, moved

        source = self.inputs.sagittal.get(str(path))
        if source is None:
            return {}
        other = load_image(Path(source))
        found = find_movement(list(images.values())[:2], other, vertebrae)
        remarks = []
        frames = self.inputs.frame_of_reference, self.inputs.sagittal_frames.get(str(path))
        if all(frames) and frames[0] != frames[1]:
            remarks.append(
                'this scan has another frame of reference (FrameOfReferenceUID) than '
                f'{Path(source).name}, so vertebrae and muscles may not lie where they seem to'
            )
        if found.shift_mm is None:
            remarks.append(
                f'whether the patient moved between this scan and {Path(source).name} is not '
                f'known: {found.reason}'
            )
        elif way := moved(found.shift_mm):
            remarks.append(
                f'the patient moved between the scans: what {Path(source).name} shows lies here '
                f'{way}'
            )
        return {
            'MovementFrom': Path(source).name,
            'MovementSpine': path.name.split('_seg-')[0],
            'MovementMm': list(found.shift_mm) if found.shift_mm else None,
            'MovementSdMm': list(found.sd_mm) if found.sd_mm else None,
            'MovementRemarks': remarks,
        }
