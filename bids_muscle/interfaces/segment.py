"""Segment the muscles of one scan."""

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

from bids_muscle.interfaces.base import ScanInput, load


class _SegmentInput(ScanInput):
    images = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    contrasts = traits.List(traits.Str, mandatory=True, desc='which of the images to look at')
    # The card holds the checksum of the weights, so its content stands for the whole model.
    model_card = File(exists=True, mandatory=True)
    use_gpu = traits.Bool(False, usedefault=True, nohash=True)


class _SegmentOutput(TraitedSpec):
    labels = File(exists=True)
    device = traits.Str(desc='where the network ran')


class SegmentScan(SimpleInterface):
    """Coat over :class:`bids_muscle.segmentation.predictor.Predictor`."""

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.segmentation.bundle import read_bundle
        from bids_muscle.segmentation.predictor import Predictor

        # The plugin leases a GPU by CUDA_VISIBLE_DEVICES, so the leased one is always number 0.
        device = 'cuda:0' if self.inputs.use_gpu else 'cpu'
        predictor = Predictor(read_bundle(Path(self.inputs.model_card).parent), device=device)
        labels = predictor.segment(
            {contrast: load(self.inputs.images[contrast]) for contrast in self.inputs.contrasts}
        ).labels
        path = Path(runtime.cwd) / 'labels.nii'
        nib.save(labels, path)
        self._results = {'labels': str(path), 'device': device}
        return runtime
