"""Measure label maps of vertebrae that others made, join both planes, and compute spinal loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import Bunch, File, SimpleInterface, traits

from bids_muscle.dataset.names import session_path, spine_path
from bids_muscle.dataset.provenance import SOFTWARE
from bids_muscle.dataset.writer import read_tsv, write_bytes, write_json, write_tsv
from bids_muscle.interfaces.base import ScanInput
from bids_muscle.interfaces.publish import PublishOutput

if TYPE_CHECKING:
    from nibabel import Nifti1Image


class _SessionInput(ScanInput):
    output_dir = traits.Str(mandatory=True, nohash=True)
    stem = traits.Str(mandatory=True, desc='name of the outputs up to what they are')
    sources = traits.List(traits.Str, desc='names of the files that the outputs are made from')


class _Session(SimpleInterface):
    """A step that writes outputs of a session; its inputs alone decide what these are."""

    output_spec = PublishOutput
    # The outputs may be gone or changed although the work folder says they were written.
    _always_run = True

    def _publish(self, outputs: Mapping[PurePosixPath, Any]) -> None:
        """Write tables, sidecars and other files, by path relative to the output folder."""
        writers: dict[str, Any] = {'.tsv': write_tsv, '.json': write_json}
        for path, content in outputs.items():
            writers.get(path.suffix, write_bytes)(content, Path(self.inputs.output_dir) / path)
        self._results = {'paths': [str(path) for path in outputs]}


class _MapsInput(_SessionInput):
    vertebrae = traits.Either(None, File(exists=True), usedefault=True)
    discs = traits.Either(None, File(exists=True), usedefault=True)
    names = traits.Dict(desc='names of the labels of each of the two')


class MeasureMaps(_Session):
    """Nipype interface for :func:`bids_muscle.measurement.spine.measure_spine`."""

    input_spec = _MapsInput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.imaging.conform import load_image
        from bids_muscle.measurement.rows import morph_dictionary
        from bids_muscle.measurement.spine import measure_spine

        inputs = self.inputs

        def read(kind: str) -> tuple[Nifti1Image, dict[int, str]] | None:
            path = getattr(inputs, kind)
            return (load_image(Path(path)), inputs.names[kind]) if path else None

        table = measure_spine(read('vertebrae'), read('discs'))
        sidecar = {
            **morph_dictionary('morph_spine'),
            'SourceFiles': inputs.sources,
            'SoftwareVersion': SOFTWARE,
        }
        write = {'morph_spine': table, 'morph_spine_json': sidecar}
        self._publish({spine_path(inputs.stem, key): value for key, value in write.items()})
        return runtime


class _JoinInput(_SessionInput):
    spines = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='table by scan')
    muscles = traits.Dict(traits.Str, File(exists=True), mandatory=True, desc='table by scan')
    alignments = traits.Dict(mandatory=True, desc='by scan of muscles')
    participant = traits.Str(mandatory=True)
    session = traits.Either(None, traits.Str, usedefault=True)


class JoinPlanes(_Session):
    """Nipype interface for :func:`bids_muscle.measurement.spine.join_levels`."""

    input_spec = _JoinInput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.measurement.rows import morph_dictionary
        from bids_muscle.measurement.spine import join_levels

        inputs = self.inputs
        spines = {scan: read_tsv(Path(path)) for scan, path in inputs.spines.items()}
        muscles = {scan: read_tsv(Path(path)) for scan, path in inputs.muscles.items()}
        joined = join_levels(spines, muscles, inputs.alignments)
        sidecar = {
            **morph_dictionary('morph_joined'),
            'SoftwareVersion': SOFTWARE,
        }
        write = {'morph_joined': joined, 'morph_joined_json': sidecar}
        session = (inputs.participant, inputs.session)
        self._publish(
            {}
            if joined.empty
            else {session_path(*session, key): value for key, value in write.items()}
        )
        return runtime


class _LoadsInput(_SessionInput):
    spine = traits.Either(None, File(exists=True), usedefault=True, desc='table')
    levels = traits.Either(None, File(exists=True), usedefault=True, desc='table of muscles')
    person = traits.Dict(mandatory=True, desc='height_m, weight_kg and sex, None where unknown')
    lean = traits.Bool(mandatory=True)
    shift_mm = traits.Either(None, traits.List(traits.Float), usedefault=True)
    in_one_world = traits.Bool(True, usedefault=True, desc='whether places can be compared')


class ComputeLoads(_Session):
    """Nipype interface for :func:`bids_muscle.spinal_loads.table.measure_loads`."""

    input_spec = _LoadsInput

    def _run_interface(self, runtime: Bunch) -> Bunch:
        from bids_muscle.dictionaries import read_dictionary
        from bids_muscle.spinal_loads.table import measure_loads

        inputs = self.inputs
        loads = measure_loads(
            read_tsv(Path(inputs.spine)) if inputs.spine else None,
            read_tsv(Path(inputs.levels)) if inputs.levels else None,
            **inputs.person,
            lean=inputs.lean,
            shift_mm=inputs.shift_mm,
            in_one_world=inputs.in_one_world,
        )
        sidecar = {
            **read_dictionary('loading'),
            **loads.made_from,
            'SourceFiles': inputs.sources,
            'SoftwareVersion': SOFTWARE,
        }
        write: dict[str, Any] = {'loads': loads.rows, 'loads_json': sidecar}
        if loads.model:
            write['loads_model'] = loads.model
        self._publish({spine_path(inputs.stem, key): value for key, value in write.items()})
        return runtime
