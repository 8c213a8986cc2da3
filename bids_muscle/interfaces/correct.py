"""Take the labels of a scan from a person instead of the network."""

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

from bids_muscle.anatomy.labels import LabelTable
from bids_muscle.interfaces.base import ScanInput, load


class _CorrectInput(ScanInput):
    manual = File(exists=True, mandatory=True, desc='label map that a person made')
    native = File(exists=True, mandatory=True, desc='grid of the scan in its own voxel order')
    table = traits.Instance(LabelTable, mandatory=True, desc='what the numbers mean')


class _CorrectOutput(TraitedSpec):
    labels = File(exists=True)
    warnings = traits.List(traits.Str)


class CorrectScan(SimpleInterface):
    """Wrapper around :func:`bids_muscle.imaging.correction.read_correction`."""

    input_spec = _CorrectInput
    output_spec = _CorrectOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.imaging.correction import read_correction

        given = self.inputs
        path = Path(runtime.cwd) / 'labels.nii'
        labels = read_correction(Path(given.manual), load(given.native), given.table)
        nib.save(labels, path)
        self._results = {'labels': str(path), 'warnings': list(labels.extra['warnings'])}
        return runtime
