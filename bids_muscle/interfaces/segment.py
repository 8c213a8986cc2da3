"""Segment the muscles of one scan."""

from __future__ import annotations

import json
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
    # A model is known by its card and its weights, wherever it lies.
    model = traits.Str(mandatory=True, nohash=True, desc='where the model is')
    model_card = traits.Str(mandatory=True, desc='JSON')
    model_sha256 = traits.Str(mandatory=True)
    region = traits.Str(mandatory=True)
    orientation = traits.Either(traits.Str, None, usedefault=True, desc='as --model-orientation')
    overlap = traits.Either(None, traits.Float, usedefault=True, desc='as --model-overlap')
    tta = traits.Bool(False, usedefault=True, desc='look at mirrored images too')
    use_gpu = traits.Bool(False, usedefault=True, nohash=True)
    # Of a model that works in the space of an atlas.
    body_mask = traits.Either(File(exists=True), None, usedefault=True)
    atlas_card = traits.Either(File(exists=True), None, usedefault=True)


class _SegmentOutput(TraitedSpec):
    labels = File(exists=True)
    confidence = File(exists=True, desc='percent')
    quality = File(exists=True, desc='predicted Dice by muscle, and how it was computed')
    device = traits.Str(desc='where the network ran')


class SegmentScan(SimpleInterface):
    """Wrapper around :class:`bids_muscle.segmentation.predictor.Predictor`."""

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.segmentation.catalogue import find_model
        from bids_muscle.segmentation.predictor import Predictor
        from bids_muscle.segmentation.quality import predicted_dice

        # The plugin leases a GPU by CUDA_VISIBLE_DEVICES, so the leased one is always number 0.
        device = 'cuda:0' if self.inputs.use_gpu else 'cpu'
        given = self.inputs
        bundle = find_model(given.model, given.region, given.orientation)
        predictor = Predictor(bundle, device=device, tta=given.tta, overlap=given.overlap)
        images = {name: load(self.inputs.images[name]) for name in self.inputs.contrasts}
        if self.inputs.atlas_card:
            from bids_muscle.imaging.atlas import read_atlas
            from bids_muscle.segmentation.atlas_space import segment_in_atlas

            segmented = segment_in_atlas(
                predictor,
                Predictor(find_model(None, self.inputs.region), device=device),
                images,
                load(self.inputs.body_mask),
                read_atlas(Path(self.inputs.atlas_card).parent),
            )
        else:
            segmented = predictor.segment(images)
        folder = Path(runtime.cwd)
        nib.save(segmented.labels, folder / 'labels.nii')
        nib.save(segmented.confidence, folder / 'confidence.nii')
        expected = predicted_dice(segmented.agreement, bundle.card.get('quality'))
        quality = {
            'predicted_dice': {label.name: expected.get(label.index) for label in bundle.labels},
            'computed': segmented.record(),
        }
        (folder / 'quality.json').write_text(json.dumps(quality), encoding='utf-8')
        self._results = {
            'labels': str(folder / 'labels.nii'),
            'confidence': str(folder / 'confidence.nii'),
            'quality': str(folder / 'quality.json'),
            'device': segmented.compute.device,
        }
        return runtime
