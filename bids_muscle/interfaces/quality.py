"""Compute the quality figures of one scan."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    Bunch,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_muscle.anatomy.labels import LabelTable
from bids_muscle.interfaces.base import ScanInput, load, load_all


class _QualityInput(ScanInput):
    raw = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    corrected = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    body_mask = File(exists=True, mandatory=True)
    labels = File(exists=True, mandatory=True)
    swap = traits.Either(File(exists=True), None, usedefault=True)
    swap_searched = traits.Bool(mandatory=True)
    table = traits.Instance(LabelTable, mandatory=True, desc='what the numbers mean')


class _QualityOutput(TraitedSpec):
    iqm = File(exists=True)


class AssessScan(SimpleInterface):
    """Wrapper around :func:`bids_muscle.imaging.quality.image_quality`."""

    input_spec = _QualityInput
    output_spec = _QualityOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        import numpy as np

        from bids_muscle.dataset.writer import write_json
        from bids_muscle.imaging.quality import image_quality, quality_dictionary

        inputs = self.inputs
        figures, flags = image_quality(
            load_all(inputs.raw),
            load_all(inputs.corrected),
            load(inputs.body_mask),
            load(inputs.labels),
            inputs.table,
            np.asarray(load(inputs.swap).dataobj) > 0 if inputs.swap_searched else None,
        )
        path = Path(runtime.cwd) / 'iqm.json'
        write_json({**figures, 'flags': flags, 'definitions': quality_dictionary()}, path)
        self._results = {'iqm': str(path)}
        return runtime
