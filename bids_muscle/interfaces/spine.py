"""Segment, measure and publish the vertebrae and discs of one sagittal scan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    Bunch,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_muscle.anatomy.spine import DISC_OFFSET
from bids_muscle.dataset import sidecars
from bids_muscle.dataset.kept_maps import keep_network_maps
from bids_muscle.dataset.names import SPINE_MAPS
from bids_muscle.dataset.writer import (
    write_bytes,
    write_image,
    write_json,
    write_text,
    write_tsv,
)
from bids_muscle.interfaces.base import ScanInput, load, sentence
from bids_muscle.interfaces.publish import Places, PublishInput, PublishOutput, write_figures

if TYPE_CHECKING:
    from bids_muscle.segmentation.vertebrae import Spine


class _SegmentInput(ScanInput):
    images = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='path by contrast')
    model = traits.Str(mandatory=True, nohash=True, desc='where the model is')
    model_card = traits.Str(mandatory=True, desc='JSON')
    model_sha256 = traits.Str(mandatory=True)
    use_gpu = traits.Bool(False, usedefault=True, nohash=True)
    manual = traits.Dict(traits.Str, File(exists=True), desc='maps that a person made, by kind')
    names = traits.Dict(traits.Str, traits.Dict(), desc='what their lookup tables say, by kind')


class _SegmentOutput(TraitedSpec):
    native = File(exists=True, desc='grid of the scan in its own voxel order')
    image = File(exists=True, desc='RAS+')
    labels = traits.Dict(traits.Str, File(exists=True), desc='vertebrae and discs, RAS+')
    found = File(exists=True, desc='names, confidence and reasons by number')
    device = traits.Str(desc='where the network ran')
    warnings = traits.List(traits.Str)


class SegmentSpine(SimpleInterface):
    """Wrapper around the predictor and :func:`bids_muscle.segmentation.vertebrae.name_spine`.

    A map that a person made takes the place of the network's, which does not run if both are.
    """

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.imaging.conform import load_image, make_image, to_canonical

        cwd = Path(runtime.cwd)
        inputs = self.inputs
        native = load_image(Path(next(iter(inputs.images.values()))))
        image = to_canonical(native)
        image = make_image(np.nan_to_num(np.asarray(image.dataobj)), image.affine)
        facts: dict[str, dict[int, Any]] = {'names': {}, 'confidence': {}, 'reasons': {}}
        maps: dict[str, nib.Nifti1Image] = {}
        device = ''
        warnings: list[str] = []
        if set(inputs.manual) < set(SPINE_MAPS):
            spine, device, warnings = self._segment(image)
            maps = {key: make_image(getattr(spine, key), image.affine) for key in SPINE_MAPS}
            facts = {key: dict(getattr(spine, key)) for key in facts}
        for key, path in inputs.manual.items():
            maps[key], names = _read_manual(Path(path), native, key, inputs.names[key])
            _take_names(facts, key, names)
            warnings += maps[key].extra['warnings']
        labels = {key: str(cwd / f'{key}.nii') for key in SPINE_MAPS}
        for key, path in labels.items():
            nib.save(maps[key], path)
        nib.save(native, cwd / 'native.nii')
        nib.save(image, cwd / 'image.nii')
        (cwd / 'found.json').write_text(json.dumps(facts), encoding='utf-8')
        self._results = {
            'native': str(cwd / 'native.nii'),
            'image': str(cwd / 'image.nii'),
            'labels': labels,
            'found': str(cwd / 'found.json'),
            'device': device,
            'warnings': warnings,
        }
        return runtime

    def _segment(self, image: nib.Nifti1Image) -> tuple[Spine, str, list[str]]:
        """Return what the network finds, where it ran, and what is to be said."""
        from bids_muscle.anatomy.labels import SPINE
        from bids_muscle.errors import SegmentationError
        from bids_muscle.segmentation.catalogue import find_model
        from bids_muscle.segmentation.predictor import Predictor
        from bids_muscle.segmentation.vertebrae import name_spine

        device = 'cuda:0' if self.inputs.use_gpu else 'cpu'
        warnings: list[str] = []
        contrast = next(iter(self.inputs.images))
        predictor = Predictor(find_model(self.inputs.model, SPINE), device=device)
        try:
            segmented = predictor.segment({contrast: image})
            device = segmented.compute.device
            classes, confidence = (
                np.asarray(each.dataobj) for each in (segmented.labels, segmented.confidence)
            )
        except SegmentationError as error:  # a scan beside the spine is no failure
            warnings.append(f'No vertebrae were found. {error.remedy}')
            classes = confidence = np.zeros(image.shape, np.uint8)
        spine = name_spine(
            classes, confidence, image.header.get_zooms()[:3], predictor.model.numbers
        )
        warnings += dict.fromkeys(
            sentence(reason) for reasons in spine.reasons.values() for reason in reasons
        )
        return spine, device, warnings


def _read_manual(
    path: Path, native: nib.Nifti1Image, key: str, lookup: Mapping[int, str]
) -> tuple[nib.Nifti1Image, dict[int, str]]:
    """Read a map that a person made, and the names of its numbers."""
    from bids_muscle.anatomy.spine import spine_names
    from bids_muscle.imaging.correction import read_correction
    from bids_muscle.reports.spine_figure import spine_labels

    known = spine_names(key) | {int(number): name for number, name in lookup.items()}
    # A spine may have no disc that can be seen.
    labels = read_correction(path, native, spine_labels(known), may_be_empty=True)
    numbers = np.unique(np.asarray(labels.dataobj))
    return labels, {int(number): known[int(number)] for number in numbers if number}


def _take_names(facts: dict[str, dict[int, Any]], key: str, names: Mapping[int, str]) -> None:
    """Put names into the place of those of the network's map, with all that it said of these."""
    for known in facts.values():
        for number in [n for n in known if (n > DISC_OFFSET) == (key == 'discs')]:
            del known[number]
    facts['names'].update(names)


class _MeasureInput(ScanInput):
    image = File(exists=True, mandatory=True)
    labels = traits.Dict(traits.Str, File(exists=True), mandatory=True)
    found = File(exists=True, mandatory=True)


class _MeasureOutput(TraitedSpec):
    table = File(exists=True)
    figures = traits.Dict(traits.Str, File(exists=True), desc='file by name')


class MeasureSpine(SimpleInterface):
    """Wrapper around :func:`bids_muscle.measurement.spine.measure_spine`, and its figures."""

    input_spec = _MeasureInput
    output_spec = _MeasureOutput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.measurement.spine import measure_spine
        from bids_muscle.reports.spine_figure import spine_figures

        cwd = Path(runtime.cwd)
        names, confidence, reasons = _read_found(self.inputs.found)
        vertebrae, discs = (load(self.inputs.labels[name]) for name in SPINE_MAPS)
        table = measure_spine(
            (vertebrae, names), (discs, names), confidence=confidence, reasons=reasons
        )
        write_tsv(table, cwd / 'spine.tsv')
        figures = {}
        pictures = spine_figures(load(self.inputs.image), vertebrae, discs, table)
        for name, content in pictures.items():
            path = cwd / name
            path.write_bytes(content)
            figures[name] = str(path)
        self._results = {'table': str(cwd / 'spine.tsv'), 'figures': figures}
        return runtime


class _PublishInput(PublishInput):
    labels = traits.Dict(traits.Str, File(exists=True), mandatory=True)
    found = File(exists=True, mandatory=True)
    table = File(exists=True, mandatory=True)
    figures = traits.Dict(traits.Str, File(exists=True), mandatory=True)


class PublishSpine(SimpleInterface):
    """Put every output of a sagittal scan in its place, on the grid of the scan."""

    input_spec = _PublishInput
    output_spec = PublishOutput
    # The outputs may be gone or changed although the work folder says they were written.
    _always_run = True

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.anatomy.labels import SPINE
        from bids_muscle.anatomy.lookups import lookups
        from bids_muscle.imaging.conform import to_native
        from bids_muscle.measurement.rows import morph_dictionary
        from bids_muscle.reports.spine_figure import spine_labels
        from bids_muscle.segmentation.catalogue import find_model

        inputs = self.inputs
        bids_dir = Path(inputs.bids_dir)
        model = find_model(inputs.model, SPINE)
        native = load(inputs.native)
        names, _, _ = _read_found(inputs.found)
        places = Places(inputs.scan, inputs.output_dir, inputs.level)
        kept = keep_network_maps(inputs.scan, Path(inputs.output_dir), native)
        for name in SPINE_MAPS:
            labels = load(inputs.labels[name])
            numbers = set(np.unique(np.asarray(labels.dataobj)).tolist())
            table = spine_labels({n: text for n, text in names.items() if n in numbers})
            write_image(to_native(labels, native), places(name))
            if places.keeps(f'{name}_json'):
                sidecar = sidecars.spine_sidecar(
                    inputs.scan, bids_dir, name, model, inputs.settings
                )
                write_json(sidecar, places(f'{name}_json'))
            for kind, text in lookups(table).items():
                if places.keeps(f'{name}_{kind}'):
                    write_text(text, places(f'{name}_{kind}'))
        write_bytes(Path(inputs.table).read_bytes(), places('morph_spine'))
        sidecar = sidecars.morph_sidecar(
            inputs.scan, bids_dir, morph_dictionary('morph_spine'), model, inputs.settings
        )
        write_json(sidecar, places('morph_spine_json'))
        write_figures(inputs.figures, places, inputs.level)
        self._results = {'paths': [*places.paths, *kept]}
        return runtime


def _read_found(
    path: str,
) -> tuple[dict[int, str], dict[int, float], dict[int, tuple[str, ...]]]:
    """Read names, confidence and reasons; JSON has made text of the numbers."""
    content = json.loads(Path(path).read_text(encoding='utf-8'))
    return (
        {int(number): text for number, text in content['names'].items()},
        {int(number): float(value) for number, value in content['confidence'].items()},
        {int(number): tuple(each) for number, each in content['reasons'].items()},
    )
