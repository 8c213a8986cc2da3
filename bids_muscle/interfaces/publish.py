"""Write the outputs of one scan into the derivatives dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    Bunch,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_muscle.dataset import sidecars
from bids_muscle.dataset.kept_maps import keep_network_maps
from bids_muscle.dataset.names import derivative_path, io_spec, left_out, split_figures
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import (
    packed,
    write_bytes,
    write_image,
    write_json,
    write_text,
)
from bids_muscle.interfaces.base import ScanInput, load
from bids_muscle.settings import OUTPUT_LEVELS


class PublishInput(ScanInput):
    """What the publishing of any scan needs."""

    scan = traits.Instance(Scan, mandatory=True)
    model = traits.Str(mandatory=True, desc='where the model is')
    bids_dir = traits.Str(mandatory=True)
    output_dir = traits.Str(mandatory=True)
    settings = traits.Dict(mandatory=True, desc='the settings that may change a number')
    level = traits.Enum(*reversed(OUTPUT_LEVELS), usedefault=True, desc='how much is kept')
    native = File(exists=True, mandatory=True)


class PublishOutput(TraitedSpec):
    """What was published."""

    paths = traits.List(traits.Str, desc='files written, relative to the output folder')


class Places:
    """Paths of the outputs of a scan; it remembers which were asked for, in order."""

    def __init__(self, scan: Scan, output_dir: str, level: str) -> None:
        self.paths: list[str] = []
        self._scan, self._output_dir, self._level = scan, Path(output_dir), level

    def keeps(self, key: str) -> bool:
        """Return whether an output is kept at this level."""
        return key not in left_out(self._level)

    def __call__(self, key: str, **fields: Any) -> Path:
        """Return where an output goes; see :func:`derivative_path`."""
        path = derivative_path(self._scan, key, **fields)
        self.paths.append(str(path))
        return self._output_dir / path


def write_figures(figures: Mapping[str, str], place: Places, level: str) -> None:
    """Write figures, given by name with the path of each, as files or into one archive."""
    loose, together = split_figures(figures, level)
    for name in loose:
        write_bytes(Path(figures[name]).read_bytes(), place('figure', desc=name))
    if together:
        kinds = io_spec()['figures']
        contents = {f'{name}.{kinds[name]}': Path(figures[name]).read_bytes() for name in together}
        write_bytes(packed(contents), place('packed_figures'))


class _PublishInput(PublishInput):
    corrected = traits.Dict(traits.Str, File(exists=True), mandatory=True)
    body_mask = File(exists=True, mandatory=True)
    fat_fraction = traits.Either(File(exists=True), None, usedefault=True)
    swap = traits.Either(File(exists=True), None, usedefault=True)
    labels = File(exists=True, mandatory=True)
    tables = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by name')
    fat_map = traits.Either(File(exists=True), None, usedefault=True)
    confidence = File(exists=True, desc='absent where a person made the labels')
    quality = File(exists=True, desc='as confidence')
    iqm = File(exists=True, mandatory=True)
    aligned = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by key')
    alignment = traits.Dict(mandatory=True, desc='how good the alignment is')
    figures = traits.Dict(traits.Str, File(exists=True), mandatory=True)


class PublishScan(SimpleInterface):
    """Put every output of a scan in its place, on the grid of the scan, whole or not at all."""

    input_spec = _PublishInput
    output_spec = PublishOutput
    # The outputs may be gone or changed although the work folder says they were written.
    _always_run = True

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.anatomy.lookups import lookups
        from bids_muscle.imaging.conform import to_native
        from bids_muscle.measurement.rows import morph_dictionary
        from bids_muscle.segmentation.catalogue import find_model

        inputs = self.inputs
        bids_dir = Path(inputs.bids_dir)
        orientation = inputs.settings.get('model_orientation')
        model = find_model(inputs.model, inputs.scan.region, orientation)
        native = load(inputs.native)
        places = Places(inputs.scan, inputs.output_dir, inputs.level)

        def image(path: str, key: str, sidecar: dict[str, Any], **fields: Any) -> None:
            if places.keeps(key):
                write_image(to_native(load(path), native), places(key, **fields))
            if places.keeps(f'{key}_json'):
                write_json(sidecar, places(f'{key}_json', **fields))

        for contrast, path in inputs.corrected.items():
            if contrast != 'fatfraction':
                sidecar = sidecars.preproc_sidecar(
                    inputs.scan,
                    bids_dir,
                    contrast,
                    bias_correction=inputs.settings['bias_correction'],
                )
                image(path, 'preproc', sidecar, contrast=contrast)
        image(inputs.body_mask, 'body_mask', sidecars.mask_sidecar(inputs.scan, bids_dir))
        if inputs.swap:
            fixed = inputs.settings['fix_swaps']
            sidecar = sidecars.swap_sidecar(inputs.scan, bids_dir, fixed=fixed)
            image(inputs.swap, 'swap_mask', sidecar)
        if inputs.fat_fraction:
            sidecar = sidecars.fat_fraction_sidecar(inputs.scan, bids_dir)
            image(inputs.fat_fraction, 'fat_fraction', sidecar)
        quality = None
        if not inputs.scan.manual:
            quality = json.loads(Path(inputs.quality).read_text(encoding='utf-8'))
            image(
                inputs.confidence, 'confidence', sidecars.confidence_sidecar(inputs.scan, bids_dir)
            )
        kept = keep_network_maps(inputs.scan, Path(inputs.output_dir), native)
        sidecar = sidecars.dseg_sidecar(inputs.scan, bids_dir, model, inputs.settings, quality)
        image(inputs.labels, 'dseg', sidecar)
        for kind, text in lookups(model.labels).items():
            if places.keeps(f'dseg_{kind}'):
                write_text(text, places(f'dseg_{kind}'))
        for name, path in inputs.tables.items():
            if places.keeps(name):
                write_bytes(Path(path).read_bytes(), places(name))
            if places.keeps(f'{name}_json'):
                sidecar = sidecars.morph_sidecar(
                    inputs.scan, bids_dir, morph_dictionary(name), model, inputs.settings
                )
                write_json(sidecar, places(f'{name}_json'))
        write_bytes(Path(inputs.iqm).read_bytes(), places('iqm'))
        if inputs.fat_map:
            sidecar = sidecars.fat_map_sidecar(inputs.scan, bids_dir, model, inputs.settings)
            image(inputs.fat_map, 'fat_map', sidecar)
        atlas = inputs.alignment.get('Atlas')
        sidecar = sidecars.alignment_sidecar(inputs.scan, bids_dir, inputs.alignment)
        for key, path in inputs.aligned.items():
            if not places.keeps(key):
                continue
            write_bytes(Path(path).read_bytes(), places(key, atlas=atlas))
            write_json(
                sidecar | sidecars.aligned(inputs.scan, key), places(f'{key}_json', atlas=atlas)
            )
        write_figures(inputs.figures, places, inputs.level)
        self._results = {'paths': [*places.paths, *kept]}
        return runtime
