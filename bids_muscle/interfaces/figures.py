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
        from bids_muscle.reports.figures import scan_figures

        given = self.inputs
        pictures = scan_figures(
            load_all(given.raw),
            load_all(given.corrected),
            load(given.body_mask),
            load(given.labels),
            given.table,
            load(given.fat_fraction) if given.fat_fraction else None,
            load(given.confidence) if isdefined(given.confidence) else None,
            (load(given.atlas_image), load(given.atlas_labels)) if given.atlas_image else None,
            _levels(Path(given.levels)),
            brief=given.level == 'minimal',
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
