"""The last steps of a participant, from outputs of its scans and label maps of others.

They are the vertebrae of other programs, the levels of both planes joined, and spinal loads. A
step whose inputs and outputs are those of an earlier run is not repeated.
"""

from __future__ import annotations

import filecmp
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.anatomy.labels import BODY, SPINE
from bids_muscle.dataset.names import SPINE_TABLE, io_spec, name_ending, session_path, spine_path
from bids_muscle.dataset.participants import height_m, sex, weight_kg
from bids_muscle.dataset.records import (
    ScanRecord,
    SessionRecord,
    StepCost,
    read_records,
    read_session_records,
    remove_session_record,
    write_session_record,
)
from bids_muscle.dataset.sessions import read_person
from bids_muscle.dataset.spine_maps import SpineMaps, find_spine_maps, read_label_names
from bids_muscle.errors import MissingInputError, Problem, TemporaryError, problem_of
from bids_muscle.files import file_sha256, how_to_fetch
from bids_muscle.imaging.conform import in_one_world, read_grid
from bids_muscle.workflows.resume import remove_page

if TYPE_CHECKING:
    from nipype.interfaces.base import SimpleInterface
    from nipype.pipeline.engine import Workflow

    from bids_muscle.engine.outcome import NodeOutcome, RunReport
    from bids_muscle.settings import Settings
    from bids_muscle.workflows.participant import SessionStep

_LOADS = ('loads', 'loads_json', 'loads_model')
_TABLE = name_ending('morph_spine')
_LEVELS = name_ending('morph_levels')
#: Regions of scans that show the muscles of the back.
_BACK = ('lumbar', BODY)


def check_loading(settings: Settings) -> None:
    """Raise MissingInputError where loads are asked for and OpenSim is not installed."""
    if settings.loading:
        from bids_muscle.spinal_loads.opensim_model import require_opensim

        require_opensim()


def run_sessions(
    settings: Settings,
    participants: Sequence[str],
    run: Callable[[Sequence[Workflow]], RunReport],
) -> list[Problem]:
    """Run the last steps of some participants, and remove what an earlier run left of them.

    What goes wrong with one step is said on standard error and stops no other.

    Parameters
    ----------
    settings
        The settings of the run.
    participants
        Labels without ``sub-``; the records of their scans are written.
    run
        Runs graphs side by side.

    Returns
    -------
    list of Problem
        What went wrong.
    """
    maps = {label: _Stage(settings, label, _plan_maps(settings, label)) for label in participants}
    _run_stages(list(maps.values()), run)
    for label, stage in maps.items():
        _remove_stale_tables(settings, label, stage.outputs)
    # They read the tables of the maps.
    rest = {
        label: _Stage(settings, label, plan_sessions(settings, label)) for label in participants
    }
    _run_stages(list(rest.values()), run)
    for label, stage in rest.items():
        _remove_stale_rest(settings, label, stage.outputs)
        named = {*maps[label].names, *stage.names}
        for name in set(read_session_records(settings.output_dir, label)) - named:
            if not settings.sessions:
                remove_session_record(name, label, settings.output_dir)
    return [problem for each in (*maps.values(), *rest.values()) for problem in each.problems]


class _Stage:
    """Steps of one participant that may run side by side."""

    def __init__(
        self, settings: Settings, participant: str, planned: Iterable[SessionStep | SessionRecord]
    ) -> None:
        self.participant = participant
        self.problems: list[Problem] = []
        self.outputs: set[Path] = set()
        self.names: set[str] = set()
        self.left: list[SessionStep] = []
        self._output_dir = settings.output_dir
        earlier = read_session_records(self._output_dir, participant)
        for step in planned:
            self.names.add(step.name)
            record = earlier.get(step.name)
            if isinstance(step, SessionRecord):
                # What is elsewhere has not changed.
                is_away = step.problem and step.problem.kind == MissingInputError.__name__
                self._end(replace(record, problem=step.problem) if record and is_away else step)
            elif record and not settings.overwrite and self._is_finished(record, step):
                self.outputs |= {self._output_dir / name for name in record.outputs}
            else:
                self.left.append(step)

    def _is_finished(self, record: SessionRecord, step: SessionStep) -> bool:
        return (
            record.problem is None
            and record.fingerprint == step.fingerprint
            and self._digests(record.outputs) == record.outputs
        )

    def _digests(self, names: Iterable[str]) -> dict[str, str]:
        """Return the SHA-256 of the files that are there, by name."""
        paths = {name: self._output_dir / name for name in names}
        return {name: file_sha256(path) for name, path in paths.items() if path.is_file()}

    def begin(self) -> None:
        """Remove the page and the records of what is about to run."""
        if self.left:
            remove_page(self._output_dir, self.participant)
        for step in self.left:
            remove_session_record(step.name, self.participant, self._output_dir)

    def finish(self, report: RunReport) -> None:
        """Write the records of what was left."""
        for step in self.left:
            self._end(self._record(step, report.of(step.name).get(step.kind)))

    def _record(self, step: SessionStep, outcome: NodeOutcome | None) -> SessionRecord:
        if outcome is None or outcome.status == 'skipped':
            problem = TemporaryError(
                f'{step.name} was not made, because another step failed before it.',
                'Run again without --stop-on-first-crash.',
            ).problem
            return SessionRecord(name=step.name, problem=problem)
        return SessionRecord(
            name=step.name,
            fingerprint=step.fingerprint,
            outputs=self._digests(outcome.outputs.get('paths', ())),
            problem=outcome.problem,
            step=StepCost(step.kind, round(outcome.wall_s, 2), outcome.peak_mb),
        )

    def _end(self, record: SessionRecord) -> None:
        if record.problem:
            self.problems.append(record.problem)
            print(f'bids_muscle: {record.problem}', file=sys.stderr)
        self.outputs |= {self._output_dir / name for name in record.outputs}
        write_session_record(record, self.participant, self._output_dir)


def _run_stages(stages: Sequence[_Stage], run: Callable[[Sequence[Workflow]], RunReport]) -> None:
    """Run what is left of some stages side by side."""
    from bids_muscle.workflows.participant import init_session_wf

    left = [stage for stage in stages if stage.left]
    if not left:
        return
    for stage in left:
        stage.begin()
    report = run([init_session_wf(participant=s.participant, steps=s.left) for s in left])
    for stage in left:
        stage.finish(report)


def _step(name: str, kind: str, interface: SimpleInterface, n_voxels: int = 0) -> SessionStep:
    from bids_muscle.workflows.participant import SessionStep

    digest: str = interface.inputs.get_hashval(hash_method='content')[1]
    return SessionStep(name, kind, interface, digest, n_voxels)


def _failed(name: str, error: Exception, doing: str) -> SessionRecord:
    return SessionRecord(name=name, problem=problem_of(error, doing))


def _plan_maps(settings: Settings, participant: str) -> Iterator[SessionStep | SessionRecord]:
    """Plan a table of vertebrae and discs for each pair of label maps of others.

    A map of another program takes the place of that of the sagittal scan of its name, also in the
    table; where only one of the two maps is given, the other is the scan's own.
    """
    records = read_records(settings.output_dir, participant)
    scans = {record.scan for record in records if record.region == SPINE}
    for maps in find_spine_maps([*settings.derivatives, settings.output_dir], participant, scans):
        if settings.sessions and maps.session not in settings.sessions:
            continue
        name = spine_path(maps.stem, 'morph_spine').stem
        try:
            for path in maps.paths:
                if fetch := how_to_fetch(path):
                    raise MissingInputError(f'{path} cannot be read.', fetch)
            # The table of the scan itself also knows how sure its names are.
            if any(_is_given(path, maps, settings.output_dir) for path in maps.paths):
                yield _measure_maps(settings, participant, maps, name)
        except Exception as error:
            yield _failed(name, error, f'Measuring the spine of {maps.stem}')


def _measure_maps(settings: Settings, participant: str, maps: SpineMaps, name: str) -> SessionStep:
    from bids_muscle.interfaces.session import MeasureMaps

    named = {'vertebrae': maps.vertebrae, 'discs': maps.discs}
    paths = {kind: path for kind, path in named.items() if path}
    interface = MeasureMaps(
        output_dir=str(settings.output_dir),
        stem=maps.stem,
        sources=[path.name for path in paths.values()],
        names={kind: read_label_names(path, participant) for kind, path in paths.items()},
        **{kind: str(path) for kind, path in paths.items()},
    )
    n_voxels = sum(math.prod(read_grid(path).shape) for path in paths.values())
    return _step(name, 'measure_maps', interface, n_voxels)


def _is_given(path: Path, maps: SpineMaps, output_dir: Path) -> bool:
    """Return whether a map is another one than that which a scan of this dataset has written."""
    own = (output_dir / spine_path(maps.stem, 'morph_spine')).with_name(path.name)
    if path == own:
        return '_desc-' in path.name
    return not (own.is_file() and filecmp.cmp(own, path, shallow=False))


def plan_sessions(settings: Settings, participant: str) -> Iterator[SessionStep | SessionRecord]:
    """Plan the joined table of each session with both planes, and the loads if asked for."""
    records = read_records(settings.output_dir, participant)
    for session in sorted({record.session for record in records}, key=str):
        name = session_path(participant, session, 'morph_joined').stem
        try:
            if step := _join_planes(settings, participant, session, records):
                yield step
        except Exception as error:
            yield _failed(name, error, f'Joining vertebrae and muscles of {name}')
    muscles = _muscle_tables(settings, records)
    parts = _parts_used(records)
    for path in _tables_for_loads(settings, participant, muscles) if settings.loading else ():
        stem = path.name.removesuffix(_TABLE) if path.name.endswith(_TABLE) else _scan_of(path)
        try:
            yield _compute_loads(settings, participant, path, stem, muscles, parts)
        except Exception as error:
            name = spine_path(stem, 'loads').stem
            yield _failed(name, error, f'Computing the loads of {path.name}')


def _join_planes(
    settings: Settings, participant: str, session: str | None, records: Sequence[ScanRecord]
) -> SessionStep | None:
    """Plan the table of vertebral levels with their muscles, if the session has both.

    Vertebrae are those of the tables of the spine, muscles those of the tables of levels whose
    levels come from vertebrae.
    """
    from bids_muscle.interfaces.session import JoinPlanes

    output_dir = settings.output_dir
    path = session_path(participant, session, 'morph_joined')
    spines = {
        table.name.removesuffix(_TABLE): str(table)
        for table in sorted((output_dir / path).parent.glob(f'*{_TABLE}'))
    }
    alignments = {
        record.scan: json.loads((output_dir / name).read_text(encoding='utf-8'))
        for record in records
        if record.session == session and record.region != SPINE
        for name in record.outputs
        if name.endswith(name_ending('levels_json'))
    }
    muscles = {
        record.scan: str(output_dir / name)
        for record in records
        if alignments.get(record.scan, {}).get('LevelSource') == 'segmentation'
        for name in record.outputs
        if name.endswith(_LEVELS)
    }
    for record in (record for record in records if record.parts):
        _take_joined(record, output_dir, muscles, alignments)
    parts = _parts_used(records)
    spines = {
        stem: table
        for stem, table in spines.items()
        if all(
            _in_one_world(settings, participant, stem, Path(each), parts)
            for each in muscles.values()
        )
    }
    if not (spines and muscles):
        return None
    interface = JoinPlanes(
        output_dir=str(output_dir),
        stem=path.stem,
        spines=spines,
        muscles=muscles,
        alignments={scan: alignments[scan] for scan in muscles},
        participant=participant,
        session=session,
    )
    return _step(path.stem, 'join_planes', interface)


def _take_joined(
    record: ScanRecord,
    output_dir: Path,
    muscles: dict[str, str],
    alignments: dict[str, dict[str, Any]],
) -> None:
    """Put a joined scan in the place of its parts, where vertebrae tell the levels of them all.

    It lies as far from the vertebrae as the part that lies farthest.
    """
    used = [name for name in record.parts if name not in record.aside]
    if record.status != 'done' or not set(used) <= muscles.keys():
        return
    each = [alignments[name] for name in used]
    farthest = max(each, key=lambda one: sum(mm**2 for mm in one.get('MovementMm') or ()))
    remarks = [text for one in each for text in one.get('MovementRemarks', ())]
    alignments[record.scan] = {**farthest, 'MovementRemarks': list(dict.fromkeys(remarks))}
    [table] = [name for name in record.outputs if name.endswith(_LEVELS)]
    for name in used:
        del muscles[name]
    muscles[record.scan] = str(output_dir / table)


def _parts_used(records: Sequence[ScanRecord]) -> dict[str, list[str]]:
    """Return the parts that each joined scan is made of; none of other scans."""
    return {each.scan: [name for name in each.parts if name not in each.aside] for each in records}


def _muscle_tables(settings: Settings, records: Sequence[ScanRecord]) -> list[Path]:
    """Return the tables by vertebral level of scans of the back, whichever model labelled them.

    A joined scan stands for its parts.
    """
    parts = {name for record in records if record.status == 'done' for name in record.parts}
    return sorted(
        settings.output_dir / name
        for record in records
        if record.region in _BACK and record.scan not in parts
        for name in record.outputs
        if name.endswith(_LEVELS)
    )


def _scan_of(levels: Path) -> str:
    return levels.name.partition('_seg-')[0]


def _tables_for_loads(settings: Settings, participant: str, levels: Sequence[Path]) -> list[Path]:
    """Return the tables of vertebrae, and of muscles in sessions without vertebrae."""
    places = _places(settings, participant)
    spines = sorted(path for place in places for path in place.rglob(f'*{_TABLE}'))
    muscles = [path for path in levels if any(place in path.parents for place in places)]
    seen = {path.parent for path in spines}
    # A session without vertebrae has a table that says so.
    return [*spines, *(path for path in muscles if path.parent not in seen)]


def _places(settings: Settings, participant: str) -> list[Path]:
    folder = settings.output_dir / f'sub-{participant}'
    return [folder / f'ses-{label}/anat' for label in settings.sessions] or [folder]


def _compute_loads(
    settings: Settings,
    participant: str,
    path: Path,
    stem: str,
    muscles: Sequence[Path],
    parts: Mapping[str, Sequence[str]],
) -> SessionStep:
    from bids_muscle.interfaces.session import ComputeLoads

    # Of several axial scans of a session the first counts.
    levels = next((each for each in muscles if each.parent == path.parent), None)
    # The folder is sub-<label>/anat, or sub-<label>/ses-<label>/anat.
    session = path.parent.parent.name.removeprefix('ses-')
    info = read_person(settings.bids_dir, participant, session)
    interface = ComputeLoads(
        output_dir=str(settings.output_dir),
        stem=stem,
        sources=list(dict.fromkeys(each.name for each in (path, levels) if each)),
        spine=str(path) if path.name.endswith(_TABLE) else None,
        levels=str(levels) if levels else None,
        person={'height_m': height_m(info), 'weight_kg': weight_kg(info), 'sex': sex(info)},
        lean=settings.loading_strength == 'lean',
        shift_mm=_shift_mm(levels, stem, parts) if levels else None,
        in_one_world=levels is None or _in_one_world(settings, participant, stem, levels, parts),
    )
    return _step(spine_path(stem, 'loads').stem, 'loads', interface)


def _in_one_world(
    settings: Settings,
    participant: str,
    spine: str,
    levels: Path,
    parts: Mapping[str, Sequence[str]],
) -> bool:
    """Return whether places in the table of a spine and one of muscles can be compared.

    They cannot where the header of one of the scans has no position. A joined scan has no label
    map of its own, but its parts have.
    """
    folders = [*settings.derivatives, settings.output_dir]
    maps = (each for each in find_spine_maps(folders, participant) if each.stem == spine)
    scan = _scan_of(levels)
    ending = levels.name.removeprefix(scan).removesuffix(_LEVELS) + name_ending('dseg')
    muscles = [levels.with_name(name + ending) for name in parts.get(scan) or [scan]]
    paths = [*(path for each in maps for path in each.paths[:1]), *muscles[:1]]
    grids = [read_grid(path) for path in paths if path.is_file()]
    return len(grids) < 2 or in_one_world(*grids)


def _shift_mm(levels: Path, spine: str, parts: Mapping[str, Sequence[str]]) -> list[float] | None:
    """Return how far a scan of muscles lies from the sagittal one, if that was measured.

    A joined scan lies as far as the part that lies farthest.
    """
    name = _scan_of(levels)
    shifts: list[list[float]] = []
    for each in parts.get(name) or [name]:
        sidecar = levels.with_name(each + name_ending('levels_json'))
        if sidecar.is_file():
            found = json.loads(sidecar.read_text(encoding='utf-8'))
            if found.get('MovementMm') and found.get('MovementSpine') == spine:
                shifts.append(found['MovementMm'])
    return max(shifts, key=lambda shift: sum(mm**2 for mm in shift), default=None)


def _remove_stale_tables(settings: Settings, participant: str, kept: set[Path]) -> None:
    """Remove the tables of label maps that are no longer there."""
    if settings.sessions:
        return
    records = read_records(settings.output_dir, participant)
    kept = kept | {settings.output_dir / name for record in records for name in record.outputs}
    folder = settings.output_dir / f'sub-{participant}'
    _remove(settings, participant, [folder], SPINE_TABLE, kept)


def _remove_stale_rest(settings: Settings, participant: str, kept: set[Path]) -> None:
    """Remove joined tables and loads of an earlier run that are not those of now."""
    folder = settings.output_dir / f'sub-{participant}'
    _remove(settings, participant, [folder], io_spec()['session'], kept)
    _remove(settings, participant, _places(settings, participant), _LOADS, kept)


def _remove(
    settings: Settings,
    participant: str,
    places: Sequence[Path],
    keys: Iterable[str],
    kept: set[Path],
) -> None:
    endings = [name_ending(key) for key in keys]
    for path in [path for place in places for end in endings for path in place.rglob(f'*{end}')]:
        if path not in kept:
            remove_page(settings.output_dir, participant)  # it shows them
            path.unlink(missing_ok=True)
