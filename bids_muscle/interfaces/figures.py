"""Draw the figures of one scan."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    Bunch,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_muscle.anatomy.labels import LabelTable
from bids_muscle.interfaces.base import ScanInput, load, load_all
from bids_muscle.settings import OUTPUT_LEVELS


class _PlotInput(ScanInput):
    raw = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    corrected = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    body_mask = File(exists=True, mandatory=True)
    labels = File(exists=True, mandatory=True)
    fat_fraction = traits.Either(File(exists=True), None, usedefault=True)
    confidence = File(exists=True, desc='absent where a person made the labels')
    atlas_image = traits.Either(File(exists=True), None, usedefault=True)
    atlas_labels = traits.Either(File(exists=True), None, usedefault=True)
    levels = File(exists=True, mandatory=True, desc='table of the levels of the slices')
    table = traits.Instance(LabelTable, mandatory=True, desc='what the numbers mean')
    level = traits.Enum(*reversed(OUTPUT_LEVELS), usedefault=True, desc='how much is kept')


class _PlotOutput(TraitedSpec):
    figures = traits.Dict(traits.Str, File(exists=True), desc='file by name')


class PlotScan(SimpleInterface):
    """Wrapper around :func:`bids_muscle.reports.figures.scan_figures`."""

    input_spec = _PlotInput
    output_spec = _PlotOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.reports.figures import FigureImages, scan_figures

        inputs = self.inputs
        images = FigureImages(
            raw=load_all(inputs.raw),
            corrected=load_all(inputs.corrected),
            body_mask=load(inputs.body_mask),
            labels=load(inputs.labels),
            fat_fraction=load(inputs.fat_fraction) if inputs.fat_fraction else None,
            confidence=load(inputs.confidence) if isdefined(inputs.confidence) else None,
        )
        atlas = inputs.atlas_image and (load(inputs.atlas_image), load(inputs.atlas_labels))
        pictures = scan_figures(
            images,
            inputs.table,
            atlas or None,
            _levels(Path(inputs.levels)),
            brief=inputs.level == 'minimal',
        )
        figures = {}
        for name, content in pictures.items():
            path = Path(runtime.cwd) / name
            path.write_bytes(content)
            figures[name] = str(path)
        self._results = {'figures': figures}
        return runtime


def _levels(table: Path) -> dict[int, str]:
    """Return the vertebral level of each slice that has one."""
    from bids_muscle.imaging.levels import read_levels

    levels = read_levels(table)
    return {k: name for k, name in enumerate(levels.names) if name} if levels else {}
