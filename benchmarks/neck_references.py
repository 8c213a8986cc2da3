"""Outlines by eye of the seven neck muscle pairs: make label maps of them, score others by them.

    python benchmarks/neck_references.py --data ../shared/data/neck
    python benchmarks/neck_references.py --data ../shared/data/neck --model
    python benchmarks/neck_references.py --data ../shared/data/neck --dseg sub-01=FILE ...
    python benchmarks/neck_references.py --data ../shared/data/neck --write FOLDER

Prints the areas of the outlines, how far two readings agree, and the Dice of the model or of the
label maps that are named: over all slices that a reader looked at, and over the levels at which
the muscle is measured (Weber 2021, Table 1), with the ratio of the areas there. A model segments
every image on the grid of the outlined one. Read ``references/neck/README.md`` first.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.path import Path as Curve
from scipy.interpolate import splev, splprep
from scipy.spatial.distance import cdist

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.statistics.overlap import overlap

TABLE = Path(__file__).parent / 'references/neck/outlines.tsv'
#: Middles of the discs, read by eye.
BORDERS = Path(__file__).parents[1] / 'tests/real/borders.tsv'
LABELS = load_label_table('cervical')
#: Points of the curve for each vertex drawn.
_POINTS = 8


@dataclass(frozen=True)
class Outline:
    """One closed curve around (a part of) a muscle in one slice, in voxels of the RAS+ image.

    No vertices: the reader looked and the muscle is not in the slice.
    """

    participant: str
    image: str
    reading: int
    slice: int
    label: int
    vertices: tuple[tuple[float, float], ...]

    def curve(self) -> np.ndarray:
        """Periodic cubic spline through the vertices, (points, 2)."""
        closed = np.array([*self.vertices, self.vertices[0]])
        spline, _ = splprep(closed.T, s=0, per=True, k=3)
        return np.array(splev(np.linspace(0, 1, len(closed) * _POINTS)[:-1], spline)).T


@dataclass(frozen=True)
class Reference:
    """A label map and which of its muscles were looked for in which slice.

    A muscle that was not looked for is unknown in that slice, whatever the map says there.
    """

    labels: np.ndarray
    known: np.ndarray

    def slices(self, label: int) -> np.ndarray:
        """Return the indices of the slices in which the muscle is known."""
        return np.flatnonzero(self.known[:, label])


def read_outlines(path: Path = TABLE) -> list[Outline]:
    """Read the table of outlines."""
    numbers = {(label.abbreviation, label.side): label.index for label in LABELS}
    with path.open(encoding='utf-8', newline='') as stream:
        return [
            Outline(
                row['participant_id'],
                row['image'],
                int(row['reading']),
                int(row['slice']),
                numbers[row['muscle'], row['side']],
                _vertices(row['vertices']),
            )
            for row in csv.DictReader(stream, delimiter='\t')
        ]


def _vertices(text: str) -> tuple[tuple[float, float], ...]:
    if text == 'n/a':
        return ()
    points = [point.split(',') for point in text.split()]
    return tuple((float(x), float(y)) for x, y in points)


def rasterise(outlines: Sequence[Outline], shape: Sequence[int]) -> Reference:
    """Label the voxels whose centre is inside an outline.

    Where two outlines overlap, a voxel goes to the one whose edge is farther from it.

    Parameters
    ----------
    outlines
        Of one image and one reading.
    shape
        Of that image in RAS+ voxel order.
    """
    labels = np.zeros(tuple(shape[:3]), dtype=np.uint8)
    depth = np.zeros(labels.shape)
    known = np.zeros((shape[2], max(LABELS.by_index) + 1), dtype=bool)
    for outline in outlines:
        known[outline.slice, outline.label] = True
        if not outline.vertices:
            continue
        curve = outline.curve()
        low = np.floor(curve.min(axis=0)).astype(int)
        high = np.ceil(curve.max(axis=0)).astype(int) + 1
        centres = np.mgrid[low[0] : high[0], low[1] : high[1]].reshape(2, -1).T
        centres = centres[Curve(curve).contains_points(centres)]
        distance = cdist(centres, curve).min(axis=1)
        where = (*centres.T, outline.slice)
        deeper = distance > depth[where]
        labels[where] = np.where(deeper, outline.label, labels[where])
        depth[where] = np.maximum(distance, depth[where])
    return Reference(labels, known)


def references(
    outlines: Sequence[Outline], shapes: Mapping[str, Sequence[int]], reading: int = 1
) -> dict[str, Reference]:
    """Rasterise one reading of every participant whose shape is given."""
    return {
        participant: rasterise(
            [o for o in outlines if (o.participant, o.reading) == (participant, reading)], shape
        )
        for participant, shape in shapes.items()
    }


def score(found: np.ndarray, reference: Reference) -> dict[int, float]:
    """Dice of each muscle over the slices in which the reference knows it; NaN if in none."""
    return {
        label.index: overlap(
            found[:, :, reference.slices(label.index)],
            reference.labels[:, :, reference.slices(label.index)],
            [label.index],
        )[label.index].dice
        for label in LABELS
    }


def read_borders(image: str, path: Path = BORDERS) -> dict[str, float]:
    """Slice of the middle of each disc of a neck, by its upper vertebra (``'C4'`` for C4-C5)."""
    with path.open(encoding='utf-8', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    return {
        row['border'].split('-')[0]: (float(row['first']) + float(row['second'])) / 2
        for row in rows
        if row['scan'].startswith('neck/') and image.startswith(Path(row['scan']).name)
    }


def at_levels(reference: Reference, borders: Mapping[str, float]) -> Reference:
    """Keep as known the slices of the levels at which each muscle is measured.

    A border that was not read is beyond the end of the scan.
    """
    middles = np.arange(len(reference.known))
    known = reference.known.copy()
    for label in LABELS:
        if label.levels is None:
            continue
        highest, lowest = label.levels
        top = borders.get(f'C{int(highest[1:]) - 1}', np.inf)
        bottom = borders.get(lowest, -np.inf)
        known[:, label.index] &= (middles > bottom) & (middles < top)
    return Reference(reference.labels, known)


def area_ratio(found: np.ndarray, reference: Reference) -> dict[int, float]:
    """Area of each muscle as a share of that of the reference, over the slices it is known in."""
    ratios = {}
    for label in LABELS:
        slices = reference.slices(label.index)
        drawn = np.sum(reference.labels[:, :, slices] == label.index)
        ratios[label.index] = (
            float(np.sum(found[:, :, slices] == label.index) / drawn) if drawn else np.nan
        )
    return ratios


def repeatability(first: Reference, second: Reference) -> dict[int, float]:
    """Dice of each muscle between two readings, over the slices that both know."""
    return score(second.labels, Reference(first.labels, first.known & second.known))


def mean_over_sides(dice: Mapping[int, float]) -> dict[str, float]:
    """Mean of left and right by abbreviation."""
    sides: dict[str, list[float]] = {}
    for label in LABELS:
        sides.setdefault(label.abbreviation, []).append(dice[label.index])
    return {
        name: float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
        for name, values in sides.items()
    }


def image_path(data: Path, participant: str, outlines: Sequence[Outline]) -> Path:
    """Return the scan that a participant was outlined on."""
    name = next(o.image for o in outlines if o.participant == participant)
    return data / participant / 'anat' / name


def images_of(data: Path, outlined: Path) -> list[Path]:
    """Return the images of a participant that share the grid of the outlined one."""
    grid = nib.load(outlined)
    return [
        path
        for path in sorted((data / outlined.parents[1].name / 'anat').glob('*.nii.gz'))
        if nib.load(path).shape == grid.shape
        and np.allclose(nib.load(path).affine, grid.affine, atol=1e-3)
    ]


def segment(path: Path, model: str | None) -> np.ndarray:
    """Label map of the model on the voxel grid of the scan."""
    from bids_muscle.imaging.conform import load_image
    from bids_muscle.imaging.prepare import prepare_scan
    from bids_muscle.segmentation.catalogue import find_model
    from bids_muscle.segmentation.predictor import Predictor

    images = prepare_scan({'image': load_image(path)}).corrected
    return np.asarray(Predictor(find_model(model, 'cervical')).segment(images).labels.dataobj)


def print_table(title: str, rows: Mapping[str, Mapping[str, float]], form: str) -> None:
    """Print a Markdown table with one row a participant and one column a muscle."""
    names = list(next(iter(rows.values())))
    print(f'\n{title}\n\n| | ' + ' | '.join(names) + ' |\n' + '|---' * (len(names) + 1) + '|')
    for row, values in rows.items():
        print(f'| {row} | ' + ' | '.join(format(values[name], form) for name in names) + ' |')


def areas(reference: Reference, pixel_mm2: float) -> dict[str, float]:
    """Mean cross-sectional area in the slices in which a muscle is outlined, mm2, both sides."""
    counts = {
        label.index: np.sum(reference.labels == label.index, axis=(0, 1)) for label in LABELS
    }
    means = {
        index: float(np.mean(count[count > 0])) * pixel_mm2 if count.any() else np.nan
        for index, count in counts.items()
    }
    return mean_over_sides(means)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, default=Path('../shared/data/neck'))
    parser.add_argument('--model', nargs='?', const='', help='name or folder; none: the default')
    parser.add_argument('--only', nargs='*', help='participants for the model; default: all')
    parser.add_argument('--dseg', nargs='*', default=[], metavar='PARTICIPANT=FILE')
    parser.add_argument('--write', type=Path, help='folder for the label maps, one a participant')
    options = parser.parse_args()
    outlines = read_outlines()
    people = sorted({outline.participant for outline in outlines})
    paths = {person: image_path(options.data, person, outlines) for person in people}
    images = {p: nib.as_closest_canonical(nib.load(path)) for p, path in paths.items()}
    truth = references(outlines, {p: image.shape for p, image in images.items()})
    again = references(outlines, {p: image.shape for p, image in images.items()}, reading=2)

    pixels = {p: float(np.prod(image.header.get_zooms()[:2])) for p, image in images.items()}
    print_table('Mean area (mm2)', {p: areas(truth[p], pixels[p]) for p in people}, '.0f')
    count = {p: {n.abbreviation: len(truth[p].slices(n.index)) for n in LABELS} for p in people}
    print_table('Slices in which the muscle is known', count, 'd')
    twice = {
        p: mean_over_sides(repeatability(truth[p], again[p]))
        for p in people
        if again[p].known.any()
    }
    if twice:
        print_table('Dice of the second reading with the first', twice, '.2f')
    found: dict[tuple[str, str], np.ndarray] = {}
    if options.model is not None:
        for person in options.only or people:
            for path in images_of(options.data, paths[person]):
                found[person, path.name] = segment(path, options.model or None)
    for person, file in (item.split('=', 1) for item in options.dseg):
        found[person, file] = np.asarray(nib.as_closest_canonical(nib.load(file)).dataobj)
    if found:
        measured = {p: at_levels(truth[p], read_borders(paths[p].name)) for p in people}
        scores = {
            'Dice with the outlines': lambda p, labels: score(labels, truth[p]),
            'Dice at the levels of Table 1': lambda p, labels: score(labels, measured[p]),
            'Area as a share of the outlines, levels of Table 1': lambda p, labels: area_ratio(
                labels, measured[p]
            ),
        }
        for title, of in scores.items():
            rows = {name: mean_over_sides(of(p, seen)) for (p, name), seen in found.items()}
            for values in rows.values():
                values['mean'] = float(np.nanmean(list(values.values())))
            print_table(title, rows, '.3f')
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        for person, image in images.items():
            name = paths[person].name.replace('.nii', '_dseg.nii')
            nib.save(nib.Nifti1Image(truth[person].labels, image.affine), options.write / name)


if __name__ == '__main__':
    main()
