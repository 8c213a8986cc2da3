"""Segment the muscles of one scan."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Bunch,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_muscle.interfaces.images import load


class _SegmentInput(BaseInterfaceInputSpec):
    images = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    contrasts = traits.List(traits.Str, mandatory=True, desc='which of the images to look at')
    model = traits.Str(mandatory=True, desc='folder of the model')
    model_sha256 = traits.Str(mandatory=True, desc='changes when the weights change')
    region = traits.Str(mandatory=True)
    use_gpu = traits.Bool(False, usedefault=True, nohash=True)


class _SegmentOutput(TraitedSpec):
    labels = File(exists=True)
    device = traits.Str(desc='where the network ran')


class SegmentScan(SimpleInterface):
    """Coat over :class:`bids_muscle.segmentation.predictor.Predictor`."""

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.segmentation.bundle import find_model
        from bids_muscle.segmentation.predictor import Predictor

        # The plugin leases a GPU by CUDA_VISIBLE_DEVICES, so the leased one is always number 0.
        device = 'cuda:0' if self.inputs.use_gpu else 'cpu'
        predictor = Predictor(find_model(self.inputs.model, self.inputs.region), device=device)
        labels = predictor.segment(
            [load(self.inputs.images[contrast]) for contrast in self.inputs.contrasts]
        )
        path = Path(runtime.cwd) / 'labels.nii'
        nib.save(labels, path)
        self._results = {'labels': str(path), 'device': device}
        return runtime
