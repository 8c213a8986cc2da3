"""What the fuzz tests share: how much they try, what they write, and what may come of it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from bids_muscle.errors import BidsMuscleError

#: Small files that once did harm, or that are likely to: a folder for each reader.
CORPUS = Path(__file__).parent / 'corpus'
#: `make fuzz` tries many times as much.
TIMES = int(os.environ.get('FUZZ_TIMES', '1'))

words = st.text(st.characters(codec='utf-8'), max_size=12)
#: Numbers that fit no limit, or that a division or a square root does not survive.
odd = st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e-300, 1e300, float('nan'), float('inf')])
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), odd, words)
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)
    ),
    max_leaves=8,
)


def tries(number: int) -> settings:
    """Return the settings of a test that tries so many files in CI."""
    return settings(max_examples=number * TIMES)


@contextmanager
def said_clearly() -> Iterator[None]:
    """Let nothing pass but errors meant for the user."""
    try:
        yield
    except BidsMuscleError as error:
        assert error.message.endswith('.')
        assert error.remedy.endswith(('.', '?')) or ': ' in error.remedy  # a command


def corpus(reader: str) -> list[bytes]:
    """Return the contents of the corpus for a reader."""
    return [path.read_bytes() for path in sorted((CORPUS / reader).iterdir())]


def image_bytes() -> bytes:
    """Return a small image that everything can be done with."""
    data = np.random.default_rng(0).integers(1, 999, (6, 5, 4)).astype(np.int16)
    return nib.Nifti1Image(data, np.diag([2.0, 2, 5, 1])).to_bytes()


def mutations(whole: Any, values: st.SearchStrategy[Any] = json_values) -> st.SearchStrategy[Any]:
    """Return contents that differ from a valid one in up to two places, or lack these.

    Parameters
    ----------
    whole
        Content of a JSON or TOML file.
    values
        What may be in these places.
    """
    lacking = object()

    def change(changes: Sequence[tuple[Sequence[Any], Any]]) -> Any:
        changed = copy.deepcopy(whole)
        for (*above, last), value in changes:
            place = changed
            for key in above:
                place = place[key] if _holds(place, key) else None
            if value is not lacking and isinstance(place, dict):
                place[last] = value
            elif _holds(place, last):
                if value is lacking:
                    del place[last]
                else:
                    place[last] = value
        return changed

    places = st.sampled_from(list(_places(whole))) | st.tuples(words)
    return st.lists(st.tuples(places, values | st.just(lacking)), max_size=2).map(change)


def _holds(place: Any, key: Any) -> bool:
    if isinstance(place, dict):
        return key in place
    return isinstance(place, list) and isinstance(key, int) and key < len(place)


def _places(content: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to each value of a content."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (key,)
        if isinstance(value, (dict, list)):
            yield from ((key, *rest) for rest in _places(value))


def as_json(content: Any) -> bytes:
    """Return the text of a JSON file, numbers that JSON does not know included."""
    return json.dumps(content).encode()
