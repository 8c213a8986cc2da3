"""Measure the muscles of one scan."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    Bunch,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_muscle.interfaces.base import ScanInput, load, load_all


class _MeasureInput(ScanInput):
    labels = File(exists=True, mandatory=True)
    images = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    fat_fraction = traits.Either(File(exists=True), None, usedefault=True)
    bounded = traits.Bool(mandatory=True)
    region = traits.Str(mandatory=True)
    contrast = traits.Str(mandatory=True, desc='dixon, T1w, T2w or PDw')


class _MeasureOutput(TraitedSpec):
    table = File(exists=True)


class MeasureScan(SimpleInterface):
    """Coat over :func:`bids_muscle.measurement.table.measure_scan`."""

    input_spec = _MeasureInput
    output_spec = _MeasureOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.anatomy.labels import load_label_table
        from bids_muscle.dataset.writer import write_tsv
        from bids_muscle.measurement.table import measure_scan

        images, fraction = load_all(self.inputs.images), self.inputs.fat_fraction
        table = measure_scan(
            load(self.inputs.labels),
            load_label_table(self.inputs.region),
            water=images.get('water'),
            fat=images.get('fat'),
            fat_fraction=load(fraction) if fraction else None,
            bounded=self.inputs.bounded,
            contrast=self.inputs.contrast,
        )
        path = Path(runtime.cwd) / 'table.tsv'
        write_tsv(table, path)
        self._results = {'table': str(path)}
        return runtime
