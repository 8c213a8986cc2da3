"""Align one scan with the atlas of its region, and find the vertebral level of its slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    Bunch,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_muscle.anatomy.labels import LabelTable
from bids_muscle.dataset.writer import gzipped, write_bytes, write_image, write_text, write_tsv
from bids_muscle.interfaces.base import ScanInput, load, load_all, sentence

if TYPE_CHECKING:
    from bids_muscle.anatomy.levels import SliceLevels
    from bids_muscle.imaging.alignment import Alignment
    from bids_muscle.imaging.atlas import Atlas


_NO_PLACE = (
    'The levels do not come from the vertebrae in {}, because the header of that map or of this '
    'scan has neither sform nor qform, so that it is not known how they lie to each other.'
)


class _AlignInput(ScanInput):
    # All other images of a scan are stored as if their position were known.
    native = File(exists=True, mandatory=True, desc='tells whether the position is known')
    corrected = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    body_mask = File(exists=True, mandatory=True)
    labels = File(exists=True, mandatory=True)
    # The description holds the checksums of all files, so its content identifies the atlas.
    atlas_card = traits.Either(File(exists=True), None, usedefault=True)
    table = traits.Instance(LabelTable, mandatory=True, desc='what the labels mean')
    deformable = traits.Bool(False, usedefault=True)
    in_atlas = traits.Bool(mandatory=True, desc='whether the scan in the atlas is kept')
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
    atlas_labels = traits.Either(
        File(exists=True), None, desc="the atlas's muscles on the grid of the scan"
    )
    atlas_image = traits.Either(File(exists=True), None, desc='the atlas on the grid of the scan')
    warnings = traits.List(traits.Str)


class AlignScan(SimpleInterface):
    """Wrapper around :func:`bids_muscle.imaging.alignment.align_scan`."""

    input_spec = _AlignInput
    output_spec = _AlignOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.imaging import alignment
        from bids_muscle.imaging.atlas import read_atlas, renumbered
        from bids_muscle.imaging.levels import choose_levels, slice_level_rows, through_middle
        from bids_muscle.segmentation.stack_discs import find_discs

        inputs, cwd = self.inputs, Path(runtime.cwd)
        images = load_all(inputs.corrected)
        labels = load(inputs.labels)
        atlas = read_atlas(Path(inputs.atlas_card).parent) if inputs.atlas_card else None
        found, shares = None, {}
        if atlas:
            known = renumbered(labels, inputs.table, atlas.table)
            mask = load(inputs.body_mask)
            discs_mm, support = find_discs(images, known, atlas.table, atlas.region)
            found = alignment.align_scan(
                images,
                known,
                mask,
                atlas,
                discs_mm=discs_mm,
                support=support,
                deformable=inputs.deformable,
            )
            shares = alignment.level_probabilities(found, atlas, labels)
        middle = through_middle(labels.affine, labels.shape)
        marked, warnings = self._marked(middle, labels.shape[2])
        chosen = choose_levels(shares, self._drawn(labels, warnings), marked, labels.shape[2])
        movement: dict[str, Any] = {}
        if chosen.from_map is not None and chosen.from_map < len(inputs.vertebrae):
            movement = self._movement(Path(inputs.vertebrae[chosen.from_map]), images)
        files = {'levels': cwd / 'levels.tsv'}
        carried = {}
        facts: dict[str, Any] = {
            'LevelSource': chosen.levels.source if atlas or any(chosen.levels.names) else 'none',
            'SlicesWithLevel': int(np.count_nonzero(chosen.levels.confidence)),
        }
        warnings += [sentence(text) for text in movement.get('MovementRemarks', ())]
        if atlas and found:
            image = images[found.contrasts[0]]
            files |= _write(found, atlas, image, labels, cwd, in_atlas=inputs.in_atlas)
            carried = {
                'labels': alignment.labels_in_scan(found, atlas, labels),
                'image': alignment.template_in_scan(found, atlas, labels),
            }
            facts = _facts(found, atlas) | facts
            warnings = [
                f'The alignment with the atlas {atlas.name} is not trusted: {reason}.'
                for reason in found.reasons
            ] + warnings
        write_tsv(slice_level_rows(chosen.levels, chosen.shares, middle), files['levels'])
        for name, data in carried.items():
            nib.save(nib.Nifti1Image(data, labels.affine), cwd / f'atlas_{name}.nii')
        self._results = {
            'aligned': {key: str(path) for key, path in files.items()},
            'alignment': facts | movement,
            'levels': str(files['levels']),
            **{
                f'atlas_{name}': str(cwd / f'atlas_{name}.nii') if name in carried else None
                for name in ('labels', 'image')
            },
            'warnings': warnings,
        }
        return runtime

    def _drawn(
        self, labels: nib.Nifti1Image, warnings: list[str]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the shares of levels by each map of vertebrae, last by those among the labels.

        Nothing for a map whose place beside the scan is not known. What has to be known about the
        maps is added to `warnings`.
        """
        from bids_muscle.dataset.spine_maps import read_label_names
        from bids_muscle.imaging.conform import in_one_world, load_image, read_grid
        from bids_muscle.imaging.levels import drawn_shares, likeliest

        def shares_of(
            drawn: nib.Nifti1Image, names: dict[int, str], place: str
        ) -> dict[str, np.ndarray]:
            n_slices = labels.shape[2]
            shares, doubts = drawn_shares(drawn, names, labels.affine, n_slices)
            # A map of another region says nothing about this scan.
            if any(likeliest(shares, n_slices, 'segmentation').names):
                warnings.extend(f'In {place} {doubt}.' for doubt in doubts)
            return shares

        scan = read_grid(Path(self.inputs.native))
        for path in map(Path, self.inputs.vertebrae):
            if in_one_world(read_grid(path), scan):
                names = read_label_names(path, self.inputs.participant)
                yield shares_of(load_image(path), names, path.name)
            else:
                warnings.append(_NO_PLACE.format(path.name))
                yield {}
        names = {label.index: label.name for label in self.inputs.table if label.kind == 'bone'}
        if names:
            yield shares_of(labels, names, 'the labels of the model')

    def _marked(self, middle: np.ndarray, n_slices: int) -> tuple[SliceLevels | None, list[str]]:
        """Return the levels that a person marked, and what to know about them."""
        from bids_muscle.imaging.marks import levels_from_marks, mark_doubts, read_marks

        inputs = self.inputs
        if not inputs.levels_file:
            return None, []
        path, region = Path(inputs.levels_file), inputs.table.region
        marks = read_marks(path, inputs.participant, inputs.session, region)
        place = f'{path} for sub-{inputs.participant}'
        levels = levels_from_marks(marks, middle, n_slices, place)
        return levels, mark_doubts(marks, levels)

    def _movement(self, path: Path, images: dict[str, nib.Nifti1Image]) -> dict[str, Any]:
        """Return how far this scan lies from the one that a map of vertebrae was made from."""
        from bids_muscle.imaging.conform import load_image
        from bids_muscle.imaging.movement import find_movement, remarks

        source = self.inputs.sagittal.get(str(path))
        if source is None:
            return {}
        other = load_image(Path(source))
        movement = find_movement(list(images.values())[:2], other, load_image(path))
        frames = self.inputs.frame_of_reference, self.inputs.sagittal_frames.get(str(path))
        return {
            'MovementFrom': Path(source).name,
            'MovementSpine': path.name.split('_seg-')[0],
            'MovementMm': list(movement.shift_mm) if movement.shift_mm else None,
            'MovementSdMm': list(movement.sd_mm) if movement.sd_mm else None,
            'MovementRemarks': remarks(movement, Path(source).name, frames),
        }


def _facts(aligned: Alignment, atlas: Atlas) -> dict[str, Any]:
    from bids_muscle.imaging.alignment import volume_factor

    return {
        'Atlas': atlas.name,
        'AtlasSHA256': atlas.sha256,
        'Transform': 'affine and SyN' if aligned.warp else 'affine',
        'Contrast': aligned.contrasts[0],
        'AtlasContrast': aligned.contrasts[1],
        'MuscleDice': round(aligned.overlap, 4),
        'InformationNats': round(aligned.information_nats, 4),
        'DiscsSeen': len(aligned.counts[0].discs_mm) if aligned.counts else 0,
        'NamesProbability': round(aligned.counts[0].probability, 4) if aligned.counts else None,
        'VolumeFactor': round(volume_factor(aligned.matrix), 4),
        'Trusted': aligned.trusted,
        'Reasons': list(aligned.reasons),
    }


def _write(
    aligned: Alignment,
    atlas: Atlas,
    image: nib.Nifti1Image,
    labels: nib.Nifti1Image,
    cwd: Path,
    *,
    in_atlas: bool,
) -> dict[str, Path]:
    """Write the transform, and the scan in the atlas if asked; return the paths by key."""
    from bids_muscle.imaging.alignment import image_in_atlas
    from bids_muscle.imaging.itk import itk_affine, itk_field

    files = {'xfm': cwd / 'xfm.txt'}
    write_text(itk_affine(aligned.matrix), files['xfm'])
    if in_atlas:
        files |= {'atlas_image': cwd / 'image.nii.gz', 'atlas_dseg': cwd / 'dseg.nii.gz'}
        write_image(image_in_atlas(aligned, atlas, image), files['atlas_image'])
        write_image(image_in_atlas(aligned, atlas, labels, order=0), files['atlas_dseg'])
    if aligned.warp:
        files['xfm_field'] = cwd / 'field.nii.gz'
        field = itk_field(aligned, atlas).to_bytes()
        write_bytes(gzipped(field), files['xfm_field'])
    return files
