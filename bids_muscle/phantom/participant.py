"""All files of one simulated participant: scans, sidecars and the truth about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bids_muscle.phantom import bids, dicom, truth
from bids_muscle.phantom.anatomy import Anatomy, build_anatomy
from bids_muscle.phantom.fat import make_pattern
from bids_muscle.phantom.options import Options
from bids_muscle.phantom.person import Person
from bids_muscle.phantom.render import Samples, plant_fat, sample_grid
from bids_muscle.phantom.simulate import SimulatedScan, simulate_scan

#: Where the truth is, in the dataset.
TRUTH = Path('derivatives/truth')
#: Where DICOM series are.
DICOM = Path('sourcedata')

Entities = dict[str, str | None]


@dataclass(frozen=True)
class _Body:
    """One region of a person, sampled on the grid of the scan."""

    person: Person
    anatomy: Anatomy
    samples: Samples


def write_participant(root: Path, person: Person, options: Options) -> list[truth.Row]:
    """Write all scans of one participant and their truth.

    Parameters
    ----------
    root
        Folder of the dataset.

    Returns
    -------
    Rows of the muscle tables of all scans, with the columns of
    :data:`~bids_muscle.phantom.truth.SCAN_COLUMNS` in front.
    """
    rows: list[truth.Row] = []
    for number, region in enumerate(options.regions, start=1):
        grid = options.grid(region)
        in_plane_mm, slice_mm = grid.detail_mm
        anatomy = build_anatomy(region, person, in_plane_mm=in_plane_mm, slice_mm=slice_mm)
        samples = sample_grid(anatomy, make_pattern(anatomy, person), grid)
        body = _Body(person, anatomy, samples)
        for session in range(options.sessions):
            entities: Entities = {
                'sub': person.label,
                'ses': str(session + 1) if options.sessions > 1 else None,
                'chunk': str(number) if len(options.regions) > 1 else None,
            }
            rows += _write_session(root, entities, body, session, options)
    return rows


def _write_session(
    root: Path, entities: Entities, body: _Body, session: int, options: Options
) -> list[truth.Row]:
    person, anatomy, samples = body.person, body.anatomy, body.samples
    field_strength_t = options.field_strength_t
    planted = options.effects.planted_mfi(person, anatomy.region, options.seed, session)
    fat = plant_fat(anatomy, samples, planted, field_strength_t)
    muscles = truth.true_muscle_rows(anatomy, samples, fat, planted, field_strength_t)
    rows: list[truth.Row] = []
    for kinds in group_contrasts(options.contrasts):
        for run in range(1, options.runs + 1):
            key = (options.seed, person.shape_seed, anatomy.region, session, run, kinds[0])
            scan = simulate_scan(anatomy, samples, fat, kinds, options, key)
            name = entities | {'run': str(run) if options.runs > 1 else None}
            if options.dicom:
                visit = dicom.Visit(
                    person,
                    options.dicom,
                    field_strength_t,
                    session * bids.DAYS_BETWEEN_SESSIONS,
                    options.seed,
                )
                folder = _folder(root / DICOM, name).parent
                dicom.write_scan(
                    folder, scan.images, samples.grid, visit, anatomy.region, options.plane
                )
            else:
                _write_images(root, name, scan, body, options)
            name['acq'] = bids.scan_acq(kinds)
            _write_truth(root, name, scan, body, muscles)
            head: truth.Row = {
                'participant_id': f'sub-{person.label}',
                'session_id': f'ses-{name["ses"]}' if name['ses'] else 'n/a',
                'scan': bids.join_name(name),
                'region': anatomy.region,
                'artefacts': ','.join(scan.artefacts) or 'none',
            }
            rows += [head | row for row in muscles]
    return rows


def group_contrasts(contrasts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Group the contrasts that come from one acquisition.

    Examples
    --------
    >>> group_contrasts(('t2w', 'dixon', 'inout'))
    [('dixon', 'inout'), ('t2w',)]
    """
    dixon = tuple(sorted({'dixon', 'inout'}.intersection(contrasts)))
    rest: list[tuple[str, ...]] = [(name,) for name in contrasts if name not in dixon]
    return ([dixon] if dixon else []) + rest


def _folder(root: Path, entities: Entities) -> Path:
    session = [f'ses-{entities["ses"]}'] if entities['ses'] else []
    return Path(root, f'sub-{entities["sub"]}', *session, 'anat')


def _write_images(
    root: Path, entities: Entities, scan: SimulatedScan, body: _Body, options: Options
) -> None:
    folder = _folder(root, entities)
    for image in scan.images:
        stem = bids.image_name(entities, image.kind, options.naming)
        bids.write_nifti(folder / f'{stem}.nii.gz', image.data, body.samples.grid)
        content = bids.sidecar(image, body.anatomy.region, options, body.person.site)
        bids.write_json(folder / f'{stem}.json', content)


def _write_truth(
    root: Path,
    entities: Entities,
    scan: SimulatedScan,
    body: _Body,
    muscle_rows: list[truth.Row],
) -> None:
    anatomy, samples = body.anatomy, body.samples
    folder = _folder(root / TRUTH, entities)
    muscles = entities | {'seg': anatomy.table.segmentation}
    spine = entities | {'seg': f'{anatomy.region}spine'}
    for names, data in ((muscles, samples.labels), (spine, samples.spine)):
        stem = bids.join_name(names, 'dseg')
        bids.write_nifti(folder / f'{stem}.nii.gz', data, samples.grid)
        content = {
            'Description': 'Class that fills most of the voxel in the simulated anatomy',
            'Manual': False,
            'SkullStripped': False,
            'SpatialReference': 'orig',
            'SimulatedArtefacts': scan.artefacts,
        }
        bids.write_json(folder / f'{stem}.json', content)
    tables = (
        (bids.join_name(muscles, 'morph'), muscle_rows, truth.MUSCLE_COLUMNS),
        (bids.join_name(muscles, 'levels'), truth.true_level_rows(anatomy), truth.LEVEL_COLUMNS),
        (bids.join_name(spine, 'morph'), truth.disc_rows(anatomy, samples), truth.DISC_COLUMNS),
    )
    for stem, rows, columns in tables:
        bids.write_text(folder / f'{stem}.tsv', truth.format_table(rows, columns))
        bids.write_json(folder / f'{stem}.json', truth.describe_columns(columns))
