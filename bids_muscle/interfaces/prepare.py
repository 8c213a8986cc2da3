"""Conform, correct and check the images of one scan."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
from nipype.interfaces.base import (
    Bunch,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_muscle.interfaces.base import ScanInput


class _PrepareInput(ScanInput):
    images = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    echoes = traits.List(
        File(exists=True), usedefault=True, desc='echoes that water and fat are fitted to'
    )
    echo_times_s = traits.List(traits.Float, usedefault=True)
    field_t = traits.Float(0.0, usedefault=True)
    bias_correction = traits.Bool(True, usedefault=True)
    fix_swaps = traits.Bool(False, usedefault=True)
    fat_doubt = traits.Str('', usedefault=True, desc='why no fat can be trusted, from the plan')
    already_corrected = traits.Dict(
        traits.Str, File(exists=True), usedefault=True, desc='images of an earlier run, corrected'
    )


class _PrepareOutput(TraitedSpec):
    native = File(exists=True, desc='grid of the scan in its own voxel order')
    raw = traits.Dict(traits.Str, File(exists=True), desc='RAS+ images by contrast')
    corrected = traits.Dict(traits.Str, File(exists=True), desc='raw without the bias field')
    body_mask = File(exists=True)
    fat_fraction = traits.Either(File(exists=True), None)
    swap = traits.Either(File(exists=True), None, desc='where water and fat are swapped')
    swap_searched = traits.Bool(desc='whether swaps could be detected')
    bounded = traits.Bool(desc='fat and water come from in- and opposed-phase magnitudes')
    image_doubt = traits.Str(desc='why no number of fat can be trusted, or empty')
    warnings = traits.List(traits.Str)


class PrepareScan(SimpleInterface):
    """Wrapper around :func:`bids_muscle.imaging.prepare.prepare_scan`."""

    input_spec = _PrepareInput
    output_spec = _PrepareOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.imaging.conform import load_image
        from bids_muscle.imaging.multi_echo import EchoTrain
        from bids_muscle.imaging.prepare import prepare_scan

        cwd = Path(runtime.cwd)

        def save(image: nib.Nifti1Image, name: str) -> str:
            # Uncompressed: these files live only until the scan is published.
            path = cwd / f'{name}.nii'
            nib.save(image, path)
            return str(path)

        echoes = self.inputs.echoes
        train = EchoTrain(tuple(self.inputs.echo_times_s), self.inputs.field_t) if echoes else None
        prepared = prepare_scan(
            {contrast: load_image(Path(path)) for contrast, path in self.inputs.images.items()},
            echoes=[load_image(Path(path)) for path in echoes],
            echo_train=train,
            bias_correction=self.inputs.bias_correction,
            fix_swaps=self.inputs.fix_swaps,
            fat_doubt=self.inputs.fat_doubt,
            already_corrected={
                key: load_image(Path(path)) for key, path in self.inputs.already_corrected.items()
            },
        )
        fraction, swap = prepared.fat_fraction, prepared.swap
        self._results = {
            'native': save(prepared.native, 'native'),
            'raw': {key: save(image, f'raw_{key}') for key, image in prepared.images.items()},
            'corrected': {
                key: save(image, f'corrected_{key}') for key, image in prepared.corrected.items()
            },
            'body_mask': save(prepared.body_mask, 'mask'),
            'fat_fraction': None if fraction is None else save(fraction, 'fat_fraction'),
            'swap': None if swap is None else save(swap, 'swap'),
            'swap_searched': prepared.swap_searched,
            'bounded': prepared.bounded,
            'image_doubt': prepared.fat_doubt,
            'warnings': list(prepared.warnings),
        }
        return runtime
