"""Which body region a scan shows, told by its sidecar, session or acquisition label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: Values of BodyPart (BIDS) and BodyPartExamined (DICOM), in capitals and letters only. What is
#: absent, such as SPINE or WHOLEBODY, does not tell the region.
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
}

#: What a session or acquisition label must contain to tell the region.
_IN_LABEL = {
    'cervical': re.compile('neck|cerv|cspine', re.IGNORECASE),
    'lumbar': re.compile('lumb|lspine|abdom|lowback|lowerback', re.IGNORECASE),
}


def find_region(
    metadata: Iterable[Mapping[str, Any]], session: str | None, acquisition: str | None
) -> str | None:
    """Tell the body region of a scan.

    Parameters
    ----------
    metadata
        Sidecar of each image of the scan.
    session, acquisition
        Labels of the scan, or None.

    Returns
    -------
    str or None
        ``'cervical'`` or ``'lumbar'``; None where nothing tells or two sources of the same rank
        contradict each other.

    Examples
    --------
    >>> find_region([{'BodyPart': 'C-Spine'}], 'abdomen', None)
    'cervical'
    >>> find_region([{'BodyPartExamined': 'SPINE'}], 'neck', None)
    'cervical'
    >>> find_region([{'BodyPartExamined': 'SPINE'}], None, 'MTon') is None
    True
    """
    sidecars = list(metadata)
    sources = [_from_body_part(sidecar.get(key) for sidecar in sidecars) for key in _KEYS]
    sources += [_from_label(session), _from_label(acquisition)]
    for regions in sources:
        if regions:
            return regions.pop() if len(regions) == 1 else None
    return None


_KEYS = ('BodyPart', 'BodyPartExamined')


def _from_body_part(values: Iterable[Any]) -> set[str]:
    letters = (re.sub('[^A-Z]', '', value.upper()) for value in values if isinstance(value, str))
    return {BODY_PARTS[name] for name in letters if name in BODY_PARTS}


def _from_label(label: str | None) -> set[str]:
    return {region for region, pattern in _IN_LABEL.items() if pattern.search(label or '')}
