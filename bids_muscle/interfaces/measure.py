"""Measure the muscles of one scan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

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
from bids_muscle.interfaces.base import ScanInput, load

if TYPE_CHECKING:
    from bids_muscle.measurement.images import ScanImages


class _MeasureInput(ScanInput):
    labels = File(exists=True, mandatory=True)
    raw = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    corrected = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    body_mask = File(exists=True, mandatory=True)
    fat_fraction = traits.Either(File(exists=True), None, usedefault=True)
    swap = traits.Either(File(exists=True), None, usedefault=True)
    swap_searched = traits.Bool(mandatory=True, desc='whether swaps could be detected')
    fix_swaps = traits.Bool(mandatory=True, desc='swaps are already corrected')
    bounded = traits.Bool(mandatory=True)
    fat_suppressed = traits.Bool(False, usedefault=True)
    image_doubt = traits.Str('', usedefault=True, desc='why no fat can be trusted')
    fat_method = traits.Str('auto', usedefault=True)
    quality = traits.Either(File(exists=True), None, usedefault=True, desc='predicted Dice')
    levels = File(exists=True, mandatory=True, desc='table of the levels of the slices')
    keep_fat_map = traits.Bool(mandatory=True)
    height_m = traits.Either(traits.Float, None, usedefault=True)
    table = traits.Instance(LabelTable, mandatory=True, desc='what the numbers mean')
    contrast = traits.Str(mandatory=True, desc='dixon, T1w, T2w or PDw')
    unlabelled = traits.List(traits.Int, usedefault=True, desc='what the model cannot label')


class _MeasureOutput(TraitedSpec):
    tables = traits.Dict(traits.Str, File(exists=True), desc='path by name')
    fat_map = traits.Either(File(exists=True), None)
    warnings = traits.List(traits.Str)


class MeasureScan(SimpleInterface):
    """Wrapper around :func:`bids_muscle.measurement.table.measure_scan`."""

    input_spec = _MeasureInput
    output_spec = _MeasureOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.dataset.writer import write_tsv
        from bids_muscle.imaging.levels import read_levels
        from bids_muscle.measurement.extent import implausible_extents
        from bids_muscle.measurement.outlines import add_predicted_dice, outline_doubts
        from bids_muscle.measurement.table import measure_scan

        inputs, cwd = self.inputs, Path(runtime.cwd)
        measures = measure_scan(
            load(inputs.labels),
            inputs.table,
            self._images(),
            fat_method=inputs.fat_method,
            height_m=inputs.height_m,
            levels=read_levels(Path(inputs.levels)),
            unlabelled=inputs.unlabelled,
        )
        if inputs.quality:
            expected = json.loads(Path(inputs.quality).read_text(encoding='utf-8'))
            add_predicted_dice(measures.muscles, expected['predicted_dice'])
        tables = {
            'morph': measures.muscles,
            'morph_slices': measures.slices,
            'morph_levels': measures.levels,
        }
        for name, table in tables.items():
            write_tsv(table, cwd / f'{name}.tsv')
        fat_map = measures.fat_map if inputs.keep_fat_map else None
        if fat_map:
            nib.save(fat_map, cwd / 'fat_map.nii')
        self._results = {
            'tables': {name: str(cwd / f'{name}.tsv') for name in tables},
            'fat_map': str(cwd / 'fat_map.nii') if fat_map else None,
            'warnings': [
                *implausible_extents(measures.muscles),
                *outline_doubts(measures.slices, inputs.table, inputs.unlabelled),
            ],
        }
        return runtime

    def _images(self) -> ScanImages:
        from bids_muscle.measurement.images import ScanImages

        inputs = self.inputs
        body = np.asarray(load(inputs.body_mask).dataobj) > 0
        swap = None
        if inputs.swap and inputs.swap_searched and not inputs.fix_swaps:
            swap = np.asarray(load(inputs.swap).dataobj) > 0

        def raw(contrast: str) -> nib.Nifti1Image | None:
            return load(inputs.raw[contrast]) if contrast in inputs.raw else None

        return ScanImages(
            contrast=inputs.contrast,
            water=raw('water'),
            fat=raw('fat'),
            fat_fraction=load(inputs.fat_fraction) if inputs.fat_fraction else None,
            intensity=self._intensity(),
            body=body,
            clipped=self._clipped(body),
            swap=swap,
            bounded=inputs.bounded,
            fat_suppressed=inputs.fat_suppressed,
            fat_doubt=inputs.image_doubt,
        )

    def _intensity(self) -> nib.Nifti1Image | None:
        """Return the image without bias field, undefined where the raw one is."""
        from bids_muscle.measurement.brightness import known_only

        contrast = self.inputs.contrast
        if contrast not in self.inputs.raw:
            return None
        return known_only(load(self.inputs.corrected[contrast]), load(self.inputs.raw[contrast]))

    def _clipped(self, body: np.ndarray) -> float:
        """Return the share of the body that has the highest value, of an image for thresholds."""
        from bids_muscle.imaging.quality import clipped_fraction

        path = self.inputs.raw.get(self.inputs.contrast)
        return clipped_fraction(np.asanyarray(load(path).dataobj), body) if path else 0.0
