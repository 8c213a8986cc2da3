"""Links from a sentence of the page to the place in the slice viewer that it names."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SLICES = r'slices? (?P<slice>\d+)(?:[-, ]+\d+)*'


def link_places(sentence: str, structures: Mapping[str, str]) -> list[dict[str, str]]:
    """Split a sentence at the slices that it names, or else at the structures.

    Parameters
    ----------
    sentence
        Plain text.
    structures
        Label number of each structure in the slice viewer, by its name.

    Returns
    -------
    list of dict
        ``text``, with ``slice`` (the number of the first axial slice) or ``label`` (the number of
        the structure) where the text is a link.

    Examples
    --------
    >>> link_places('Missing in slices 3-4. Check.', {})
    [{'text': 'Missing in '}, {'text': 'slices 3-4', 'slice': '3'}, {'text': '. Check.'}]
    >>> link_places('L4-L5: cut', {'L4': '24', 'L4-L5': '124'})
    [{'text': 'L4-L5', 'label': '124'}, {'text': ': cut'}]
    """
    pattern = re.compile(_SLICES)
    if not pattern.search(sentence):
        if not structures:
            return [{'text': sentence}]
        names = sorted(structures, key=len, reverse=True)
        pattern = re.compile(rf'\b(?:{"|".join(map(re.escape, names))})\b')
    parts, end = [], 0
    for match in pattern.finditer(sentence):
        parts.append({'text': sentence[end : match.start()]})
        number = match.groupdict().get('slice')
        target = {'slice': number} if number else {'label': structures[match[0]]}
        parts.append({'text': match[0], **target})
        end = match.end()
    parts.append({'text': sentence[end:]})
    return [part for part in parts if part['text']]
