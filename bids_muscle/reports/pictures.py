"""The pictures of a scan on the page of a participant, and what the slice viewer shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.errors import PARSE_ERRORS
from bids_muscle.reports.outputs import ScanOutputs
from bids_muscle.reports.page import data_uri
from bids_muscle.reports.slices import EDGES


@dataclass(frozen=True)
class Picture:
    """A picture of the page, and one that is shown in its place while asked for."""

    title: str
    caption: str
    alt: str
    second: str = ''
    prompt: str = ''


#: Pictures by the name of their file.
PICTURES = {
    'spine': Picture(
        'Vertebrae and discs',
        'Mid-sagittal slice of the spine with the vertebrae and the heights of the discs. '
        'Vertebrae are named upwards from the sacrum, or numbered upwards if no sacrum was found. '
        'Anterior is on the left; x is the position in scanner space.',
        'Sagittal slice with vertebrae and discs in colours.',
    ),
    'segmentation': Picture(
        'Segmentation',
        'Axial slices from superior to inferior: the first and the last slice with muscle, the '
        'slice with most of all muscles, the slice with the lowest confidence of the network, and '
        'slices in which single muscles are largest. Radiological convention, viewed from below: '
        "the patient's right is on the left. Each slice has its own grey levels. z is the "
        'height of its middle in scanner space.',
        'Axial slices with the outline of each muscle in its colour.',
        'slices',
        'the slices without outlines',
    ),
    'extent': Picture(
        'Extent',
        'Coronal and sagittal slice through the muscles. White marks show the axial slices above, '
        'with their vertebral levels. A muscle that reaches the edge is cut off by the field of '
        'view.',
        'Coronal and sagittal slice with the outline of each muscle in its colour.',
    ),
    'surfaces': Picture(
        '3-D surfaces',
        'Surfaces of the segmented muscles, orthographic, on one scale. Shapes between slices are '
        'interpolated. Holes, fragments and flat ends are in the segmentation.',
        'The muscles in their colours from the front, from behind, from below and at an angle.',
    ),
    'fatfraction': Picture(
        'Fat fraction',
        'Fat signal divided by the sum of fat and water, with the outlines of the muscles. '
        'Black: 0 %, no signal, or undefined.',
        'Maps of the fat fraction from 0 to 100 % on the same axial slices.',
    ),
    'alignment': Picture(
        'Alignment with the atlas',
        'Muscles of the atlas on the scan after alignment. They should lie near the muscles; they '
        'need not match their outlines.',
        'Axial slices with the outlines of the muscles of the atlas.',
        'template',
        'the atlas itself',
    ),
    'uncorrected': Picture(
        'Bias field',
        'Before bias correction. Afterwards a tissue should be as bright at the skin as at the '
        'spine. MFI is measured in the uncorrected images, fat by thresholds in the corrected '
        'ones.',
        'Axial slices before bias correction.',
        'corrected',
        'the slices after the correction',
    ),
    'bias': Picture(
        'Estimated bias field',
        'The images were divided by this field. Orange: too bright before, violet: too dark.',
        'Axial slices with the bias field in colours from 0.5 to 2.',
    ),
}
#: Planes of the slice viewer, that of the scan first.
PLANES = ('axial', 'coronal', 'sagittal')
SPINE_PLANES = ('sagittal', 'coronal', 'axial')


def show_picture(scan: ScanOutputs, name: str) -> dict[str, Any]:
    """Return a picture as the page shows it, with the one in its place if that is there."""
    picture = PICTURES[name]
    second = scan.figures.get(picture.second)
    return {
        'title': picture.title,
        'caption': picture.caption,
        'prompt': picture.prompt,
        'alt': f'{scan.record.scan}: {picture.alt}',
        'uri': data_uri(scan.figures[name]),
        'second': data_uri(second) if second else '',
    }


def viewer_content(scan: ScanOutputs) -> dict[str, Any] | None:
    """Return what the scroller through all slices shows, or None without its files."""
    table = scan.table
    if table is None or not {*PLANES, 'outlines'} <= set(scan.figures):
        return None
    order = SPINE_PLANES if scan.record.region == SPINE else PLANES
    try:
        outlines = json.loads(scan.figures['outlines'].read_text(encoding='utf-8'))
        planes = [
            {
                'name': plane,
                'width': int(layout['width']),
                'height': int(layout['height']),
                'last': len(layout['slices']) - 1,
                'edges': EDGES[plane],
            }
            for plane, layout in ((plane, outlines['planes'][plane]) for plane in order)
        ]
    except (OSError, *PARSE_ERRORS, KeyError, TypeError):
        return None
    shown = {row['name'] for row in scan.rows}
    muscles = [
        {'index': str(label.index), 'name': label.name, 'colour': label.color}
        for label in table
        if label.name in shown or not label.source
    ]
    return {
        'planes': planes,
        'muscles': muscles,
        'data': {
            'outlines': outlines,
            'muscles': muscles,
            'named': order[0] if order == SPINE_PLANES else '',
            'sheets': {plane: data_uri(scan.figures[plane]) for plane in PLANES},
        },
    }
