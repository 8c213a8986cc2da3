"""Which body region a scan shows, from its sidecar, session or acquisition label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from bids_muscle.anatomy.labels import BODY

#: Values of BodyPart (BIDS) and BodyPartExamined (DICOM), in capitals and letters only. What is
#: absent, such as SPINE, does not tell the region.
BODY_PARTS = {
    **dict.fromkeys(
        ('NECK', 'CSPINE', 'CERVICAL', 'CERVICALSPINE', 'SPINECERVICAL', 'HEADNECK'), 'cervical'
    ),
    **dict.fromkeys(
        (
            'ABDOMEN',
            'ABDOMENPELVIS',
            'BACK',
            'LOWERBACK',
            'LSPINE',
            'LSSPINE',
            'LUMBAR',
            'LUMBARSPINE',
            'LUMBOSACRALSPINE',
            'SPINELUMBAR',
        ),
        'lumbar',
    ),
    **dict.fromkeys(('SHOULDER', 'CLAVICLE', 'SCAPULA'), 'shoulder'),
    **dict.fromkeys(('ARM', 'UPPERARM', 'HUMERUS'), 'arm'),
    'FOREARM': 'forearm',
    **dict.fromkeys(('THIGH', 'UPPERLEG', 'FEMUR'), 'thigh'),
    **dict.fromkeys(('LEG', 'LOWERLEG', 'CALF', 'TIBIA'), 'leg'),
}
#: Values that scans of the back may have, too: they count where nothing else tells.
_WIDE = {
    **dict.fromkeys(('CHEST', 'THORAX', 'TSPINE'), 'thorax'),
    **dict.fromkeys(('PELVIS', 'HIP'), 'pelvis'),
    **dict.fromkeys(('WHOLEBODY', 'WHOLESPINE'), BODY),
}

#: What a session or acquisition label must contain to tell the region.
_IN_LABEL = {
    'cervical': re.compile('neck|cerv|cspine', re.IGNORECASE),
    'lumbar': re.compile('lumb|lspine|abdom|lowback|lowerback', re.IGNORECASE),
}
#: The same of regions whose names are rarely meant for anything else.
_OTHERS_IN_LABEL = {
    'shoulder': re.compile('shoulder', re.IGNORECASE),
    'forearm': re.compile('forearm', re.IGNORECASE),
    'thorax': re.compile('thora|chest', re.IGNORECASE),
    'pelvis': re.compile('pelvi|glut', re.IGNORECASE),
    'thigh': re.compile('thigh', re.IGNORECASE),
    'leg': re.compile('calf|calves|lowerleg', re.IGNORECASE),
    BODY: re.compile('wholebody', re.IGNORECASE),
}


def find_region(
    metadata: Iterable[Mapping[str, Any]], session: str | None, acquisition: str | None
) -> str | None:
    """Return the body region of a scan.

    Parameters
    ----------
    metadata
        Sidecar of each image of the scan.
    session, acquisition
        Labels of the scan, or None.

    Returns
    -------
    str or None
        ``'cervical'``, ``'lumbar'`` or another region; None where nothing tells or two sources of
        the same rank contradict each other.

    Examples
    --------
    >>> find_region([{'BodyPart': 'C-Spine'}], 'abdomen', None)
    'cervical'
    >>> find_region([{'BodyPartExamined': 'SPINE'}], 'neck', None)
    'cervical'
    >>> find_region([{'BodyPartExamined': 'SPINE'}], None, 'MTon') is None
    True
    >>> find_region([{'BodyPart': 'THIGH'}], None, None), find_region([], None, 'calves')
    ('thigh', 'leg')
    >>> find_region([{'BodyPart': 'PELVIS'}], 'lumbar', None)
    'lumbar'
    """
    sidecars = list(metadata)
    sources = []
    for parts, patterns in ((BODY_PARTS, _IN_LABEL), (_WIDE, _OTHERS_IN_LABEL)):
        sources += [
            _from_body_part((sidecar.get(key) for sidecar in sidecars), parts) for key in _KEYS
        ]
        sources += [_from_label(label, patterns) for label in (session, acquisition)]
    for regions in sources:
        if regions:
            return regions.pop() if len(regions) == 1 else None
    return None


_KEYS = ('BodyPart', 'BodyPartExamined')


def _from_body_part(values: Iterable[Any], parts: Mapping[str, str]) -> set[str]:
    letters = (re.sub('[^A-Z]', '', value.upper()) for value in values if isinstance(value, str))
    return {parts[name] for name in letters if name in parts}


def _from_label(label: str | None, patterns: Mapping[str, re.Pattern[str]]) -> set[str]:
    return {region for region, pattern in patterns.items() if pattern.search(label or '')}
