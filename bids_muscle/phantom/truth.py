"""The known answer of every scan as tables: from the noise-free model, not from the images."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bids_muscle.phantom.anatomy import Anatomy
from bids_muscle.phantom.protocol import sequence_for
from bids_muscle.phantom.render import Samples, make_component, mfi_pct

Row = dict[str, str | int | float]

#: Column -> (description, unit): which scan a row of the cohort's table belongs to.
SCAN_COLUMNS = {
    'participant_id': ('Participant', ''),
    'session_id': ('Session, or n/a', ''),
    'scan': ('Name of the scan', ''),
    'region': ('Body region', ''),
    'artefacts': ('Simulated artefacts, separated by commas, or none', ''),
}

#: Column -> (description, unit) of the muscle table.
MUSCLE_COLUMNS = {
    'index': ('Number in the label map', ''),
    'name': ('Muscle and side', ''),
    'muscle': ('Muscle', ''),
    'side': ('Side', ''),
    'volume_ml': ('Volume of the muscle inside the field of view, partial volume included', 'ml'),
    'label_volume_ml': ('Volume of the voxels of the label map', 'ml'),
    'whole_volume_ml': ('Volume of the muscle in the whole simulated anatomy', 'ml'),
    'mfi_pct': (
        'Muscle fat infiltration of the voxels of the label map in a noise-free, bias-free Dixon '
        'scan: 100 F / (F + W), with F and W the summed fat and water signals (Weber 2021). '
        'Includes what partial volume adds at the surface of the muscle.',
        'percent',
    ),
    'planted_mfi_pct': (
        'What the cohort model asks for; differs from mfi_pct only where the surface alone '
        'exceeds it',
        'percent',
    ),
    'tissue_mfi_pct': (
        'The same signal ratio of the muscle alone, without its surroundings',
        'percent',
    ),
    'fat_fraction_pct': ('Share of fat in the protons of the muscle alone', 'percent'),
}

#: Column -> (description, unit) of the level table.
LEVEL_COLUMNS = {
    'index': ('Number in the label map', ''),
    'name': ('Muscle and side', ''),
    'level': ('Vertebra', ''),
    'z_mm': ('World z (RAS+) of the centre of the vertebral body', 'mm'),
    'csa_cm2': ('Cross-sectional area in the axial plane through that centre', 'cm2'),
    'volume_ml': ('Volume between the middles of the discs above and below', 'ml'),
}

#: Column -> (description, unit) of the disc table.
DISC_COLUMNS = {
    'index': ('Number in the spine label map', ''),
    'name': ('Disc between two vertebrae', ''),
    'z_mm': ('World z (RAS+) of its centre', 'mm'),
    'height_mm': ('Height in its middle, perpendicular to the disc', 'mm'),
    'tilt_deg': ('Forward tilt about the right-left axis', 'deg'),
    'in_view': ('Whether its centre lies inside the field of view', ''),
}


def true_muscle_rows(
    anatomy: Anatomy,
    samples: Samples,
    fat_by_label: Mapping[int, NDArray[np.float64]],
    planted_mfi_pct: Mapping[int, float],
    field_strength_t: float,
) -> list[Row]:
    """Volume and fat of every muscle of one scan; columns in :data:`MUSCLE_COLUMNS`."""
    component = make_component(
        anatomy, fat_by_label, sequence_for('dixon', field_strength_t), field_strength_t
    )
    cell_ml = float(np.prod(anatomy.spacing_mm)) / 1000
    whole = np.bincount(anatomy.classes.ravel(), minlength=len(anatomy.legend))
    class_of = {item.muscle_index: n for n, item in enumerate(anatomy.legend) if item.muscle_index}
    rows: list[Row] = []
    for label in anatomy.table:
        number = class_of[label.index]
        own = np.zeros_like(samples.counts)
        own[number] = samples.counts[number]
        inside = own.sum()
        share = fat_by_label.get(label.index)
        fat = math.nan if share is None or not inside else float(share @ own[number] / inside)
        rows.append(
            {
                'index': label.index,
                'name': label.name,
                'muscle': label.muscle,
                'side': label.side,
                'volume_ml': float(inside * samples.point_ml),
                'label_volume_ml': float(
                    (samples.labels == label.index).sum() * samples.grid.voxel_ml
                ),
                'whole_volume_ml': float(whole[number] * cell_ml),
                'mfi_pct': mfi_pct(component, samples.label_counts[label.index]),
                'planted_mfi_pct': planted_mfi_pct[label.index],
                'tissue_mfi_pct': mfi_pct(component, own),
                'fat_fraction_pct': 100 * fat,
            }
        )
    return rows


def true_level_rows(anatomy: Anatomy) -> list[Row]:
    """Area and volume of every muscle at every vertebra; columns in :data:`LEVEL_COLUMNS`."""
    spine = anatomy.spine
    area_cm2 = anatomy.spacing_mm[1] * anatomy.spacing_mm[2] / 100
    z = anatomy.origin_mm[0] + np.arange(anatomy.classes.shape[0]) * anatomy.spacing_mm[0]
    edges = np.concatenate([[np.inf], spine.disc_centre_mm, [-np.inf]])
    legend = anatomy.muscle_index
    size = int(legend.max()) + 1
    areas = (
        np.stack([np.bincount(legend[plane].ravel(), minlength=size) for plane in anatomy.classes])
        * area_cm2
    )
    rows: list[Row] = []
    for label in anatomy.table:
        for k, name in enumerate(spine.level_names):
            slab = (z < edges[k]) & (z >= edges[k + 1])
            volume_ml = areas[slab, label.index].sum() * anatomy.spacing_mm[0] / 10
            rows.append(
                {
                    'index': label.index,
                    'name': label.name,
                    'level': name,
                    'z_mm': float(spine.centre_mm[k]),
                    'csa_cm2': float(np.interp(spine.centre_mm[k], z, areas[:, label.index])),
                    'volume_ml': float(volume_ml),
                }
            )
    return rows


def disc_rows(anatomy: Anatomy, samples: Samples) -> list[Row]:
    """Position and height of every disc; columns in :data:`DISC_COLUMNS`."""
    from bids_muscle.phantom.anatomy import DISC_OFFSET

    spine, grid = anatomy.spine, samples.grid
    rows: list[Row] = []
    for k in range(spine.fused_from):
        z = float(spine.disc_centre_mm[k])
        right, forward = spine.at_level(spine.shift_mm, float(spine.level_at(z)))
        voxel = np.linalg.solve(
            grid.affine[:3, :3], np.array([right, forward, z]) - grid.affine[:3, 3]
        )
        inside = bool(((voxel > -0.5) & (voxel < np.array(grid.shape) - 0.5)).all())
        rows.append(
            {
                'index': DISC_OFFSET + k,
                'name': f'{spine.level_names[k]}-{spine.level_names[k + 1]}',
                'z_mm': z,
                'height_mm': float(spine.disc_height_mm[k]),
                'tilt_deg': float((spine.tilt_deg[k] + spine.tilt_deg[k + 1]) / 2),
                'in_view': 'yes' if inside else 'no',
            }
        )
    return rows


def format_table(rows: list[Row], columns: Mapping[str, tuple[str, str]]) -> str:
    r"""Return a TSV; numbers with six significant digits, NaN as n/a.

    Examples
    --------
    >>> format_table([{'a': 1, 'b': float('nan')}], {'a': ('', ''), 'b': ('', '')})
    'a\tb\n1\tn/a\n'
    """

    def text(value: str | int | float) -> str:
        if isinstance(value, float):
            return 'n/a' if math.isnan(value) else f'{value:.6g}'
        return str(value)

    lines = ['\t'.join(columns)]
    lines += ['\t'.join(text(row[name]) for name in columns) for row in rows]
    return '\n'.join(lines) + '\n'


def describe_columns(columns: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Return the JSON data dictionary of a table."""
    return {
        name: {'Description': text} | ({'Units': unit} if unit else {})
        for name, (text, unit) in columns.items()
    }
